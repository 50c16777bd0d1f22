//! Which of several Workloads goes first when there are too many. Pure.

use std::{cmp::Reverse, collections::HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::owned;
use crate::washlet::api::{Condition, Workload, condition_type};

/// All of them, in the order in which they go, as Kubernetes ranks pods: those without a host, those that are not Ready, those
/// that share a host with most others, those that are Ready for the shortest time, the youngest; and then by name, so that the
/// same state always gives the same order.
pub(super) fn first_to_go<'a>(workloads: &[&'a Workload]) -> Vec<&'a Workload> {
    let mut on_host: HashMap<&str, usize> = HashMap::new();
    for workload in workloads {
        *on_host
            .entry(host(workload).unwrap_or_default())
            .or_default() += 1;
    }
    let mut order = workloads.to_vec();
    order.sort_by_cached_key(|workload| {
        let (host, ready) = (host(workload), owned::is_ready(workload));
        let together = host
            .and_then(|host| on_host.get(host))
            .copied()
            .unwrap_or_default();
        (
            host.is_some(),
            ready,
            Reverse(together),
            Reverse(ready_since(workload).filter(|_| ready)),
            Reverse(
                workload
                    .metadata
                    .creation_timestamp
                    .clone()
                    .map(|time| time.0),
            ),
            workload.metadata.name.clone(),
        )
    });
    order
}

fn host(workload: &Workload) -> Option<&str> {
    let pinned = workload.spec.host_id.as_deref().filter(|id| !id.is_empty());
    let given = || workload.status.as_ref().and_then(|s| s.host_id.as_deref());
    pinned.or_else(given).filter(|id| !id.is_empty())
}

fn ready_since(workload: &Workload) -> Option<jiff::Timestamp> {
    let conditions = &workload.status.as_ref()?.conditions;
    let Time(time) = Condition::find(conditions, condition_type::READY)?
        .last_transition_time
        .clone()?;
    Some(time)
}
