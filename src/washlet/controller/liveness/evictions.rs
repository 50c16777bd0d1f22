//! How many workloads may be taken off lost hosts now.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Judgement;

/// Most workloads in one [`WINDOW`]: the other hosts have to pull and compile what they get, and a mistake stays small.
const MOST: usize = 100;
/// Any stretch of time of this length.
const WINDOW: Duration = Duration::from_secs(10);

/// The workloads that were moved lately.
#[derive(Debug, Default)]
pub(in crate::washlet::controller) struct Evictions {
    /// When, and how many; oldest first.
    moved: VecDeque<(Instant, usize)>,
}

impl Evictions {
    /// How many may be moved now: none while evictions are suspended.
    pub fn allowance(&mut self, judgement: &Judgement, now: Instant) -> usize {
        while self
            .moved
            .front()
            .is_some_and(|(at, _)| *at + WINDOW <= now)
        {
            self.moved.pop_front();
        }
        if judgement.suspended.is_some() {
            return 0;
        }
        let moved: usize = self.moved.iter().map(|(_, count)| count).sum();
        MOST.saturating_sub(moved)
    }

    /// Takes note of workloads that are being moved.
    pub fn spend(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.moved.push_back((now, count));
        }
    }

    /// When more may be moved than now; none if nothing was moved lately.
    pub fn again(&self) -> Option<Instant> {
        self.moved.front().map(|(at, _)| *at + WINDOW)
    }
}
