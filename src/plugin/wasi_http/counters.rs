//! What requests came to; plain numbers that somebody else exports.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

use http::StatusCode;

/// Counts of one workload, over all its generations.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub requests: AtomicU64,
    pub trapped: AtomicU64,
    pub out_of_memory: AtomicU64,
    pub out_of_fuel: AtomicU64,
    pub out_of_time: AtomicU64,
    pub unanswered: AtomicU64,
    pub rejected: AtomicU64,
    pub too_large: AtomicU64,
    pub stopped: AtomicU64,
    pub cut: AtomicU64,
    pub fuel: AtomicU64,
    pub denied: AtomicU64,
    pub prohibited: AtomicU64,
    pub limited: AtomicU64,
    /// By the first digit of the status, less one.
    responses: [AtomicU64; 5],
}

/// Counts of one workload at one moment; the others only grow as long as the workload exists, but `in_flight`, `waiting`,
/// `instances` and `idle_instances` are what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSnapshot {
    /// Requests that found the workload.
    pub requests: u64,
    /// Of these, the ones that ended with a trap of the component.
    pub trapped: u64,
    /// That ended because the component was refused memory.
    pub out_of_memory: u64,
    /// That used up their fuel.
    pub out_of_fuel: u64,
    /// That took longer than they were given.
    pub out_of_time: u64,
    /// For which the component gave no answer, or an error instead of one.
    pub unanswered: u64,
    /// For which there was no free instance.
    pub rejected: u64,
    /// Whose body was larger than the server takes.
    pub too_large: u64,
    /// That were still running when the workload's time to stop was over.
    pub stopped: u64,
    /// Responses that ended before their end, for one of these reasons or because the component broke its own word.
    pub cut: u64,
    /// Responses that have begun, the component's and the host's in its place, by the first digit of their status: 1xx to 5xx.
    pub responses: [u64; 5],
    /// Fuel that requests have used; those that were cut because nobody waited for them are left out.
    pub fuel: u64,
    /// Calls of the component to hosts that it may not call.
    pub denied: u64,
    /// Calls to allowed hosts that lead only to blocked addresses.
    pub prohibited: u64,
    /// Calls for which there was no connection in time, because the workload had as many as it may.
    pub connection_limited: u64,
    /// Requests that have not ended.
    pub in_flight: u64,
    /// Of these, the ones that wait for an instance.
    pub waiting: u64,
    /// Instances of the component.
    pub instances: u64,
    /// Of these, the ones that are kept for further requests and have none.
    pub idle_instances: u64,
}

/// Requests that were answered before they had found a workload.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub large_head: AtomicU64,
    pub no_host: AtomicU64,
    pub no_route: AtomicU64,
    pub stopping: AtomicU64,
}

/// Requests that were answered before they had found a workload, so that they are nobody's; the counts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedSnapshot {
    /// HTTP/1.1 requests whose head was larger than [`HttpServer::MAX_HEAD`](super::HttpServer::MAX_HEAD).
    pub large_head: u64,
    /// Without exactly one valid Host.
    pub no_host: u64,
    /// To hosts and paths that no workload has.
    pub no_route: u64,
    /// To workloads that were stopping, when nobody had taken their place.
    pub stopping: u64,
}

impl Counters {
    /// Counts a response by its status.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        // What is beyond 5xx is no status that HTTP knows.
        if let Some(counter) = self.responses.get(class) {
            count(counter);
        }
    }

    /// The counts as they are, with nothing of what is there now.
    pub fn snapshot(&self) -> HttpSnapshot {
        HttpSnapshot {
            requests: get(&self.requests),
            trapped: get(&self.trapped),
            out_of_memory: get(&self.out_of_memory),
            out_of_fuel: get(&self.out_of_fuel),
            out_of_time: get(&self.out_of_time),
            unanswered: get(&self.unanswered),
            rejected: get(&self.rejected),
            too_large: get(&self.too_large),
            stopped: get(&self.stopped),
            cut: get(&self.cut),
            fuel: get(&self.fuel),
            responses: self.responses.each_ref().map(get),
            denied: get(&self.denied),
            prohibited: get(&self.prohibited),
            connection_limited: get(&self.limited),
            ..HttpSnapshot::default()
        }
    }
}

impl AddAssign for HttpSnapshot {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.trapped += other.trapped;
        self.out_of_memory += other.out_of_memory;
        self.out_of_fuel += other.out_of_fuel;
        self.out_of_time += other.out_of_time;
        self.unanswered += other.unanswered;
        self.rejected += other.rejected;
        self.too_large += other.too_large;
        self.stopped += other.stopped;
        self.cut += other.cut;
        self.fuel += other.fuel;
        for (sum, more) in self.responses.iter_mut().zip(other.responses) {
            *sum += more;
        }
        self.denied += other.denied;
        self.prohibited += other.prohibited;
        self.connection_limited += other.connection_limited;
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.instances += other.instances;
        self.idle_instances += other.idle_instances;
    }
}

impl Refused {
    /// The counts as they are.
    pub fn snapshot(&self) -> RefusedSnapshot {
        RefusedSnapshot {
            large_head: get(&self.large_head),
            no_host: get(&self.no_host),
            no_route: get(&self.no_route),
            stopping: get(&self.stopping),
        }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Adds one; the new count.
pub(super) fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
