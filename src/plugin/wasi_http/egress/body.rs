//! Bodies on their way: what is known of a request's, and a response's that gives its connection back.

use std::{
    error, fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    sync::oneshot,
    time::{self, Instant, Sleep},
};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{
    exchange::body_failure,
    pool::{Lease, Pool},
};

/// A request's body, which a connection reads.
pub(super) struct Outgoing {
    body: WasiBody,
    progress: Arc<Progress>,
    sent: Option<oneshot::Sender<()>>,
}

/// How far a request's body is.
#[derive(Default)]
pub(super) struct Progress {
    /// Some of it was read.
    begun: AtomicBool,
    /// All of it was read.
    ended: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// The guest failed to write its request; the [`Progress`] knows why.
#[derive(Debug)]
pub(super) struct Unwritten;

impl Outgoing {
    /// A body, what is known of it, and a message for the moment when all of it was read, which does not come if that fails.
    pub fn new(body: WasiBody) -> (Self, Arc<Progress>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let progress = Arc::<Progress>::default();
        let mut outgoing = Self {
            body,
            progress: progress.clone(),
            sent: Some(sender),
        };
        if outgoing.body.is_end_stream() {
            outgoing.end();
        }
        (outgoing, progress, receiver)
    }

    fn end(&mut self) {
        self.progress.ended.store(true, Ordering::Release);
        if let Some(sent) = self.sent.take() {
            let _ = sent.send(());
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // HTTP/1.1 sends no body of unknown length with a GET, and does not ask whether there is one; in WASI 0.3 that is each
        // GET, as its trailers are still to come.
        if !self.progress.begun.load(Ordering::Acquire)
            && let Some(sent) = self.sent.take()
        {
            let _ = sent.send(());
        }
    }
}

impl Progress {
    /// Whether the request turned out to have no body.
    pub fn is_bodyless(&self) -> bool {
        self.ended.load(Ordering::Acquire) && !self.begun.load(Ordering::Acquire)
    }

    /// Why the guest failed to write it; said once.
    pub fn take_error(&self) -> Option<Error> {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Unwritten;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unwritten>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.progress.begun.store(true, Ordering::Release);
                if self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let progress = self.progress.clone();
                let mut known = progress
                    .error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *known = Some(error);
                self.sent = None;
                Poll::Ready(Some(Err(Unwritten)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the component did not write its request to the end")
    }
}

impl error::Error for Unwritten {}

/// A response's body. When it was read to the end its connection is free for another call; dropped before, it takes the
/// connection along.
pub(super) struct Received {
    body: Incoming,
    pool: Arc<Pool>,
    lease: Option<Lease>,
    /// Longest time between two pieces of it.
    between: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Received {
    pub fn new(body: Incoming, pool: Arc<Pool>, lease: Lease, between: Duration) -> Self {
        let mut received = Self {
            body,
            pool,
            lease: Some(lease),
            between,
            timer: None,
            waiting: false,
        };
        received.give_back_at_end();
        received
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        // A stream of HTTP/2 has ended by being dropped.
        if let Some(Lease::Http1(connection)) = self.lease.take() {
            self.pool.keep(connection);
        }
    }

    /// Ready when the peer has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let between = self.between;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(time::sleep(between)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(Instant::now() + between);
        }
        timer.as_mut().poll(cx)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                this.give_back_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(body_failure(&error))))
            }
            Poll::Ready(None) => {
                this.give_back();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.poll_silence(cx));
                this.lease = None;
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
