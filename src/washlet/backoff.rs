//! How long a broken watch waits before it is opened again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::runtime::utils::Backoff;

/// The longest wait is short: an API server that is back is noticed within it.
const MIN: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(5);

/// Waits that double, less up to a quarter, so that agents do not come back all at once.
#[derive(Default)]
pub(super) struct Doubling {
    tries: u32,
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = MIN.saturating_mul(1 << self.tries.min(10)).min(MAX);
        self.tries = self.tries.saturating_add(1);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        Some(wait - wait / 4 * (nanos % 256) / 256)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.tries = 0;
    }
}
