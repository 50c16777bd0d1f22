//! What the agent counts, in Prometheus' terms. Labels are bounded: nothing here is labelled by workload.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
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
        registry.register_collector(Box::new(Egress(http.clone())));
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

/// What the HTTP server counts of calls out, read when it is asked for.
struct Egress(Arc<HttpServer>);

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Egress")
    }
}

impl Collector for Egress {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.egress();
        let counters = [
            (
                "egress_denied",
                "Calls out that no rule of allowedHosts allowed",
                counts.denied,
            ),
            (
                "egress_prohibited",
                "Calls out to names that led only to blocked addresses",
                counts.prohibited,
            ),
            (
                "egress_limited",
                "Calls out that found all connections of their workload in use",
                counts.limited,
            ),
            (
                "egress_connections",
                "Connections opened for calls out",
                counts.connections,
            ),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let open = ConstGauge::new(counts.open);
        let help = "Connections open for calls out";
        let metric =
            encoder.encode_descriptor("egress_connections_open", help, None, open.metric_type())?;
        open.encode(metric)
    }
}
