//! One connection: what it speaks, and serving it to its end.
//!
//! A client that knows that this is HTTP/2 begins with HTTP/2's preface, which is looked at and not taken; over TLS both sides
//! agree by ALPN. From then on each protocol has a type of its own for the connection, so that HTTP/1.1 goes no way round.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Version};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, copy, sink},
    net::TcpStream,
    time,
};
use tokio_rustls::server::TlsStream;

use super::{
    Options,
    counters::count,
    door::{Door, Graceful, Visit},
    head_timer::{self, HeadWatch},
    http2::{Streams, join_cookies},
    limit::LINGER,
    patient::Patient,
    ports::Port,
    serve::Ingress,
    socket::{Answered, Socket, Upload},
    tls::Tls,
};

/// Largest head of a request, in bytes: request line and headers.
pub(super) const MAX_HEAD: u32 = 64 << 10;
/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How a connection begins whose client knows that this is HTTP/2. No method of HTTP/1.1 is called like that.
const PREFACE: [u8; 4] = *b"PRI ";

/// How a connection came in.
#[derive(Clone)]
pub(super) enum Way {
    /// By the main port.
    Main,
    /// By the port for HTTPS.
    Https(Arc<Tls>),
    /// By a workload's port.
    Port(Arc<Port>),
}

/// What the connections of a worker have in common.
pub(super) struct Connections {
    ingress: Arc<Ingress>,
    http1: http1::Builder,
    head_timeout: Duration,
    write_timeout: Duration,
}

/// What goes over a socket.
trait OverSocket {
    fn socket(&self) -> &Arc<Socket>;
}

impl OverSocket for Patient {
    fn socket(&self) -> &Arc<Socket> {
        self.socket()
    }
}

impl OverSocket for TlsStream<Patient> {
    fn socket(&self) -> &Arc<Socket> {
        self.get_ref().0.socket()
    }
}

/// A connection of HTTP/1.1.
struct Http1<C> {
    connection: C,
    heads: HeadWatch,
}

impl Way {
    /// Whose request it is, if that is not decided by host and path.
    pub fn port(&self) -> Option<&Port> {
        match self {
            Self::Port(port) => Some(port),
            Self::Main | Self::Https(_) => None,
        }
    }

    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Https(_))
    }

    pub fn door<'a>(&'a self, ingress: &'a Ingress) -> &'a Door {
        self.port().map_or(&ingress.door, |port| &port.door)
    }
}

impl Connections {
    pub fn new(ingress: Arc<Ingress>, options: &Options) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            .header_read_timeout(options.head_timeout)
            .max_header_size(MAX_HEAD as usize)
            .keep_alive(true);
        Arc::new(Self {
            ingress,
            http1,
            head_timeout: options.head_timeout,
            write_timeout: options.write_timeout,
        })
    }

    /// Serves a connection to its end.
    pub async fn serve(self: Arc<Self>, stream: std::net::TcpStream, way: Way) {
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        let stream = Patient::new(Socket::new(stream), self.write_timeout);
        let mut visit = way.door(&self.ingress).enter();
        let served = match &way {
            Way::Https(tls) => {
                // In a box, or every connection would be as large as one with TLS.
                Box::pin(self.serve_tls(tls, stream, &way, &mut visit)).await
            }
            Way::Main | Way::Port(_) => self.serve_plain(stream, &way, &mut visit).await,
        };
        if let Err(error) = served {
            tracing::debug!(%error, "HTTP connection ended");
        }
    }

    async fn serve_plain(
        &self,
        stream: Patient,
        way: &Way,
        visit: &mut Visit<'_>,
    ) -> io::Result<()> {
        let first = time::timeout(self.head_timeout, speaks_http2(stream.socket().stream()));
        match visit.before(first).await {
            Some(Ok(Ok(true))) => Box::pin(self.http2(stream, way, visit)).await,
            Some(Ok(Ok(false))) => self.http1(stream, way, visit).await,
            Some(Ok(Err(error))) => Err(error),
            // Nothing came, or nothing is to come any more.
            Some(Err(_)) | None => Ok(()),
        }
    }

    async fn serve_tls(
        &self,
        tls: &Tls,
        stream: Patient,
        way: &Way,
        visit: &mut Visit<'_>,
    ) -> io::Result<()> {
        let limit = HANDSHAKE.min(self.head_timeout);
        let stream = match visit.before(time::timeout(limit, tls.accept(stream))).await {
            Some(done) => done.map_err(|_| io::ErrorKind::TimedOut)??,
            None => return Ok(()),
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream, way, visit).await
        } else {
            self.http1(stream, way, visit).await
        }
    }

    async fn http1<I>(&self, io: I, way: &Way, visit: &mut Visit<'_>) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + OverSocket + Unpin,
    {
        let is_old = AtomicBool::new(false);
        let socket = io.socket().clone();
        let service = service_fn(|request: Request<Incoming>| {
            is_old.store(request.version() < Version::HTTP_11, Ordering::Relaxed);
            let upload = Upload::begin(&socket, &request);
            let response = self.ingress.serve(request, way);
            async {
                let response = response.await?;
                let socket = socket.clone();
                Ok::<_, Infallible>(response.map(|body| Answered::new(body, socket, upload)))
            }
        });
        let (timer, heads) = head_timer::heads();
        let mut http1 = self.http1.clone();
        let connection = http1
            .timer(timer)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = Http1 { connection, heads };
        let mut left = pin!(socket.left(way.is_secure()));
        let ended = poll_fn(|cx| match visit.poll(&mut connection, cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if socket.is_uploading() => left.as_mut().poll(cx).map(|()| None),
            Poll::Pending => Poll::Pending,
        });
        let error = match ended.await {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => error,
            None => {
                // The request ends with the connection, which is not to look like the end of an answer either.
                let _ = socket.stream().set_zero_linger();
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        };
        if error.is_parse_too_large() {
            count(&self.ingress.refused.large_head);
            // Or the rest of the head would make the system take the answer back.
            let mut io = connection.connection.into_parts().io.into_inner();
            let _ = time::timeout(LINGER, copy(&mut io, &mut sink())).await;
        } else if is_old.load(Ordering::Relaxed) {
            // Its answers may end with the connection, which is not to look like the end of one that was cut.
            let _ = socket.stream().set_zero_linger();
        }
        Err(io::Error::other(error))
    }

    async fn http2<I>(&self, io: I, way: &Way, visit: &mut Visit<'_>) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = Streams::new(self.write_timeout);
        let (ingress, way) = (self.ingress.clone(), way.clone());
        let service = {
            let streams = streams.clone();
            service_fn(move |mut request: Request<Incoming>| {
                // Each stream has a task of its own, which may outlive the connection by a moment.
                let (ingress, way, streams) = (ingress.clone(), way.clone(), streams.clone());
                async move {
                    join_cookies(request.headers_mut());
                    let method = request.method().clone();
                    let response = ingress.serve(request, &way).await?;
                    Ok::<_, Infallible>(streams.response(&method, response))
                }
            })
        };
        let mut connection = streams.serve(io, service, self.head_timeout);
        poll_fn(|cx| visit.poll(&mut connection, cx))
            .await
            .map_err(io::Error::other)
    }
}

/// Whether a connection begins as one of HTTP/2 does. What it begins with is left where it is.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let looked = stream.try_io(Interest::READABLE, || {
            let (_, length) = recv(stream, &mut start[..], RecvFlags::PEEK)?;
            let is_start = start.iter().zip(&PREFACE).take(length).all(|(a, b)| a == b);
            if is_start && (1..PREFACE.len()).contains(&length) && !ready.is_read_closed() {
                // The next byte that comes makes it readable again.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(is_start && length == PREFACE.len())
        });
        match looked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
}

impl<I, S> Graceful for Http1<http1::Connection<TokioIo<I>, S>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Answered, Error = Infallible>,
    http1::Connection<TokioIo<I>, S>: Future<Output = hyper::Result<()>> + Unpin,
{
    type End = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if polled.is_pending() && self.heads.poll(cx).is_ready() {
            return Pin::new(&mut self.connection).poll(cx);
        }
        polled
    }

    fn close(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }
}
