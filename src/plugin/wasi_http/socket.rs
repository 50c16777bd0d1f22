//! A connection's TCP stream, and whether its client has left in the middle of an upload.
//!
//! hyper sees that a client has left where the stream ends, and reads no further than a guest does: of one who leaves an upload
//! unread it would learn nothing. But the system says that a stream has ended, or was reset, whatever there is to read before.
//!
//! A reset says that nobody waits for an answer. The stream's end alone does not: there are clients that close their half of
//! it after the request, and get their answer if the guest gives it without reading on. Who ends it before the upload is whole
//! is none of them.
//!
//! And hyper forgets what it has not sent yet of an answer when it learns that its body has failed. What the guest had written
//! by then is the client's, at whatever pace it reads: the failure is told when the system has taken all of it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::Request;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rustix::{
    io::ioctl_fionread,
    net::{Shutdown, shutdown},
};
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use super::body::{Body, BodyError};

/// What TLS may keep of what was received before the request, in bytes: less than two records.
const RECORDS: u64 = 64 << 10;

/// A stream that is read and written by one task, which can also wait for its end.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// Bytes that were read since all had been read before the last head, and so at least what there is of that request's body.
    received: AtomicU64,
    /// A request with a body is not answered yet.
    uploading: AtomicBool,
    /// How long that body is, if it says so; else 0.
    length: AtomicU64,
    /// The last write had to wait: there is something to be sent.
    unsent: AtomicBool,
    /// Who waits until that has changed.
    sent: AtomicWaker,
}

/// A request with a body, until its answer is passed on.
#[derive(Debug)]
pub(super) struct Upload(Arc<Socket>);

/// A response's body, and the upload that it answers. A failure is told when all that came before it is sent.
pub(super) struct Answered {
    body: Body,
    failed: Option<BodyError>,
    socket: Arc<Socket>,
    _upload: Option<Upload>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self {
            stream,
            received: AtomicU64::new(0),
            uploading: AtomicBool::new(false),
            length: AtomicU64::new(0),
            unsent: AtomicBool::new(false),
            sent: AtomicWaker::new(),
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.stream.poll_read_ready(cx)?.is_pending() {
                if !self.is_uploading() {
                    self.received.store(0, Ordering::Relaxed);
                }
                return Poll::Pending;
            }
            let wanted = buffer.remaining();
            let mut read = None;
            let _ = self.stream.try_io(Interest::READABLE, || {
                let result = self.stream.try_read_buf(buffer);
                let is_all = matches!(result, Ok(length) if (1..wanted).contains(&length));
                if !would_block(&result) {
                    read = Some(result);
                }
                drained(is_all || read.is_none())
            });
            if let Some(read) = read {
                let received = self.received.load(Ordering::Relaxed);
                let length = read? as u64;
                self.received.store(received + length, Ordering::Relaxed);
                return Poll::Ready(Ok(()));
            }
        }
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_room(cx))?;
            let mut written = None;
            let _ = self.stream.try_io(Interest::WRITABLE, || {
                let result = self.stream.try_write(bytes);
                let is_full = matches!(result, Ok(length) if (1..bytes.len()).contains(&length));
                if !would_block(&result) {
                    written = Some(result);
                }
                drained(is_full || written.is_none())
            });
            if let Some(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_room(cx))?;
            let written = self.stream.try_write_vectored(parts);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
    }

    /// Ready when the system may take more, and the task too has not had its turn.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = self.stream.poll_write_ready(cx);
        if room.is_pending() {
            self.unsent.store(true, Ordering::Relaxed);
        } else if self.unsent.load(Ordering::Relaxed) {
            self.unsent.store(false, Ordering::Relaxed);
            self.sent.wake();
        }
        room
    }

    /// Ready when nothing waits to be sent; for the task that writes, after it has tried to.
    fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.unsent.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.sent.register(cx.waker());
        Poll::Pending
    }

    pub fn shut_down(&self) -> io::Result<()> {
        match shutdown(&self.stream, Shutdown::Write) {
            Err(rustix::io::Errno::NOTCONN) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Whether a request with a body waits for its answer.
    pub fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    /// Ready when the client has left in the middle of an upload. To be polled only while there is one.
    pub async fn left(&self, is_secure: bool) {
        let mut reset = pin!(self.stream.ready(Interest::ERROR));
        let mut ended = pin!(self.ended());
        let mut has_ended = false;
        poll_fn(|cx| {
            if reset.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            has_ended = has_ended || ended.as_mut().poll(cx).is_ready();
            if has_ended && self.is_cut_off(is_secure) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Ready when nothing more will be received, even if not all that was is read.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    async fn ended(&self) {
        // Unlike what is waited for to read, this is not ready because there is something to read.
        while let Ok(ready) = self.stream.ready(Interest::PRIORITY).await {
            if ready.is_read_closed() {
                return;
            }
            let _ = self.stream.try_io(Interest::PRIORITY, || drained(true));
        }
    }

    /// Elsewhere the system does not say it, and who leaves is noticed later.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    async fn ended(&self) {
        std::future::pending().await
    }

    /// Whether the upload is longer than what there is of it, after the stream's end.
    fn is_cut_off(&self, is_secure: bool) -> bool {
        // What is encrypted is longer than what it holds.
        let kept = if is_secure { RECORDS } else { 0 };
        let received = self.received.load(Ordering::Relaxed) + kept;
        let length = self.length.load(Ordering::Relaxed);
        length > received
            && ioctl_fionread(&self.stream).is_ok_and(|unread| length > received + unread)
    }
}

/// Has readiness taken back where a call has shown that there is none, and else kept.
fn drained(is: bool) -> io::Result<()> {
    if is {
        Err(io::ErrorKind::WouldBlock.into())
    } else {
        Ok(())
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl Upload {
    /// A request's upload, if it has one. It ends when it is dropped.
    pub fn begin<B: HttpBody>(socket: &Arc<Socket>, request: &Request<B>) -> Option<Self> {
        let body = request.body();
        (!body.is_end_stream()).then(|| {
            let length = body.size_hint().exact().unwrap_or(0);
            socket.length.store(length, Ordering::Relaxed);
            socket.uploading.store(true, Ordering::Relaxed);
            Self(socket.clone())
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.uploading.store(false, Ordering::Relaxed);
    }
}

impl Answered {
    pub fn new(body: Body, socket: Arc<Socket>, upload: Option<Upload>) -> Self {
        Self {
            body,
            failed: None,
            socket,
            _upload: upload,
        }
    }
}

impl HttpBody for Answered {
    type Data = <Body as HttpBody>::Data;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BodyError>>> {
        if self.failed.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(error)) if error.is_told_in_turn() => self.failed = Some(error),
                frame => return Poll::Ready(frame),
            }
            // The request is over; only its client is waited for.
            self.body = Body::text(Bytes::new());
        }
        ready!(self.socket.poll_sent(cx));
        Poll::Ready(self.failed.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
