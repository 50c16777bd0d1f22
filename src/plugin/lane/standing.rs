//! Whether a component's guests take long.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// What a guest may take at a time without being taken for one that others should not wait for: a hundred times as long as a
/// short request, and a time that nobody notices.
pub const LONG: Duration = Duration::from_millis(1);

/// What the last guests of a component were like, which says where the next one begins. Whoever is found to take long is
/// warned, since it may have been the thread that was kept from going on; from then on it is the thread's own time that
/// counts. The second time it is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(u8);

/// A component's standing, for all threads.
#[derive(Default)]
pub struct Record(AtomicU8);

/// Measures a guest's turn.
pub enum Stopwatch {
    /// By the clock, which costs next to nothing.
    Clock(Instant),
    /// By the time that the thread has had of its core, which takes a system call.
    Thread(Duration),
}

impl Standing {
    pub const TRUSTED: Self = Self(0);
    /// Less one for each short request that it is followed by.
    const WARNED: Self = Self(8);
    /// The same, until it is trusted again.
    pub const SUSPECT: Self = Self(Self::WARNED.0 + 4);

    pub fn is_suspect(self) -> bool {
        self.0 > Self::WARNED.0
    }

    pub fn after(self, long: bool) -> Self {
        if long && self == Self::TRUSTED {
            return Self::WARNED;
        }
        if long {
            return Self::SUSPECT;
        }
        let less = Self(self.0.saturating_sub(1));
        if self.is_suspect() && !less.is_suspect() {
            return Self::TRUSTED;
        }
        less
    }
}

impl Record {
    pub fn standing(&self) -> Standing {
        Standing(self.0.load(Ordering::Relaxed))
    }

    pub fn suspect(&self) {
        self.0.store(Standing::SUSPECT.0, Ordering::Relaxed);
    }

    /// Judges a turn by the standing that its component had when it began, which says how it was measured. Of what several
    /// threads find at a time, what is worse counts.
    pub fn judge(&self, began: Standing, long: bool) -> Standing {
        let standing = began.after(long);
        if long {
            self.0.fetch_max(standing.0, Ordering::Relaxed);
        } else {
            let (began, standing) = (began.0, standing.0);
            let _ = self
                .0
                .compare_exchange(began, standing, Ordering::Relaxed, Ordering::Relaxed);
        }
        standing
    }
}

impl Stopwatch {
    pub fn start(exact: bool) -> Self {
        if exact {
            Self::Thread(thread_time())
        } else {
            Self::Clock(Instant::now())
        }
    }

    pub fn is_long(&self) -> bool {
        let taken = match self {
            Self::Clock(start) => start.elapsed(),
            Self::Thread(start) => thread_time().saturating_sub(*start),
        };
        taken >= LONG
    }
}

/// The time that this thread has had of a core.
pub fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime)
        .try_into()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_lost_by_two_long_ones_and_won_by_some_short_ones() {
        let after = |standing: Standing, turns: &[bool]| {
            turns
                .iter()
                .fold(standing, |standing, long| standing.after(*long))
        };
        let trusted = Standing::TRUSTED;
        assert_eq!(after(trusted, &[false]), trusted);
        assert!(!after(trusted, &[true]).is_suspect());
        assert!(after(trusted, &[true, true]).is_suspect());
        assert!(after(trusted, &[true, false, false, true]).is_suspect());
        let cleared = [&[true][..], &[false; 8]].concat();
        assert_eq!(after(trusted, &cleared), trusted);
        let suspect = Standing::SUSPECT;
        assert!(after(suspect, &[false; 3]).is_suspect());
        assert_eq!(after(suspect, &[false; 4]), trusted);
        assert!(after(suspect, &[false, false, false, true, false, false, false]).is_suspect());
    }
}
