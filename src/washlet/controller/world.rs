//! What the controller knows of the cluster: the newest state of every object that it watches or has written, and who belongs
//! to whom. It holds no decision.

mod store;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use tokio::time::Instant;

use super::{super::api, watch::Object};
use store::Store;
pub(super) use store::{Id, Step};

/// No watch tells of an object for longer than this after its end.
const LATE: Duration = Duration::from_secs(600);

/// The cluster.
#[derive(Debug, Default)]
pub(super) struct World {
    pub workloads: Store<api::Workload>,
    pub sets: Store<api::WorkloadReplicaSet>,
    pub deployments: Store<api::WorkloadDeployment>,
    pub artifacts: Store<api::Artifact>,
    hosts: Store<api::Host>,
    hosts_by_id: BTreeMap<Arc<str>, Arc<api::Host>>,
    leases: Store<Lease>,
    system_namespace: String,
    pub nodes: Store<Node>,
    pub services: Store<Service>,
    pub slices: Store<EndpointSlice>,
    workloads_of: HashMap<Owner, BTreeSet<Id>>,
    sets_of: HashMap<Owner, BTreeSet<Id>>,
    /// Workloads by the Service that they name.
    workloads_behind: HashMap<Id, BTreeSet<Id>>,
    /// UIDs of objects that were deleted here, until the watch says so too: what it told before is no news any more.
    deleted: HashMap<String, Instant>,
    /// Workloads by the host that they are on.
    workloads_on: HashMap<Arc<str>, BTreeSet<Id>>,
}

/// Whose an object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    /// That of the object with this UID, which controls it.
    Uid(String),
    /// Nobody's, but its label names who may take it in.
    Orphan { namespace: String, label: String },
}

/// A change of any kind of object.
#[derive(Debug)]
pub(super) enum Changed {
    Workload(Step<api::Workload>),
    ReplicaSet(Step<api::WorkloadReplicaSet>),
    Deployment(Step<api::WorkloadDeployment>),
    Artifact(Step<api::Artifact>),
    Host(Step<api::Host>),
    Lease(Step<Lease>),
    Node(Step<Node>),
    Service(Step<Service>),
    EndpointSlice(Step<EndpointSlice>),
}

// === impl World ===

impl World {
    /// A world whose Hosts and Leases are in this namespace.
    pub fn new(system_namespace: &str) -> Self {
        Self {
            system_namespace: system_namespace.to_owned(),
            ..Self::default()
        }
    }

    /// Takes a state of an object. None if it is no news.
    pub fn seen(&mut self, object: Object) -> Option<Changed> {
        if object
            .uid()
            .is_some_and(|uid| self.deleted.contains_key(uid))
        {
            return None;
        }
        let changed = match object {
            Object::Workload(o) => Changed::Workload(self.workloads.put(o)?),
            Object::ReplicaSet(o) => Changed::ReplicaSet(self.sets.put(o)?),
            Object::Deployment(o) => Changed::Deployment(self.deployments.put(o)?),
            Object::Artifact(o) => Changed::Artifact(self.artifacts.put(o)?),
            Object::Host(o) => Changed::Host(self.hosts.put(o)?),
            Object::Lease(o) => Changed::Lease(self.leases.put(o)?),
            Object::Node(o) => Changed::Node(self.nodes.put(o)?),
            Object::Service(o) => Changed::Service(self.services.put(o)?),
            Object::EndpointSlice(o) => Changed::EndpointSlice(self.slices.put(o)?),
        };
        self.index(&changed);
        Some(changed)
    }

    /// Forgets an object. None if it was not known.
    pub fn gone(&mut self, object: &Object) -> Option<Changed> {
        if let Some(uid) = object.uid() {
            self.deleted.remove(uid);
        }
        let changed = match object {
            Object::Workload(o) => Changed::Workload(self.workloads.remove(o)?),
            Object::ReplicaSet(o) => Changed::ReplicaSet(self.sets.remove(o)?),
            Object::Deployment(o) => Changed::Deployment(self.deployments.remove(o)?),
            Object::Artifact(o) => Changed::Artifact(self.artifacts.remove(o)?),
            Object::Host(o) => Changed::Host(self.hosts.remove(o)?),
            Object::Lease(o) => Changed::Lease(self.leases.remove(o)?),
            Object::Node(o) => Changed::Node(self.nodes.remove(o)?),
            Object::Service(o) => Changed::Service(self.services.remove(o)?),
            Object::EndpointSlice(o) => Changed::EndpointSlice(self.slices.remove(o)?),
        };
        self.index(&changed);
        Some(changed)
    }

    /// Forgets an object that was deleted here, or that the API server does not know any more.
    pub fn deleted(&mut self, object: &Object, now: Instant) -> Option<Changed> {
        let changed = self.gone(object);
        if let Some(uid) = object.uid() {
            self.deleted.insert(uid.to_owned(), now);
        }
        changed
    }

    /// Forgets which objects were deleted here long ago: no watch is that late.
    pub fn forget_deleted(&mut self, now: Instant) {
        self.deleted.retain(|_, at| now.duration_since(*at) < LATE);
    }

    /// The workloads that an object of this UID controls.
    pub fn workloads_of(&self, uid: &str) -> impl Iterator<Item = &Arc<api::Workload>> {
        let ids = self.workloads_of.get(&Owner::Uid(uid.to_owned()));
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.workloads.get(id))
    }

    /// The workloads that nobody controls and that have the label of this replica set.
    pub fn orphans_of_set(&self, set: &Id) -> impl Iterator<Item = &Arc<api::Workload>> {
        let ids = self.workloads_of.get(&Owner::orphan_of(set));
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.workloads.get(id))
    }

    /// The replica sets that an object of this UID controls.
    pub fn sets_of(&self, uid: &str) -> impl Iterator<Item = &Arc<api::WorkloadReplicaSet>> {
        let ids = self.sets_of.get(&Owner::Uid(uid.to_owned()));
        ids.into_iter().flatten().filter_map(|id| self.sets.get(id))
    }

    /// The replica sets that nobody controls and that have the label of this deployment.
    pub fn orphans_of_deployment(
        &self,
        deployment: &Id,
    ) -> impl Iterator<Item = &Arc<api::WorkloadReplicaSet>> {
        let ids = self.sets_of.get(&Owner::orphan_of(deployment));
        ids.into_iter().flatten().filter_map(|id| self.sets.get(id))
    }

    /// The workloads that name a Service.
    pub fn workloads_behind(&self, service: &Id) -> impl Iterator<Item = &Arc<api::Workload>> {
        let ids = self.workloads_behind.get(service);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.workloads.get(id))
    }

    /// The host of this id.
    pub fn host(&self, id: &str) -> Option<&Arc<api::Host>> {
        self.hosts_by_id.get(id)
    }

    /// All hosts, by id.
    pub fn hosts(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<api::Host>)> {
        self.hosts_by_id.iter()
    }

    /// The hosts that have an object, and those that have none but workloads and a Lease: somebody deleted the object of a
    /// living agent, which makes it anew.
    pub fn all_hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        let without = |host: &&Arc<str>| self.host(host).is_none() && self.lease(host).is_some();
        let occupied = self.workloads_on.keys().filter(without);
        self.hosts_by_id.keys().chain(occupied)
    }

    /// Whether it is one of [`Self::all_hosts`].
    pub fn is_host(&self, id: &str) -> bool {
        self.host(id).is_some() || self.lease(id).is_some() && self.workloads_on.contains_key(id)
    }

    /// The Lease of a host: it has the host's name.
    pub fn lease(&self, host: &str) -> Option<&Arc<Lease>> {
        self.leases.get(&Id::new(&self.system_namespace, host))
    }

    /// The workloads on a host.
    pub fn workloads_on(&self, host: &str) -> impl Iterator<Item = &Id> {
        self.workloads_on.get(host).into_iter().flatten()
    }

    /// The host of a workload: the one that it is pinned to, or else the one that it was given.
    pub fn host_of(workload: &api::Workload) -> Option<&str> {
        let pinned = workload.spec.host_id.as_deref().filter(|id| !id.is_empty());
        let given = || workload.status.as_ref().and_then(|s| s.host_id.as_deref());
        pinned.or_else(given).filter(|id| !id.is_empty())
    }

    /// The Service that a workload names.
    pub fn service_of(workload: &api::Workload) -> Option<Id> {
        let service = workload.spec.kubernetes.as_ref()?.service.as_ref()?;
        let namespace = workload.metadata.namespace.as_deref().unwrap_or_default();
        (!service.name.is_empty()).then(|| Id::new(namespace, &service.name))
    }

    fn index(&mut self, changed: &Changed) {
        match changed {
            Changed::Workload(step) => {
                let id = &step.id;
                reindex(&mut self.workloads_of, id, step, |w| {
                    Owner::of(w, api::label::REPLICA_SET)
                });
                reindex(&mut self.workloads_behind, id, step, Self::service_of);
                reindex(&mut self.workloads_on, id, step, |w| {
                    Self::host_of(w).map(Arc::from)
                });
            }
            Changed::ReplicaSet(step) => {
                reindex(&mut self.sets_of, &step.id, step, |s| {
                    Owner::of(s, api::label::DEPLOYMENT)
                });
            }
            Changed::Host(step) => {
                let id = &step.id.name;
                // An agent can write the object that has its node's name, and in it whatever it likes.
                match step.after.as_ref().filter(|host| host.spec.host_id == **id) {
                    Some(host) => self.hosts_by_id.insert(id.clone(), host.clone()),
                    None => self.hosts_by_id.remove(id),
                };
            }
            _ => {}
        }
    }
}

impl Owner {
    /// None for what nobody controls nor may take in.
    fn of<K: Resource>(object: &K, label: &str) -> Option<Self> {
        let meta = object.meta();
        if let Some(uid) = controller_of(meta) {
            return Some(Self::Uid(uid.to_owned()));
        }
        Some(Self::Orphan {
            namespace: meta.namespace.clone().unwrap_or_default(),
            label: meta.labels.as_ref()?.get(label)?.clone(),
        })
    }

    /// What nobody controls, and this one may take in.
    fn orphan_of(owner: &Id) -> Self {
        Self::Orphan {
            namespace: owner.namespace.to_string(),
            label: api::label_value(&owner.name),
        }
    }
}

/// The UID of the owner that controls an object.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&str> {
    let mut owners = meta.owner_references.iter().flatten();
    owners
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

fn reindex<K, V: std::hash::Hash + Eq>(
    index: &mut HashMap<V, BTreeSet<Id>>,
    id: &Id,
    step: &Step<K>,
    of: impl Fn(&K) -> Option<V>,
) {
    let before = step.before.as_deref().and_then(&of);
    let after = step.after.as_deref().and_then(&of);
    if before == after {
        return;
    }
    if let Some(before) = before
        && let Some(ids) = index.get_mut(&before)
    {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(&before);
        }
    }
    if let Some(after) = after {
        index.entry(after).or_default().insert(id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, uid: &str, version: &str, host: &str) -> Object {
        let mut workload = api::Workload::default();
        workload.metadata.namespace = Some("ns".to_owned());
        workload.metadata.name = Some(name.to_owned());
        workload.metadata.uid = Some(uid.to_owned());
        workload.metadata.resource_version = Some(version.to_owned());
        workload.spec.host_id = Some(host.to_owned());
        Object::Workload(Arc::new(workload))
    }

    fn on(world: &World, host: &str) -> Vec<String> {
        world.workloads_on(host).map(ToString::to_string).collect()
    }

    #[test]
    fn indices_follow_the_newest_state() {
        let mut world = World::default();
        assert!(world.seen(workload("a", "1", "5", "x")).is_some());
        assert!(
            world.seen(workload("a", "1", "5", "x")).is_none(),
            "no news"
        );
        assert!(world.seen(workload("a", "1", "4", "y")).is_none(), "older");
        assert_eq!(on(&world, "x"), ["ns/a"]);
        assert!(world.seen(workload("a", "1", "10", "y")).is_some());
        assert_eq!((on(&world, "x").len(), on(&world, "y").len()), (0, 1));
    }

    #[test]
    fn the_end_of_a_former_object_is_not_the_end_of_the_one_that_has_its_name() {
        let mut world = World::default();
        world.seen(workload("a", "1", "5", "x"));
        world.seen(workload("a", "2", "7", "x"));
        assert!(world.gone(&workload("a", "1", "5", "x")).is_none());
        assert!(world.gone(&workload("a", "2", "7", "x")).is_some());
        assert!(on(&world, "x").is_empty());
    }

    #[test]
    fn what_was_deleted_here_is_not_brought_back_by_what_the_watch_told_before() {
        let (mut world, now) = (World::default(), Instant::now());
        world.seen(workload("a", "1", "5", "x"));
        assert!(world.deleted(&workload("a", "1", "5", "x"), now).is_some());
        assert!(world.seen(workload("a", "1", "6", "x")).is_none(), "late");
        assert!(world.gone(&workload("a", "1", "6", "x")).is_none());
        assert!(world.seen(workload("a", "2", "7", "x")).is_some(), "anew");
    }

    #[test]
    fn orphans_are_found_by_the_label_of_who_may_take_them_in() {
        let mut world = World::default();
        let orphan = |labels: serde_json::Value| {
            let object = serde_json::json!({
                "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "spec": {},
                "metadata": { "name": "a", "namespace": "ns", "uid": "1", "labels": labels },
            });
            Object::Workload(Arc::new(serde_json::from_value(object).unwrap()))
        };
        let set = Id::new("ns", "web");
        world.seen(orphan(
            serde_json::json!({ api::label::REPLICA_SET: "web" }),
        ));
        assert_eq!(world.orphans_of_set(&set).count(), 1);
        assert_eq!(world.orphans_of_set(&Id::new("other", "web")).count(), 0);
    }
}
