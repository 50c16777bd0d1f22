//! What a guest streams into a file of a limited volume.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{Source, StreamConsumer, StreamResult},
};
use wasmtime_wasi::p3::bindings::filesystem::types::ErrorCode;

use super::super::quota::{At, Changed, Quota};
use crate::plugin::StoreState;

/// Bytes of one write at most.
const CHUNK: usize = 64 << 10;

/// What a guest is told when its stream has ended.
pub(super) type Told = oneshot::Sender<Result<(), ErrorCode>>;

/// Writes to a file what is read from a guest, one write at a time.
pub(super) struct Input {
    quota: Arc<Quota>,
    file: Arc<File>,
    at: At,
    told: Option<Told>,
    /// The write that is on its way, and how many bytes it has.
    busy: Option<(Changed<io::Result<()>>, usize)>,
}

impl Input {
    pub fn new(quota: Arc<Quota>, file: Arc<File>, at: At, told: Told) -> Self {
        Self {
            quota,
            file,
            at,
            told: Some(told),
            busy: None,
        }
    }

    fn begin(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..CHUNK).unwrap_or(bytes).to_vec();
        let (file, at) = (self.file.clone(), self.at);
        let count = bytes.len();
        let task = self
            .quota
            .change(move |volume| volume.write_all(&file, at, &bytes));
        self.busy = Some((task, count));
    }

    fn tell(&mut self, result: Result<(), ErrorCode>) {
        if let Some(told) = self.told.take() {
            // Who dropped the future does not want to know.
            let _ = told.send(result);
        }
    }
}

impl StreamConsumer<StoreState> for Input {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, StoreState>,
        source: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        if self.busy.is_none() {
            if source.remaining().is_empty() {
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            self.begin(source.remaining());
        }
        let Some((task, count)) = &mut self.busy else {
            return Poll::Ready(Ok(StreamResult::Completed));
        };
        // A write that has begun is waited for, also when the guest would rather not: who knows what of it is done.
        let written = ready!(Pin::new(task).poll(context));
        let count = *count;
        self.busy = None;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                source.mark_read(count);
                if let At::Offset(offset) = &mut self.at {
                    *offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => {
                self.tell(Err(error.into()));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}
