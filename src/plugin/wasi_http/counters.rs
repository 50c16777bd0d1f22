//! What one workload's requests came to; plain numbers that somebody else exports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one workload, over all its generations.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub requests: AtomicU64,
    pub trapped: AtomicU64,
    pub out_of_memory: AtomicU64,
    pub out_of_time: AtomicU64,
    pub unanswered: AtomicU64,
    pub rejected: AtomicU64,
    pub too_large: AtomicU64,
    pub denied: AtomicU64,
    pub prohibited: AtomicU64,
    pub limited: AtomicU64,
}

/// Counts of one workload at one moment; they only grow as long as the workload exists, but for `in_flight`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSnapshot {
    /// Requests that found the workload.
    pub requests: u64,
    /// Of these, the ones that ended with a trap of the component.
    pub trapped: u64,
    /// That ended because the component was refused memory.
    pub out_of_memory: u64,
    /// That took longer than they were given.
    pub out_of_time: u64,
    /// For which the component gave no answer, or an error instead of one.
    pub unanswered: u64,
    /// For which there was no free instance.
    pub rejected: u64,
    /// Whose body was larger than the server takes.
    pub too_large: u64,
    /// Calls of the component to hosts that it may not call.
    pub denied: u64,
    /// Calls to allowed hosts that lead only to blocked addresses.
    pub prohibited: u64,
    /// Calls for which there was no connection in time, because the workload had as many as it may.
    pub connection_limited: u64,
    /// Requests that have not ended.
    pub in_flight: u64,
}

impl Counters {
    /// The numbers as they are.
    pub fn snapshot(&self, in_flight: u64) -> HttpSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpSnapshot {
            requests: get(&self.requests),
            trapped: get(&self.trapped),
            out_of_memory: get(&self.out_of_memory),
            out_of_time: get(&self.out_of_time),
            unanswered: get(&self.unanswered),
            rejected: get(&self.rejected),
            too_large: get(&self.too_large),
            denied: get(&self.denied),
            prohibited: get(&self.prohibited),
            connection_limited: get(&self.limited),
            in_flight,
        }
    }
}

/// Adds one; the new count.
pub(super) fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
