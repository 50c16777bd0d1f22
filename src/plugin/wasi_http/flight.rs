//! How many requests of one generation are in flight, so that it can be drained without losing one.
//!
//! A request finds its generation in the table and only then counts itself. In between, the generation may have been replaced,
//! drained and dropped; the count and the end are therefore one atomic word, and who comes too late looks again. One that
//! drains while nobody has taken its place is found again, and refuses again.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// No request begins any more.
const CLOSED: u32 = 1 << 31;
/// Somebody waits for the last request.
const DRAINING: u32 = 1 << 30;
/// Requests in flight.
const COUNT: u32 = DRAINING - 1;

/// The requests of one generation.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: AtomicU32,
    idle: Notify,
    cut: Notify,
}

impl Flight {
    /// Counts a request; false if the generation drains or has ended.
    pub fn enter(&self) -> bool {
        let entered = self.state.fetch_add(1, Ordering::AcqRel) & (CLOSED | DRAINING) == 0;
        if !entered {
            self.leave();
        }
        entered
    }

    /// A request that was counted has ended.
    pub fn leave(&self) {
        let left = self.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if left & COUNT == 0 && left & DRAINING != 0 {
            self.idle.notify_waiters();
        }
    }

    /// Requests in flight.
    pub fn count(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & COUNT
    }

    /// Lets no request begin, and waits until none is in flight. Whoever waits should have seen to it that new requests go
    /// elsewhere, if there is somewhere.
    pub async fn drain(&self) {
        self.state.fetch_or(DRAINING, Ordering::AcqRel);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            let closed = self.state.compare_exchange(
                DRAINING,
                DRAINING | CLOSED,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if closed.is_ok() || self.is_closed() {
                return;
            }
            idle.await;
        }
    }

    /// Lets no request begin, and cuts those in flight.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        self.cut.notify_waiters();
    }

    /// Whether requests in flight are cut, or there are none.
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Ready when requests in flight are to be cut.
    pub async fn cut(&self) {
        let mut cut = std::pin::pin!(self.cut.notified());
        cut.as_mut().enable();
        if !self.is_closed() {
            cut.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn draining_waits_for_the_last_request_and_then_closes() {
        let flight = Flight::default();
        assert!(flight.enter());
        let mut drain = Box::pin(flight.drain());
        assert!(drain.as_mut().now_or_never().is_none());
        // Somebody who found the generation before it was replaced, and looks again.
        assert!(!flight.enter());
        assert!(drain.as_mut().now_or_never().is_none());
        flight.leave();
        assert!(drain.as_mut().now_or_never().is_some());
        assert!(!flight.enter());
        assert_eq!(flight.count(), 0);
    }

    #[test]
    fn closing_cuts() {
        let flight = Flight::default();
        assert!(flight.enter());
        let mut cut = Box::pin(flight.cut());
        assert!(cut.as_mut().now_or_never().is_none());
        flight.close();
        assert!(cut.as_mut().now_or_never().is_some());
        assert!(flight.cut().now_or_never().is_some());
        assert!(!flight.enter());
        assert_eq!(flight.count(), 1);
    }
}
