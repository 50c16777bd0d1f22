//! An API server in memory, as far as the decisions about replicas use one. For tests.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    deployment,
    owned::Decision,
    replica_set,
    write::{Action, Kind, Write},
};
use crate::washlet::api::{Artifact, Workload, WorkloadDeployment, WorkloadReplicaSet};

/// Where everything is.
pub(super) const NAMESPACE: &str = "ns";

pub(super) struct Model {
    objects: BTreeMap<(Kind, String), Value>,
    counter: u64,
    pub now: Timestamp,
    /// Workloads that are deleted stay until [`Model::end`].
    pub linger: bool,
    /// What the API server says against creating anything.
    pub refuses: Option<&'static str>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            counter: 0,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            linger: false,
            refuses: None,
        }
    }

    // === As a user ===

    /// Creates an object; `body` is all but `metadata.namespace`.
    pub fn create(&mut self, kind: Kind, mut body: Value) {
        self.counter += 1;
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        let meta = &mut body["metadata"];
        meta["namespace"] = json!(NAMESPACE);
        meta["uid"] = json!(format!("uid-{}", self.counter));
        meta["resourceVersion"] = json!(self.counter.to_string());
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!(self.now);
        assert!(self.objects.insert((kind, name), body).is_none());
    }

    /// Merges fields into an object.
    pub fn edit(&mut self, kind: Kind, name: &str, patch: Value) {
        self.counter += 1;
        let counter = self.counter.to_string();
        let object = self.objects.get_mut(&(kind, name.to_owned())).unwrap();
        let before = object["spec"].clone();
        merge(object, patch);
        object["metadata"]["resourceVersion"] = json!(counter);
        if object["spec"] != before {
            object["metadata"]["generation"] =
                json!(object["metadata"]["generation"].as_u64().unwrap() + 1);
        }
    }

    pub fn remove(&mut self, kind: Kind, name: &str) {
        self.objects.remove(&(kind, name.to_owned())).unwrap();
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    // === As an agent ===

    pub fn say(&mut self, workload: &str, ready: bool, reason: &str, message: &str) {
        let status = if ready { "True" } else { "False" };
        let now = self.now;
        let old = self.value(Kind::Workload, workload)["status"]["conditions"][0].clone();
        let time = if old["status"] == status {
            old["lastTransitionTime"].clone()
        } else {
            json!(now)
        };
        let conditions = json!([{
            "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time,
        }]);
        self.edit(
            Kind::Workload,
            workload,
            json!({ "status": { "hostId": "node", "conditions": conditions } }),
        );
    }

    pub fn ready(&mut self, workload: &str) {
        self.say(workload, true, "Serving", "The workload answers.");
    }

    /// How many were not Ready before.
    pub fn all_ready(&mut self) -> usize {
        let is = |model: &Self, name: &String| {
            model.value(Kind::Workload, name)["status"]["conditions"][0]["status"] == "True"
        };
        let mut names = self.names(Kind::Workload);
        names.retain(|name| !is(self, name));
        names.iter().for_each(|name| self.ready(name));
        names.len()
    }

    /// Workloads that are being deleted are gone now.
    pub fn end(&mut self) {
        self.objects
            .retain(|_, object| object["metadata"]["deletionTimestamp"].is_null());
    }

    // === As the API server ===

    /// Carries out a write; none if the object is not as the decision took it to be.
    pub fn apply(&mut self, write: &Write) -> Option<()> {
        let (kind, name) = (write.key.kind, write.key.name.clone());
        assert_eq!(write.key.namespace, NAMESPACE);
        let known = self.objects.get(&(kind, name.clone()));
        match &write.action {
            Action::Create(body) => {
                if known.is_some() || self.refuses.is_some() {
                    return None;
                }
                assert_eq!(body["metadata"]["name"], json!(name));
                self.create(kind, body.clone());
            }
            Action::Delete { uid } => {
                known.filter(|o| o["metadata"]["uid"] == json!(uid))?;
                if self.linger && kind == Kind::Workload {
                    let now = self.now;
                    self.edit(
                        kind,
                        &name,
                        json!({ "metadata": { "deletionTimestamp": now } }),
                    );
                } else {
                    self.objects.remove(&(kind, name));
                    self.collect_garbage();
                }
            }
            Action::Merge(patch) => {
                let same =
                    |o: &&Value, field: &str| o["metadata"][field] == patch["metadata"][field];
                known.filter(|o| same(o, "uid") && same(o, "resourceVersion"))?;
                self.edit(kind, &name, patch.clone());
            }
            Action::Status { body, .. } => {
                let version = &body["metadata"]["resourceVersion"];
                known.filter(|o| &o["metadata"]["resourceVersion"] == version)?;
                self.edit(kind, &name, json!({ "status": null }));
                self.edit(kind, &name, json!({ "status": body["status"] }));
            }
            other => panic!("unexpected {other:?}"),
        }
        Some(())
    }

    /// What is owned by something that is gone goes as well.
    fn collect_garbage(&mut self) {
        let uids: Vec<Value> = self
            .objects
            .values()
            .map(|o| o["metadata"]["uid"].clone())
            .collect();
        self.objects.retain(|_, object| {
            let owners = object["metadata"]["ownerReferences"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            owners.is_empty() || owners.iter().any(|owner| uids.contains(&owner["uid"]))
        });
    }

    // === Reading ===

    pub fn value(&self, kind: Kind, name: &str) -> &Value {
        &self.objects[&(kind, name.to_owned())]
    }

    pub fn get<K: DeserializeOwned>(&self, kind: Kind, name: &str) -> K {
        serde_json::from_value(self.value(kind, name).clone()).unwrap()
    }

    pub fn all<K: DeserializeOwned>(&self, kind: Kind) -> Vec<K> {
        let objects = self.objects.iter().filter(|((k, _), _)| *k == kind);
        objects
            .map(|(_, object)| serde_json::from_value(object.clone()).unwrap())
            .collect()
    }

    pub fn names(&self, kind: Kind) -> Vec<String> {
        let all = self.objects.keys().filter(|(k, _)| *k == kind);
        all.map(|(_, name)| name.clone()).collect()
    }

    pub fn deployment(&self) -> WorkloadDeployment {
        self.all(Kind::Deployment).remove(0)
    }

    /// The sets, the oldest revision first.
    pub fn sets(&self) -> Vec<WorkloadReplicaSet> {
        let mut sets: Vec<WorkloadReplicaSet> = self.all(Kind::ReplicaSet);
        sets.sort_by_key(|set| {
            set.metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get("washlet.dev/revision")?.parse::<u64>().ok())
        });
        sets
    }

    pub fn workloads_of(&self, set: &WorkloadReplicaSet) -> Vec<Workload> {
        let mut all: Vec<Workload> = self.all(Kind::Workload);
        let uid = set.metadata.uid.as_ref().unwrap();
        all.retain(|w| {
            w.metadata
                .owner_references
                .iter()
                .flatten()
                .any(|o| o.uid == *uid)
        });
        all
    }

    /// Status and reason of a condition, and its message.
    pub fn condition(
        &self,
        kind: Kind,
        name: &str,
        type_: &str,
    ) -> Option<(String, String, String)> {
        let conditions = self.value(kind, name)["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|c| c["type"] == type_)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    // === As the controller ===

    pub fn decide_set(&self, name: &str) -> Decision {
        let workloads: Vec<Workload> = self.all(Kind::Workload);
        replica_set::decide(&replica_set::Input {
            set: &self.get(Kind::ReplicaSet, name),
            workloads: workloads.iter().collect(),
            taken: &|name| {
                self.objects
                    .contains_key(&(Kind::Workload, name.to_owned()))
            },
            refused: self.refuses,
            now: self.now,
        })
    }

    pub fn decide_deployment(&self, name: &str) -> Decision {
        let (sets, workloads): (Vec<WorkloadReplicaSet>, Vec<Workload>) =
            (self.all(Kind::ReplicaSet), self.all(Kind::Workload));
        let artifacts: Vec<Artifact> = self.all(Kind::Artifact);
        deployment::decide(&deployment::Input {
            deployment: &self.get(Kind::Deployment, name),
            sets: sets.iter().collect(),
            workloads: workloads.iter().collect(),
            artifacts: &|name| {
                artifacts
                    .iter()
                    .find(|a| a.metadata.name.as_deref() == Some(name))
            },
            taken: &|name| {
                self.objects
                    .contains_key(&(Kind::ReplicaSet, name.to_owned()))
            },
            refused: self.refuses,
            now: self.now,
        })
    }

    /// Decides about one object and carries it out; how many writes that made.
    pub fn act(&mut self, kind: Kind, name: &str) -> usize {
        let decision = match kind {
            Kind::ReplicaSet => self.decide_set(name),
            Kind::Deployment => self.decide_deployment(name),
            other => panic!("nothing is decided about {other:?}"),
        };
        // Each object once, or the writes would be in each other's way.
        let mut keys: Vec<_> = decision.writes.iter().map(|write| &write.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), decision.writes.len(), "{:?}", decision.writes);
        decision
            .writes
            .iter()
            .filter(|write| self.apply(write).is_some())
            .count()
    }

    /// Until nothing is left to write; how much was.
    pub fn settle(&mut self) -> usize {
        let mut all = 0;
        for _ in 0..200 {
            let mut writes = 0;
            for kind in [Kind::Deployment, Kind::ReplicaSet] {
                for name in self.names(kind) {
                    // A decision before may have removed it.
                    if self.objects.contains_key(&(kind, name.clone())) {
                        writes += self.act(kind, &name);
                    }
                }
            }
            if writes == 0 {
                return all;
            }
            all += writes;
        }
        panic!("never settles: {:#?}", self.objects);
    }

    /// Settles again and again, while every Workload becomes Ready.
    pub fn roll(&mut self) {
        for _ in 0..200 {
            if self.settle() + self.all_ready() == 0 {
                return;
            }
        }
        panic!("never ends: {:#?}", self.objects);
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&name);
        } else {
            merge(&mut target[&name], value);
        }
    }
}
