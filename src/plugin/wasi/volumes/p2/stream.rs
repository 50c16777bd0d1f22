//! A file of a limited volume as an output stream of `wasi:io`.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::super::quota::{At, Changed, Quota};

/// Bytes of one write at most.
const CHUNK: usize = 64 << 10;

/// Writes to a file, one write at a time.
pub(super) struct Output {
    quota: Arc<Quota>,
    file: Arc<File>,
    at: At,
    state: State,
}

enum State {
    Idle,
    /// A write of so many bytes is on its way.
    Busy(Changed<io::Result<()>>, u64),
    Failed(io::Error),
    Closed,
}

impl Output {
    pub fn new(quota: Arc<Quota>, file: Arc<File>, at: At) -> Self {
        Self {
            quota,
            file,
            at,
            state: State::Idle,
        }
    }

    /// How the last write ended is told once; then there is nothing to write to any more.
    fn failure(&mut self) -> StreamResult<()> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            State::Closed => Err(StreamError::Closed),
            going_on => {
                self.state = going_on;
                Ok(())
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.state {
            State::Idle if bytes.len() <= CHUNK => {}
            State::Closed => return Err(StreamError::Closed),
            _ => return Err(StreamError::trap("write: not permitted")),
        }
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (file, at) = (self.file.clone(), self.at);
        let task = self
            .quota
            .change(move |volume| volume.write_all(&file, at, &bytes));
        self.state = State::Busy(task, count);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Nothing is kept back.
        self.failure()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.failure()?;
        Ok(match self.state {
            State::Idle => CHUNK,
            _ => 0,
        })
    }

    /// Waits for what is on its way, so that a guest has no more of it than it has streams.
    async fn cancel(&mut self) {
        self.ready().await;
        self.state = State::Closed;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        let State::Busy(task, count) = &mut self.state else {
            return;
        };
        let written = task.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        if let (Ok(()), At::Offset(offset)) = (&written, &mut self.at) {
            *offset = offset.saturating_add(*count);
        }
        self.state = match written {
            Ok(()) => State::Idle,
            Err(error) => State::Failed(error),
        };
    }
}
