//! A component that is called over HTTP: what is the same for all requests of one generation of a workload.

use std::{fmt, sync::Arc, time::Duration};

use wasmtime_wasi_http::{p2::bindings::ProxyPre, p3::bindings::ServicePre};

use super::{
    counters::{Counters, HttpSnapshot},
    flight::Flight,
    instances::Instances,
    shared::Shared,
};
use crate::{
    engine::Keeper,
    fault::{Fault, Reason, Stage},
    plugin::{Linked, StoreState, lane::Lane},
};

/// One component of one generation, ready to be called.
pub(super) struct Handler {
    pub instances: Arc<Instances>,
    /// Instances that serve several requests at the same time, if the workload asks for such.
    pub shared: Option<Shared>,
    pub timeout: Duration,
    /// Where its guests run.
    pub lane: Arc<Lane>,
    pub flight: Flight,
    pub counters: Arc<Counters>,
    pub label: Label,
}

/// What is called.
pub(super) enum Export {
    /// `wasi:http/incoming-handler@0.2`.
    P2(ProxyPre<StoreState>),
    /// `wasi:http/handler@0.3`.
    P3(ServicePre<StoreState>),
}

/// Whose it is, for logs.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
    pub component: Arc<str>,
}

impl Handler {
    /// Gives up the instances that have no request, and keeps none from now on.
    pub fn keep_none(&self) {
        if let Some(shared) = &self.shared {
            shared.close();
        }
        self.instances.close();
    }

    /// What is there of it now; nothing that was counted.
    pub fn load(&self) -> HttpSnapshot {
        HttpSnapshot {
            in_flight: self.flight.count().into(),
            ..self.instances.load()
        }
    }
}

impl Keeper for Handler {
    fn give_up_one(&self) -> bool {
        let shared = self.shared.as_ref();
        self.instances.give_up_one() || shared.is_some_and(Shared::give_up_one)
    }
}

impl Export {
    /// Finds the handler in a component's exports.
    ///
    /// # Errors
    /// A fault, if the export has another type than its name says.
    pub fn of(linked: &Linked, concurrent: bool) -> Result<Self, Fault> {
        let export = if concurrent {
            ServicePre::new(linked.pre.clone()).map(Self::P3)
        } else {
            ProxyPre::new(linked.pre.clone()).map(Self::P2)
        };
        export.map_err(|error| {
            let message = format!(
                "component \"{}\" exports another wasi:http handler than its name says: {error:#}",
                linked.facts.name
            );
            Fault::new(Stage::Start, Reason::BindFailed, message)
                .of_component(linked.facts.name.clone())
        })
    }
}

impl Label {
    /// Longest detail of a failure in a log, in bytes: a trap brings its backtrace.
    const MAX_DETAIL: usize = 2 << 10;

    /// Logs a request that failed: the first time, and then ever more rarely, since a client decides how often it happens.
    pub fn log_failure(&self, times: u64, reason: &str, detail: &dyn fmt::Display) {
        let Self {
            namespace,
            workload,
            component,
        } = self;
        if times.is_power_of_two() {
            let mut detail = detail.to_string();
            detail.truncate(detail.floor_char_boundary(Self::MAX_DETAIL));
            tracing::warn!(%namespace, %workload, %component, reason, times, detail, "request failed");
        } else {
            tracing::debug!(%namespace, %workload, %component, reason, times, "request failed");
        }
    }
}
