//! Somebody who is expected, once.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// Whether somebody is expected, and until when that is waited for.
#[derive(Default)]
pub(super) struct Awaited {
    is: AtomicBool,
    until: OnceLock<Instant>,
    came: Notify,
}

impl Awaited {
    /// Somebody is to come.
    pub fn expect(&self) {
        self.is.store(true, Ordering::Release);
    }

    /// That one has come.
    pub fn has_come(&self) {
        if self.is.swap(false, Ordering::AcqRel) {
            self.came.notify_waiters();
        }
    }

    /// Until when to wait: `limit` after this was first asked. None if nobody is expected.
    pub fn until(&self, limit: Duration) -> Option<Instant> {
        let expected = self.is.load(Ordering::Acquire);
        expected.then(|| *self.until.get_or_init(|| Instant::now() + limit))
    }

    /// Ready when that one comes. To be enabled before anything is asked.
    pub fn came(&self) -> Notified<'_> {
        self.came.notified()
    }
}
