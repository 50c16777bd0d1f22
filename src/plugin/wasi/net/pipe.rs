//! A bounded pipe of bytes: one direction of a connection within a workload.
//!
//! Either end may go first. A reader whose writer is gone reads what is left and then the end; a writer whose reader is gone
//! is told so. Operations never wait by themselves: they do what can be done, and who wants to wait polls.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Bytes that a pipe holds at most, as much as Linux gives to a pipe. Taken only when they are written.
pub(super) const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// One end is gone.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The end that bytes come out of.
pub(super) struct Reader(Arc<Mutex<State>>);

/// The end that bytes go into.
pub(super) struct Writer(Arc<Mutex<State>>);

/// A new pipe.
pub(super) fn pipe() -> (Writer, Reader) {
    let state = Arc::<Mutex<State>>::default();
    (Writer(state.clone()), Reader(state))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(state: &Mutex<State>) {
    let mut state = lock(state);
    state.closed = true;
    let wakers = [state.reader.take(), state.writer.take()];
    drop(state);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

impl Reader {
    /// Takes bytes; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` while there are none yet.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.0);
        if state.bytes.is_empty() && !state.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = into.len().min(state.bytes.len());
        for (to, byte) in into.iter_mut().zip(state.bytes.drain(..count)) {
            *to = byte;
        }
        let writer = state.writer.take().filter(|_| count > 0);
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(count)
    }

    /// Ready when a read would not block.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if !state.bytes.is_empty() || state.closed {
            return Poll::Ready(());
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Writer {
    /// Puts bytes in, as many as fit.
    ///
    /// # Errors
    /// `WouldBlock` while it is full, `BrokenPipe` when nobody reads any more.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0);
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(CAPACITY.saturating_sub(state.bytes.len()));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes.extend(bytes.iter().take(count));
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(count)
    }

    /// Ready when a write would not block.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.bytes.len() < CAPACITY || state.closed {
            return Poll::Ready(());
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.0).bytes = VecDeque::new();
        close(&self.0);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        close(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn would_block<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn it_holds_no_more_than_its_capacity_and_wakes_the_writer_for_room() {
        let (writer, reader) = pipe();
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(writer.try_write(&[7; CAPACITY + 1]).unwrap(), CAPACITY);
        assert!(would_block(writer.try_write(&[8])));
        assert!(writer.poll_ready(&mut context).is_pending());
        let mut some = [0; 3];
        assert_eq!(reader.try_read(&mut some).unwrap(), 3);
        assert_eq!(some, [7; 3]);
        assert!(writer.poll_ready(&mut context).is_ready());
        assert_eq!(writer.try_write(&[8; 10]).unwrap(), 3);
    }

    #[test]
    fn what_was_written_is_read_before_the_end() {
        let (writer, reader) = pipe();
        let mut some = [0; 4];
        assert!(would_block(reader.try_read(&mut some)));
        writer.try_write(b"ab").unwrap();
        drop(writer);
        assert_eq!(reader.try_read(&mut some).unwrap(), 2);
        assert_eq!(reader.try_read(&mut some).unwrap(), 0);
    }

    #[test]
    fn a_writer_without_a_reader_is_told() {
        let (writer, reader) = pipe();
        writer.try_write(&[1; CAPACITY]).unwrap();
        drop(reader);
        let mut context = Context::from_waker(Waker::noop());
        assert!(writer.poll_ready(&mut context).is_ready());
        let error = writer.try_write(&[1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
