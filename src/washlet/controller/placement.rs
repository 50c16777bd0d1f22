//! From what is known of the cluster to the scheduler's snapshot of it. Pure.

use std::collections::HashMap;

use super::{
    super::{
        api,
        convert::{bytes, version},
    },
    hosts,
    liveness::Judgement,
    part::{Absent, Placement},
    schedule::{Group, Labels, Need, Snapshot, Workload},
    world::{Id, World, controller_of},
};
use kube::ResourceExt as _;

/// Labels that name an application, the more specific one first.
const APP: [&str; 2] = ["app.kubernetes.io/name", "app"];

/// Where workloads are to go, as far as the API server does not say so yet.
pub(super) type Placements = HashMap<Id, Placement>;

/// The cluster as the scheduler sees it. `ids` are those of the snapshot's workloads.
pub(super) struct Seen<'a> {
    pub snapshot: Snapshot<'a>,
    pub ids: Vec<&'a Id>,
}

/// The host of a workload: as was decided last, or else as its status says.
pub(super) fn host_of<'a>(
    id: &Id,
    workload: &'a api::Workload,
    placements: &'a Placements,
) -> Option<&'a str> {
    match placements.get(id) {
        Some(Placement::On { host, .. }) if !is_pinned(workload) => Some(host),
        _ => World::host_of(workload),
    }
}

/// Whether the specification itself names the host.
pub(super) fn is_pinned(workload: &api::Workload) -> bool {
    workload
        .spec
        .host_id
        .as_deref()
        .is_some_and(|id| !id.is_empty())
}

/// Makes the snapshot.
///
/// A workload of a lost host takes part only once its status says that the host is lost: when it comes to another one, nothing
/// of what the former agent said may be left. Until then it counts as pinned.
pub(super) fn snapshot<'a>(
    world: &'a World,
    placements: &'a Placements,
    judgement: &Judgement,
    no_labels: &'a Labels,
) -> Seen<'a> {
    let hosts = hosts::all(world, judgement);
    let (mut ids, mut workloads) = (Vec::with_capacity(world.workloads.len()), Vec::new());
    workloads.reserve(world.workloads.len());
    for (id, workload) in world.workloads.iter() {
        let assigned = host_of(id, workload, placements);
        let absent = assigned.and_then(|host| absence(world, judgement, host));
        let untold = absent.is_some_and(|absent| !absent.is_told(workload));
        let deleting = workload.metadata.deletion_timestamp.is_some();
        ids.push(id);
        workloads.push(Workload {
            uid: workload.metadata.uid.as_deref().unwrap_or_default(),
            created: workload
                .creation_timestamp()
                .map_or(0, |time| time.0.as_second()),
            assigned,
            pinned: is_pinned(workload) || deleting || untold,
            selector: if workload.spec.host_selector.is_empty() {
                no_labels
            } else {
                &workload.spec.host_selector
            },
            environment: workload
                .spec
                .environment
                .as_deref()
                .filter(|e| !e.is_empty()),
            needs: workload.spec.host_interfaces.iter().map(need).collect(),
            memory: memory(&workload.spec),
            group: group(workload),
            digests: digests(workload),
        });
    }
    Seen {
        snapshot: Snapshot { hosts, workloads },
        ids,
    }
}

/// Why nobody reports about the workloads of a host; none if its agent is alive.
pub(super) fn absence(world: &World, judgement: &Judgement, host: &str) -> Option<Absent> {
    let known = world.host(host).is_some() || world.lease(host).is_some();
    let lost = !known || matches!(judgement.of(host), super::liveness::State::Lost { .. });
    lost.then(|| Absent::HostLost {
        host: host.to_owned(),
    })
}

fn need(entry: &api::HostInterface) -> Need<'_> {
    Need {
        namespace: &entry.namespace,
        package: &entry.package,
        interfaces: &entry.interfaces,
        // One that is no version is told by the host.
        version: entry.version.as_deref().and_then(version),
    }
}

/// The limit of the workload as a whole, or the sum of those of its components. What is wrong with one is told by the host.
fn memory(spec: &api::WorkloadSpec) -> u64 {
    let limit = |resources: Option<&api::Resources>| {
        let limits = resources.and_then(|r| r.limits.as_ref());
        let quantity = limits.and_then(|l| l.memory.as_ref())?;
        bytes(&quantity.0).ok()
    };
    let components = || {
        spec.components
            .iter()
            .filter_map(|c| limit(c.resources.as_ref()))
    };
    limit(spec.resources.as_ref()).unwrap_or_else(|| components().fold(0, u64::saturating_add))
}

fn group(workload: &api::Workload) -> Option<Group<'_>> {
    let meta = &workload.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let labels = meta.labels.as_ref();
    let label = |name: &str| labels.and_then(|l| l.get(name)).map(String::as_str);
    if let Some(app) = label(api::label::DEPLOYMENT) {
        return Some(Group::App { namespace, app });
    }
    if let Some(owner) = controller_of(meta) {
        return Some(Group::Owner(owner));
    }
    APP.iter()
        .find_map(|name| label(name))
        .map(|app| Group::App { namespace, app })
}

/// What its images are, as far as they name it or a former run has found out.
fn digests(workload: &api::Workload) -> Vec<&str> {
    let found = workload
        .status
        .iter()
        .flat_map(|s| &s.components)
        .filter_map(|c| c.digest.as_deref());
    let named = workload
        .spec
        .components
        .iter()
        .filter_map(|c| c.image.split_once('@').map(|(_, digest)| digest));
    found.chain(named).collect()
}
