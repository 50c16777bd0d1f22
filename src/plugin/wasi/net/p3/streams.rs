//! The halves of a connection as streams of the component model.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::{
    StoreContextMut,
    component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult},
};
use wasmtime_wasi::{p3::bindings::sockets::types::ErrorCode, sockets};

use super::super::{
    StoreState,
    stream::{ReadHalf, WriteHalf},
};
use crate::plugin::lane::poll_slice;

/// Bytes that are read at a time when the guest leaves the size to the host.
const CHUNK: usize = 64 << 10;

/// What a guest is told when its stream has ended.
pub(super) type Told = oneshot::Sender<Result<(), ErrorCode>>;

/// What a guest receives.
pub(super) struct Receive {
    half: Option<ReadHalf>,
    told: Option<Told>,
    /// The socket is counted until its streams have ended, too.
    _permit: Arc<OwnedSemaphorePermit>,
}

/// What a guest sends.
pub(super) struct Send {
    half: Option<WriteHalf>,
    told: Option<Told>,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The code for what a connection died of.
fn code(error: io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::BrokenPipe => ErrorCode::ConnectionBroken,
        _ => sockets::ErrorCode::from(error).into(),
    }
}

/// Tells once how it ended.
fn tell(told: &mut Option<Told>, result: Result<(), ErrorCode>) {
    if let Some(told) = told.take() {
        // Who dropped the future does not want to know.
        let _ = told.send(result);
    }
}

/// What nothing being ready means for a stream.
pub(super) fn not_ready(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    if finish {
        Poll::Ready(Ok(StreamResult::Cancelled))
    } else {
        Poll::Pending
    }
}

impl Receive {
    pub fn new(half: ReadHalf, told: Told, permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self {
            half: Some(half),
            told: Some(told),
            _permit: permit,
        }
    }

    fn end(&mut self, result: Result<(), ErrorCode>) -> Poll<wasmtime::Result<StreamResult>> {
        self.half = None;
        tell(&mut self.told, result);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl StreamProducer<StoreState> for Receive {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, StoreState>,
        destination: Destination<'a, u8, BytesMut>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(half) = &self.half else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        // One connection may be sent what another one receives, which never ends while both are ready.
        if poll_slice(context).is_pending() {
            return not_ready(finish);
        }
        // A read of nothing asks whether there is something.
        if destination.remaining(&mut store) == Some(0) {
            return match half.poll_ready(context) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => not_ready(finish),
            };
        }
        let mut into = destination.as_direct(store, CHUNK);
        match half.poll_read(context, into.remaining()) {
            Poll::Pending => not_ready(finish),
            Poll::Ready(Ok(0)) => self.end(Ok(())),
            Poll::Ready(Ok(count)) => {
                into.mark_written(count);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(error)) => self.end(Err(code(error))),
        }
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        tell(&mut self.told, Ok(()));
    }
}

impl Send {
    pub fn new(half: WriteHalf, told: Told, permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self {
            half: Some(half),
            told: Some(told),
            _permit: permit,
        }
    }
}

impl StreamConsumer<StoreState> for Send {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, StoreState>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(half) = &self.half else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        if poll_slice(context).is_pending() {
            return not_ready(finish);
        }
        let mut from = source.as_direct(store);
        if from.remaining().is_empty() {
            return match half.poll_ready(context) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => not_ready(finish),
            };
        }
        match half.poll_write(context, from.remaining()) {
            Poll::Pending => not_ready(finish),
            Poll::Ready(Ok(count)) => {
                from.mark_read(count);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(error)) => {
                self.half = None;
                tell(&mut self.told, Err(code(error)));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        // The other side sees the end before the guest hears of it.
        self.half = None;
        tell(&mut self.told, Ok(()));
    }
}
