//! The halves of a connection as streams of `wasi:io`.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::super::stream::{ReadHalf, WriteHalf};

/// Bytes of one read, or one write, at most.
const CHUNK: usize = 64 << 10;

/// Time that bytes on their way are given after the guest has gone.
const LINGER: Duration = Duration::from_secs(10);

/// What a socket and its input stream share; none when that direction is shut down.
#[derive(Clone)]
pub(super) struct Input(Arc<Mutex<Option<ReadHalf>>>);

/// What a socket and its output stream share.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

/// So that what is on its way when both are gone does not stay there for ever.
struct Shared(Mutex<Writing>);

enum Writing {
    Idle(WriteHalf),
    /// What did not fit at once, on its way; at most one chunk.
    Busy(JoinHandle<io::Result<WriteHalf>>),
    /// To be closed when that has arrived.
    Ending(JoinHandle<io::Result<WriteHalf>>),
    Failed(io::Error),
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Input {
    pub fn new(half: ReadHalf) -> Self {
        Self(Arc::new(Mutex::new(Some(half))))
    }

    /// Ends it for both who share it.
    pub fn shut_down(&self) {
        drop(lock(&self.0).take());
    }
}

impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut half = lock(&self.0);
        let Some(reader) = &*half else {
            return Err(StreamError::Closed);
        };
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = BytesMut::zeroed(size.min(CHUNK));
        match reader.try_read(&mut bytes) {
            Ok(0) => {
                *half = None;
                Err(StreamError::Closed)
            }
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes.freeze())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Err(error) => {
                *half = None;
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        poll_fn(|context| match &*lock(&self.0) {
            Some(reader) => reader.poll_ready(context),
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Output {
    pub fn new(half: WriteHalf) -> Self {
        Self(Arc::new(Shared(Mutex::new(Writing::Idle(half)))))
    }

    /// Ends it for both who share it, once all that was written is on its way.
    pub fn shut_down(&self) {
        let mut writing = lock(&self.0.0);
        *writing = match std::mem::replace(&mut *writing, Writing::Closed) {
            Writing::Busy(task) => Writing::Ending(task),
            Writing::Idle(_) => Writing::Closed,
            other => other,
        };
    }
}

impl Writing {
    /// Ready when nothing is on its way and a write may do something, or never will again.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Busy(task) | Self::Ending(task) = self {
            let result = ready!(std::pin::Pin::new(task).poll(context));
            let ending = matches!(self, Self::Ending(_));
            *self = match result.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(_) if ending => Self::Closed,
                Ok(half) => Self::Idle(half),
                Err(error) => Self::Failed(error),
            };
        }
        match self {
            Self::Idle(half) => half.poll_ready(context),
            _ => Poll::Ready(()),
        }
    }

    /// The half, if it is there to be used.
    fn idle(&mut self) -> StreamResult<Option<&WriteHalf>> {
        let ready = self.poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Self::Failed(_) = self
            && let Self::Failed(error) = std::mem::replace(self, Self::Closed)
        {
            return Err(StreamError::LastOperationFailed(error.into()));
        }
        match self {
            Self::Idle(half) if ready.is_ready() => Ok(Some(half)),
            Self::Closed => Err(StreamError::Closed),
            _ => Ok(None),
        }
    }

    /// Writes what fits, and leaves the rest to a task: the guest need not look at the stream again for it to arrive.
    fn write(&mut self, mut bytes: Bytes) {
        let Self::Idle(half) = self else { return };
        while !bytes.is_empty() {
            match half.try_write(&bytes) {
                Ok(count) => bytes.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    *self = Self::Failed(error);
                    return;
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
        if let Self::Idle(half) = std::mem::replace(self, Self::Closed) {
            *self = Self::Busy(tokio::spawn(async move {
                while !bytes.is_empty() {
                    let count = poll_fn(|context| half.poll_write(context, &bytes)).await?;
                    bytes.advance(count);
                }
                Ok(half)
            }));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let writing = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (Writing::Busy(mut task) | Writing::Ending(mut task)) =
            std::mem::replace(writing, Writing::Closed)
        else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return task.abort();
        };
        runtime.spawn(async move {
            if timeout(LINGER, &mut task).await.is_err() {
                task.abort();
            }
        });
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > CHUNK {
            return Err(StreamError::trap("write: more than was permitted"));
        }
        let mut writing = lock(&self.0.0);
        if writing.idle()?.is_none() {
            return Err(StreamError::trap("write: not permitted"));
        }
        writing.write(bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Nothing is kept back.
        lock(&self.0.0).idle().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(lock(&self.0.0).idle()?.map_or(0, |_| CHUNK))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        poll_fn(|context| lock(&self.0.0).poll_ready(context)).await;
    }
}
