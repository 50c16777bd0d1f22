//! What the agent counts, in Prometheus' terms. Labels are bounded: only what is counted of the [requests](http) of a workload
//! is labelled by it, and only while this node has it.

mod http;

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::super::lease::Meters;
use crate::plugin::wasi_http::HttpServer;

/// How a status write ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WriteLabels {
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Applied,
    Conflict,
    Gone,
    Failed,
}

/// The agent's counters; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    pub workloads: Gauge,
    pub workloads_ready: Gauge,
    pub status_writes: Family<WriteLabels, Counter>,
    pub events_dropped: Counter,
    pub reference_reads: Counter,
    pub watch_errors: Counter,
    pub lease: Meters,
}

impl Metrics {
    /// Registers all of them under `washlet_`.
    pub fn registry(&self, http: &Arc<HttpServer>) -> Arc<Registry> {
        let mut registry = Registry::with_prefix("washlet");
        registry.register_collector(Box::new(http::Http(http.clone())));
        let m = self.clone();
        registry.register("workloads", "Workloads assigned to this node", m.workloads);
        registry.register(
            "workloads_ready",
            "Workloads that answer",
            m.workloads_ready,
        );
        registry.register(
            "status_writes",
            "Status writes, by outcome",
            m.status_writes,
        );
        registry.register(
            "events_dropped",
            "Events over their budget, or not written",
            m.events_dropped,
        );
        registry.register(
            "reference_reads",
            "Reads of Secrets, ConfigMaps and ServiceAccounts",
            m.reference_reads,
        );
        registry.register(
            "watch_errors",
            "Errors of the watch on Workloads",
            m.watch_errors,
        );
        registry.register(
            "lease_renewals_failed",
            "Renewals of the node's Lease that failed",
            m.lease.renewals_failed,
        );
        registry.register(
            "lease_held",
            "Whether this agent holds the node's Lease",
            m.lease.held,
        );
        Arc::new(registry)
    }
}
