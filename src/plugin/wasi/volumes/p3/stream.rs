//! What a guest streams into a file of a limited volume, and the names in a directory that it is streamed.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer},
};
use wasmtime_wasi::{
    p2::FsResult,
    p3::bindings::filesystem::types::{DirectoryEntry, ErrorCode},
};

use super::{
    super::{
        listing::Listing,
        quota::{At, Changed, Quota},
    },
    convert,
};
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

/// Names that are given to a guest at a time.
const NAMES: usize = 64;

/// The names in a directory, which a guest reads.
pub(super) struct Names {
    listing: From,
    told: Option<Told>,
}

enum From {
    Reading(BoxFuture<'static, FsResult<Listing>>),
    Read(Listing),
}

impl Names {
    pub fn new(reading: BoxFuture<'static, FsResult<Listing>>, told: Told) -> Self {
        Self {
            listing: From::Reading(reading),
            told: Some(told),
        }
    }

    fn tell(&mut self, result: Result<(), ErrorCode>) {
        if let Some(told) = self.told.take() {
            // Who dropped the future does not want to know.
            let _ = told.send(result);
        }
    }
}

impl StreamProducer<StoreState> for Names {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, StoreState>,
        mut destination: Destination<'a, DirectoryEntry, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let wanted = destination.remaining(&mut store).unwrap_or(NAMES);
        if let From::Reading(reading) = &mut self.listing {
            match reading.as_mut().poll(context) {
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(listing)) => self.listing = From::Read(listing),
                Poll::Ready(Err(error)) => {
                    self.tell(Err(convert::error(error).downcast()?));
                    return Poll::Ready(Ok(StreamResult::Dropped));
                }
            }
        }
        let From::Read(listing) = &mut self.listing else {
            return Poll::Pending;
        };
        if wanted == 0 {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let names: Vec<_> = listing
            .by_ref()
            .take(wanted.min(NAMES))
            .map(convert::entry)
            .collect();
        if names.is_empty() {
            self.tell(Ok(()));
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        destination.set_buffer(names.into());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}
