//! The agent's `Host` object: what this node is and holds, for people and for the scheduler.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{OwnerReference, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        api,
        lease::Standing,
        owner::{NodeOwner, Owner},
    },
    FIELD_MANAGER,
    machine::{CpuMeter, Memory, hostname, machine_memory, read},
};
use crate::{oci::Puller, spec::Digest};

/// How often the object is written when nothing changes.
const REFRESH: Duration = Duration::from_secs(60);
/// Changes within this time are written together.
const GATHER: Duration = Duration::from_secs(2);
/// Longest time for a write: a connection that swallows requests must not stop the next try.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Most images that the object names.
const IMAGES: usize = 50;
/// Wait after somebody else wrote in the same moment, or removed the object.
const CONFLICT: Duration = Duration::from_millis(200);
/// Wait after a failed write.
const RETRY: Duration = Duration::from_secs(5);

/// What changes while the agent runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub workloads: usize,
    pub components: usize,
    /// Components whose bytes are here.
    pub fetched: usize,
    pub draining: bool,
}

/// What does not.
#[derive(Clone)]
pub(super) struct Facts {
    pub http: SocketAddr,
    /// Where others reach it, at most one of each family.
    pub addresses: Vec<IpAddr>,
    pub environment: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub memory: Option<Memory>,
    pub interfaces: Vec<String>,
    pub images: Arc<Puller>,
}

impl Facts {
    /// Whether a Host object leads to this agent.
    pub fn are_of(&self, host: &api::Host) -> bool {
        let addresses = host.status.iter().flat_map(|status| &status.addresses);
        let mine = self.addresses.iter().map(ToString::to_string);
        host.spec.http_port == Some(i32::from(self.http.port())) && mine.eq(addresses.cloned())
    }
}

/// Keeps the object.
pub(super) struct HostObject {
    pub client: Client,
    pub namespace: String,
    pub node: String,
    pub facts: Facts,
    pub owner: Arc<NodeOwner>,
}

/// That the object was made.
struct Made {
    owner: Owner,
    /// When its owner was read.
    at: Instant,
}

impl HostObject {
    /// Keeps the object up to date while this agent holds the node's Lease.
    pub async fn run(
        self,
        mut standing: watch::Receiver<Standing>,
        mut load: watch::Receiver<Load>,
    ) {
        let api: Api<api::Host> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut cpu = CpuMeter::default();
        let mut made = None;
        loop {
            if standing.wait_for(|s| *s == Standing::Holder).await.is_err() {
                return;
            }
            let now = *load.borrow_and_update();
            let written = self.write(&api, now, &mut made, &mut cpu);
            let wait = match tokio::time::timeout(TIMEOUT, written).await {
                Ok(Ok(wait)) => wait,
                // The last word of the agent that held the Lease before.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => CONFLICT,
                failed => {
                    tracing::warn!(?failed, "Host object not written; trying again");
                    made = None;
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Whoever holds the Lease now makes the object its own; and what has become of the Lease may have
                    // become of the object.
                    made = None;
                }
                changed = load.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !load.borrow().draining {
                        tokio::time::sleep(GATHER).await;
                    }
                }
            }
        }
    }

    /// Writes the object. Gives the time until the next write.
    async fn write(
        &self,
        api: &Api<api::Host>,
        load: Load,
        made: &mut Option<Made>,
        cpu: &mut CpuMeter,
    ) -> Result<Duration, kube::Error> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        if made
            .as_ref()
            .is_none_or(|made| made.at.elapsed() >= REFRESH)
        {
            let owner = self.owner.read().await?;
            let owners = match &owner {
                Owner::Is(node) => std::slice::from_ref(node),
                Owner::None => &[],
                Owner::Gone => {
                    *made = None;
                    return Ok(RETRY);
                }
            };
            if made.as_ref().is_none_or(|made| made.owner != owner) {
                let object = Patch::Apply(self.object(owners));
                api.patch(&self.node, &params, &object).await?;
            }
            let at = Instant::now();
            *made = Some(Made { owner, at });
        }
        // The times of the conditions are kept; and what is written is never older than what is there.
        let Some(before) = api.get_opt(&self.node).await? else {
            *made = None;
            return Ok(CONFLICT);
        };
        let version = before.metadata.resource_version;
        let before = before.status.map(|s| s.conditions).unwrap_or_default();
        let images = self.facts.images.newest(IMAGES).await;
        let status = json!({
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": "Host",
            "metadata": { "name": self.node, "resourceVersion": version },
            "status": self.status(load, &before, images, cpu),
        });
        api.patch_status(&self.node, &params, &Patch::Apply(&status))
            .await?;
        Ok(REFRESH)
    }

    /// What does not change.
    fn object(&self, owners: &[OwnerReference]) -> Value {
        let mut object = json!({
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": "Host",
            "metadata": {
                "name": self.node,
                "labels": self.facts.labels,
                "ownerReferences": owners,
            },
            "hostId": self.node,
            "hostname": hostname(),
            "httpPort": self.facts.http.port(),
        });
        // An apply has no nulls: what is not said is left out.
        if let (Some(environment), Some(fields)) = (&self.facts.environment, object.as_object_mut())
        {
            fields.insert("environment".to_owned(), json!(environment));
        }
        object
    }

    fn status(
        &self,
        load: Load,
        before: &[api::Condition],
        images: Vec<Digest>,
        cpu: &mut CpuMeter,
    ) -> api::HostStatus {
        let (total, free) = machine_memory();
        let count = |n: usize| i64::try_from(n).ok();
        let now = Timestamp::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        api::HostStatus {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            os_name: Some(std::env::consts::OS.to_owned()),
            os_arch: Some(std::env::consts::ARCH.to_owned()),
            os_kernel: read("/proc/sys/kernel/osrelease"),
            system_cpu_usage: cpu.percent().map(|p| format!("{p:.1}")),
            system_memory_total: total,
            system_memory_free: free,
            component_count: count(load.components),
            workload_count: count(load.workloads),
            last_seen: Some(Time(now)),
            conditions: vec![ready(load.draining, before, now)],
            addresses: self
                .facts
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            allocatable: Some(api::Allocatable {
                memory: self.facts.memory.map(|m| Quantity(m.to_string())),
            }),
            interfaces: self.facts.interfaces.clone(),
            images: images.iter().map(ToString::to_string).collect(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
        }
    }
}

fn ready(draining: bool, before: &[api::Condition], now: Timestamp) -> api::Condition {
    let (status, reason, message) = if draining {
        ("False", "Draining", "The agent is shutting down.")
    } else {
        ("True", "AgentReady", "The agent takes workloads.")
    };
    let same = before
        .iter()
        .find(|c| c.type_ == "Ready" && c.status == status);
    api::Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: same
            .and_then(|c| c.last_transition_time.clone())
            .or(Some(Time(now))),
        ..api::Condition::default()
    }
}
