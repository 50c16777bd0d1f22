//! What the controller counts, in Prometheus' terms. Labels are bounded: nothing here is labelled by object.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WriteLabels {
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Done,
    Outdated,
    Refused,
    Failed,
}

/// The controller's counters; cheap to clone.
#[derive(Clone)]
pub(super) struct Metrics {
    pub leading: Gauge,
    pub renewals_failed: Counter,
    pub watch_errors: Counter,
    pub events_dropped: Counter,
    pub writes: Family<WriteLabels, Counter>,
    pub workloads: Gauge,
    pub unschedulable: Gauge,
    pub hosts: Gauge,
    pub hosts_lost: Gauge,
    pub suspended: Gauge,
    pub evictions: Counter,
    pub scheduling: Histogram,
}

impl Metrics {
    pub fn new() -> Self {
        Self {
            leading: Gauge::default(),
            renewals_failed: Counter::default(),
            watch_errors: Counter::default(),
            events_dropped: Counter::default(),
            writes: Family::default(),
            workloads: Gauge::default(),
            unschedulable: Gauge::default(),
            hosts: Gauge::default(),
            hosts_lost: Gauge::default(),
            suspended: Gauge::default(),
            evictions: Counter::default(),
            scheduling: Histogram::new(exponential_buckets(0.0001, 4.0, 9)),
        }
    }

    /// Registers all of them under `washlet_controller_`.
    pub fn registry(&self) -> Arc<Registry> {
        let mut registry = Registry::with_prefix("washlet_controller");
        let m = self.clone();
        let mut gauge = |name: &str, help: &str, gauge: Gauge| registry.register(name, help, gauge);
        gauge("leading", "Whether this controller leads", m.leading);
        gauge("workloads", "Workloads in the cluster", m.workloads);
        gauge(
            "workloads_unschedulable",
            "Workloads that fit on no host",
            m.unschedulable,
        );
        gauge("hosts", "Hosts in the cluster", m.hosts);
        gauge(
            "hosts_lost",
            "Hosts whose agent gives no sign of life",
            m.hosts_lost,
        );
        gauge(
            "evictions_suspended",
            "Whether nothing is moved because most hosts seem lost",
            m.suspended,
        );
        let mut counter =
            |name: &str, help: &str, counter: Counter| registry.register(name, help, counter);
        counter(
            "lease_renewals_failed",
            "Renewals of the controller's Lease that failed",
            m.renewals_failed,
        );
        counter("watch_errors", "Errors of watches", m.watch_errors);
        counter(
            "events_dropped",
            "Events over their budget, or not written",
            m.events_dropped,
        );
        counter("evictions", "Workloads moved off lost hosts", m.evictions);
        registry.register("writes", "Writes, by outcome", m.writes);
        registry.register_with_unit(
            "scheduling",
            "Time of one scheduling pass",
            Unit::Seconds,
            m.scheduling,
        );
        Arc::new(registry)
    }
}
