//! What the controller and people ask of a running workload beside its spec: a service port, routes withheld, a restart.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use super::command;
use crate::{
    spec::Finished,
    washlet::api::{self, Condition, condition_type::ROUTED},
};

/// The annotation that `kubectl rollout restart` sets: the workload starts anew whenever it changes.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Most of it that counts, in bytes.
const MAX_RESTARTED_AT: usize = 1024;

/// All that is asked beside the spec; it is not counted by the object's generation.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    service_port: Option<u16>,
    routes_withheld: Option<Arc<str>>,
    stamp: u64,
    /// Nobody asks for it, but what has ended for good must not be run again, whatever becomes of the host's memory.
    finished: Vec<Finished>,
}

impl Asked {
    /// What this state of the object asks.
    #[must_use]
    pub fn of(workload: &api::Workload) -> Self {
        Self {
            service_port: service_port(workload),
            routes_withheld: routes_withheld(workload),
            stamp: stamp(workload),
            finished: command::finished(workload),
        }
    }
}

/// The port that the controller chose, if the workload wants to be behind a Service. No other port is opened, whatever the
/// status says.
pub(super) fn service_port(workload: &api::Workload) -> Option<u16> {
    let service = workload.spec.kubernetes.as_ref()?.service.as_ref()?;
    let port = workload.status.as_ref()?.service_port?;
    u16::try_from(port)
        .ok()
        .filter(|port| api::SERVICE_PORTS.contains(port) && !service.name.is_empty())
}

/// Whether the workload wants to be behind a Service.
pub(super) fn is_behind_service(workload: &api::Workload) -> bool {
    let kubernetes = workload.spec.kubernetes.as_ref();
    let service = kubernetes.and_then(|k| k.service.as_ref());
    service.is_some_and(|service| !service.name.is_empty())
}

/// Why the workload may not have its routes, if the controller says so.
pub(super) fn routes_withheld(workload: &api::Workload) -> Option<Arc<str>> {
    let conditions = &workload.status.as_ref()?.conditions;
    let routed = Condition::find(conditions, ROUTED).filter(|c| c.status == "False")?;
    Some(routed.message.as_str().into())
}

/// Changes whenever a restart is asked for.
pub(in crate::washlet) fn stamp(workload: &api::Workload) -> u64 {
    let Some(restarted) = restarted_at(workload) else {
        return 0;
    };
    let mut hasher = DefaultHasher::new();
    restarted.hash(&mut hasher);
    hasher.finish()
}

/// When a restart was asked for, as it is written; what is longer than a status has room for is cut.
pub(in crate::washlet) fn restarted_at(workload: &api::Workload) -> Option<&str> {
    let annotations = workload.metadata.annotations.as_ref()?;
    let text = annotations.get(RESTARTED_AT)?;
    Some(&text[..text.floor_char_boundary(MAX_RESTARTED_AT)])
}
