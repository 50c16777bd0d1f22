//! A connection that is given up when its client takes nothing of what it is sent.
//!
//! Without this a client that asks and never reads would hold what is meant for it, and a place among the connections, for ever:
//! a guest's time does not end what the server has buffered already.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant, Sleep},
};

use super::socket::Socket;

/// Most bytes that are put together to be sent as one piece: the system takes longer over pieces than it takes to copy these.
const SHORT: usize = 2 << 10;

/// A stream whose writes fail when nothing could be written for some time. As long as the system takes all that is written, it
/// costs a comparison a write.
pub(super) struct Patient {
    socket: Arc<Socket>,
    limit: Duration,
    /// Set when a write had to wait for the first time, and kept for the next one.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// What was put together for the last short write; kept for its memory.
    short: Vec<u8>,
}

impl Patient {
    pub fn new(socket: Arc<Socket>, limit: Duration) -> Self {
        Self {
            socket,
            limit,
            timer: None,
            waiting: false,
            short: Vec::new(),
        }
    }

    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Passes on how a write went, unless it has waited for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(time::sleep(limit)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(Instant::now() + limit);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of what it is sent",
        )))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let written = if length <= SHORT {
            this.short.clear();
            for part in parts {
                this.short.extend_from_slice(part);
            }
            this.socket.poll_write(cx, &this.short)
        } else {
            this.socket.poll_write_vectored(cx, parts)
        };
        this.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    // A socket keeps nothing back, and shutting it down waits for nobody.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shut_down())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn who_reads_is_waited_for_and_who_does_not_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut patient = Patient::new(Socket::new(stream), Duration::from_millis(200));
        let much = vec![7; 64 << 20];
        let slow = async {
            let (mut part, mut left) = (vec![0; 8 << 20], much.len());
            while left > 0 {
                // Longer than a pause may be, in all.
                time::sleep(Duration::from_millis(40)).await;
                let wanted = left.min(part.len());
                left -= client.read_exact(&mut part[..wanted]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(patient.write_all(&much), slow);
        written.unwrap();
        let error = patient.write_all(&much).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
