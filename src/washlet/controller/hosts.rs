//! What is known of a host, put together from its Host object, its Lease and its Node.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use tokio::time::Instant;

use super::{
    super::{
        api::{self, Condition, condition_type},
        convert::bytes,
    },
    liveness::{Judgement, Liveness, Renewal, State},
    schedule,
    world::{Id, World},
};

/// Where a Node says in which zone it is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Takes note of a host's Lease, or that it has none.
pub(super) fn observe(
    liveness: &mut Liveness,
    host: &str,
    lease: Option<&Lease>,
    now: Instant,
    wall: Timestamp,
) {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let seconds = spec
        .and_then(|s| s.lease_duration_seconds)
        .and_then(|s| u64::try_from(s).ok());
    let renewal = Renewal {
        holder: spec
            .and_then(|s| s.holder_identity.as_deref())
            .filter(|holder| !holder.is_empty()),
        renewed: spec.and_then(|s| s.renew_time.as_ref()).map(|time| time.0),
        duration: seconds.map(Duration::from_secs),
    };
    liveness.observe(host, renewal, now, wall);
}

/// Whether the host says that it is shutting down.
pub(super) fn is_draining(host: &api::Host) -> bool {
    let conditions = host.status.as_ref().map(|s| s.conditions.as_slice());
    Condition::find(conditions.unwrap_or_default(), condition_type::READY)
        .is_some_and(|c| c.reason == "Draining")
}

/// The addresses at which others reach the host; the API server refuses all others as endpoints.
pub(super) fn addresses(host: &api::Host) -> Vec<IpAddr> {
    let addresses = host.status.as_ref().map(|s| s.addresses.as_slice());
    addresses
        .unwrap_or_default()
        .iter()
        .filter_map(|address| address.parse().ok())
        .filter(is_reachable)
        .collect()
}

fn is_reachable(address: &IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// The zone of the host's Node.
pub(super) fn zone(node: Option<&Node>) -> Option<String> {
    node?.metadata.labels.as_ref()?.get(ZONE).cloned()
}

/// The host as the scheduler sees it.
pub(super) fn snapshot<'a>(
    host: &'a api::Host,
    node: Option<&'a Node>,
    judgement: &Judgement,
) -> schedule::Host<'a> {
    let none: &[String] = &[];
    let status = host.status.as_ref();
    let interfaces = status.map_or(none, |s| &s.interfaces);
    let memory = status
        .and_then(|s| s.allocatable.as_ref())
        .and_then(|a| a.memory.as_ref())
        .and_then(|quantity| bytes(&quantity.0).ok());
    schedule::Host {
        id: &host.spec.host_id,
        node_labels: node.and_then(|n| n.metadata.labels.as_ref()),
        own_labels: host.metadata.labels.as_ref(),
        environment: host.spec.environment.as_deref(),
        condition: condition(host, node, judgement),
        // What this version cannot read it cannot match either.
        interfaces: interfaces
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        memory,
        images: status.map_or(none, |s| &s.images),
    }
}

fn condition<'a>(
    host: &'a api::Host,
    node: Option<&Node>,
    judgement: &Judgement,
) -> schedule::Condition<'a> {
    match judgement.of(&host.spec.host_id) {
        State::Lost { since } => return schedule::Condition::Lost { since },
        State::Unproven => return schedule::Condition::Unproven,
        State::Alive => {}
    }
    if is_draining(host) {
        return schedule::Condition::NotReady("shutting down");
    }
    let cordoned = node
        .and_then(|n| n.spec.as_ref())
        .and_then(|s| s.unschedulable)
        == Some(true);
    if cordoned {
        return schedule::Condition::Cordoned;
    }
    let conditions = host.status.as_ref().map(|s| s.conditions.as_slice());
    match Condition::find(conditions.unwrap_or_default(), condition_type::READY) {
        Some(ready) if ready.is_true() => schedule::Condition::Ready,
        _ => schedule::Condition::NotReady("not ready"),
    }
}

/// Whether two states of a Host differ in anything that is decided upon; it is written every minute in any case.
pub(super) fn differs(before: &api::Host, after: &api::Host) -> bool {
    let felt = |host: &api::Host| {
        let status = host.status.clone().unwrap_or_default();
        let ready = Condition::find(&status.conditions, condition_type::READY)
            .map(|c| (c.status.clone(), c.reason.clone()));
        (
            host.metadata.labels.clone(),
            host.spec.environment.clone(),
            host.spec.http_port,
            ready,
            status.addresses,
            status.allocatable,
            status.interfaces,
        )
    };
    felt(before) != felt(after)
}

/// Whether two states of a Node differ in anything that is decided upon; its kubelet writes it often.
pub(super) fn node_differs(before: &Node, after: &Node) -> bool {
    let felt = |node: &Node| {
        (
            node.metadata.labels.clone(),
            node.spec.as_ref().and_then(|s| s.unschedulable),
        )
    };
    felt(before) != felt(after)
}

/// A host whose object is gone, though its agent may live: it keeps what it has.
fn without_object<'a>(id: &'a str, judgement: &Judgement) -> schedule::Host<'a> {
    schedule::Host {
        id,
        node_labels: None,
        own_labels: None,
        environment: None,
        condition: match judgement.of(id) {
            State::Lost { since } => schedule::Condition::Lost { since },
            State::Alive | State::Unproven => {
                schedule::Condition::NotReady("without a Host object")
            }
        },
        interfaces: [].into(),
        memory: None,
        images: &[],
    }
}

/// All hosts as the scheduler sees them.
pub(super) fn all<'a>(world: &'a World, judgement: &Judgement) -> Vec<schedule::Host<'a>> {
    let mut all: Vec<schedule::Host<'a>> = Vec::new();
    for id in world.all_hosts() {
        let node = world.nodes.get(&Id::new("", id)).map(|n| &**n);
        all.push(match world.host(id) {
            Some(host) => snapshot(host, node, judgement),
            None => without_object(id, judgement),
        });
    }
    all
}
