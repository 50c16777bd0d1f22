//! HTTP/2: each stream of a connection in a task of its own, on the connection's thread, and when the connection ends.
//!
//! Where HTTP/1.1 says `Connection: close`, a client is told to go away (GOAWAY): streams that it has open are answered, and
//! then the connection ends.

use std::{
    convert::Infallible,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    rt::{self, bounds::Http2ServerConnExec},
    server::conn::http2,
    service::HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task_local,
    time::{self, Instant, Sleep},
};

use super::{
    body::{Body, BodyError},
    connection::MAX_HEAD,
    door::Graceful,
    serve::lock,
};

/// Streams that a client may have open at once on one connection.
const MAX_STREAMS: u32 = 128;
/// What a client may send of one request's body before the guest has read it.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all requests of a connection: guests that do not read must not stop the others.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// What a connection keeps of one response's body until the client takes it; its outbox keeps some more.
const SEND_BUFFER: usize = 64 << 10;
/// Time for a client that was told to go away to do so, before the connection is cut if no stream is open.
const GOODBYE: Duration = Duration::from_secs(5);
/// Time in which requests that were on their way when the client was told are still to be expected: a round trip.
const ROUND_TRIP: Duration = Duration::from_millis(500);

task_local! {
    /// Of the stream whose task this is.
    static TAKEN: Arc<Taken>;
}

/// The streams of one connection; hyper gives it their tasks.
#[derive(Clone)]
pub(super) struct Streams {
    shared: Arc<Shared>,
    write_timeout: Duration,
}

struct Shared {
    open: Mutex<Open>,
    /// The client is to go away.
    away: AtomicBool,
}

/// How many streams are open, and when that changed.
struct Open {
    streams: u32,
    since: Instant,
}

/// Counts a stream as long as it lives.
struct Stream(Arc<Shared>);

/// What of a response the client has been offered and has not taken: the number of a part, or 0.
#[derive(Default)]
struct Taken(AtomicU32);

/// A response's body that tells whether what it gave is taken.
pub(super) struct Watched {
    body: Body,
    /// There is none to send, whatever the guest writes; hyper looks at that for HTTP/1.1 only.
    withheld: bool,
    parts: u32,
    taken: Option<Arc<Taken>>,
}

/// A connection, which ends after a time without requests.
pub(super) struct Http2<C> {
    connection: Pin<Box<C>>,
    shared: Arc<Shared>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// Its client was told to go away.
    closing: bool,
    /// Set when it was closed from outside.
    settling: Option<Pin<Box<Sleep>>>,
}

impl Streams {
    /// For a connection whose streams are given up when the client takes nothing of them for this time.
    pub fn new(write_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                open: Mutex::new(Open {
                    streams: 0,
                    since: Instant::now(),
                }),
                away: AtomicBool::new(false),
            }),
            write_timeout,
        }
    }

    /// Serves a connection. One without a request for the time `idle` is closed.
    pub fn serve<I, S>(
        &self,
        io: I,
        service: S,
        idle: Duration,
    ) -> Http2<http2::Connection<TokioIo<I>, S, Self>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
        S: HttpService<Incoming, ResBody = Watched, Error = Infallible>,
        Self: Http2ServerConnExec<S::Future, Watched>,
    {
        // What hyper and h2 do against streams that are reset as fast as they are opened stays as it is.
        let connection = http2::Builder::new(self.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .serve_connection(TokioIo::new(io), service);
        Http2 {
            connection: Box::pin(connection),
            shared: self.shared.clone(),
            idle,
            timer: Box::pin(time::sleep(idle)),
            closing: false,
            settling: None,
        }
    }

    /// Makes a response to this method what HTTP/2 has in its place. Must be called by a stream's task.
    pub fn response(&self, method: &Method, mut response: Response<Body>) -> Response<Watched> {
        if response.headers_mut().remove(header::CONNECTION).is_some() {
            self.shared.away.store(true, Ordering::Relaxed);
        }
        let status = response.status();
        let withheld = method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        response.map(|body| Watched {
            body,
            withheld,
            parts: 0,
            taken: TAKEN.try_with(Arc::clone).ok(),
        })
    }
}

/// Joins the cookies that HTTP/2 may send apart, which nobody behind it expects.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

impl<F> rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = Stream::open(self.shared.clone());
        let (taken, limit) = (Arc::<Taken>::default(), self.write_timeout);
        tokio::spawn(async move {
            let _open = open;
            TAKEN
                .scope(taken.clone(), while_taken(stream, &taken, limit))
                .await;
        });
    }
}

/// Runs a stream, and resets it when its client lets a part of the response lie for too long. The client may well take what
/// other streams send it.
async fn while_taken(stream: impl Future<Output = ()>, taken: &Taken, limit: Duration) {
    let (mut stream, mut timer) = (pin!(stream), pin!(time::sleep(limit)));
    let mut waited_for = 0;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let part = taken.0.load(Ordering::Relaxed);
        if mem::replace(&mut waited_for, part) != part {
            timer.as_mut().reset(Instant::now() + limit);
        }
        if part == 0 {
            return Poll::Pending;
        }
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("an HTTP/2 stream was reset: the client takes nothing of it");
        Poll::Ready(())
    })
    .await;
}

impl Stream {
    fn open(shared: Arc<Shared>) -> Self {
        shared.change(|streams| streams + 1);
        Self(shared)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.change(|streams| streams.saturating_sub(1));
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut open = lock(&self.open);
        open.streams = change(open.streams);
        open.since = Instant::now();
    }

    /// How long no stream has been open; none while one is.
    fn idle_for(&self) -> Option<Duration> {
        let open = lock(&self.open);
        (open.streams == 0).then(|| open.since.elapsed())
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self {
            body, parts, taken, ..
        } = self.get_mut();
        // Whoever asks for more has got rid of what there was.
        let polled = Pin::new(body).poll_frame(cx);
        let part = if let Poll::Ready(Some(Ok(_))) = &polled {
            *parts = parts.wrapping_add(1).max(1);
            *parts
        } else {
            0
        };
        if let Some(taken) = taken {
            taken.0.store(part, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.withheld || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<I, S> Http2<http2::Connection<TokioIo<I>, S, Streams>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Watched, Error = Infallible>,
    Streams: Http2ServerConnExec<S::Future, Watched>,
{
    fn go_away(&mut self) {
        self.connection.as_mut().graceful_shutdown();
        self.closing = true;
        self.timer.as_mut().reset(Instant::now() + GOODBYE);
    }
}

impl<I, S> Graceful for Http2<http2::Connection<TokioIo<I>, S, Streams>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Watched, Error = Infallible>,
    Streams: Http2ServerConnExec<S::Future, Watched>,
{
    type End = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End> {
        loop {
            if let Poll::Ready(end) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            if !self.closing && self.shared.away.load(Ordering::Relaxed) {
                self.go_away();
                continue;
            }
            ready!(self.timer.as_mut().poll(cx));
            let limit = if self.closing { GOODBYE } else { self.idle };
            let idle = self.shared.idle_for().unwrap_or_default();
            if idle < limit {
                self.timer.as_mut().reset(Instant::now() + limit - idle);
            } else if self.closing {
                return Poll::Ready(Ok(()));
            } else {
                self.go_away();
            }
        }
    }

    fn close(&mut self) {
        if !self.closing {
            self.go_away();
        }
        self.settling = Some(Box::pin(time::sleep(ROUND_TRIP)));
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.settling {
            Some(settling) => settling.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_joined() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for cookie in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        let all: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(all, ["a=1; b=2; c=3; d=4"]);
    }
}
