//! The agent's `Host` object: what this node is and holds, for people and for the scheduler.

use std::{fs, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;

use super::{super::api, FIELD_MANAGER, lease::Standing};

/// How often the object is written when nothing changes.
const REFRESH: Duration = Duration::from_secs(60);
/// Changes within this time are written together.
const GATHER: Duration = Duration::from_secs(2);
/// Longest time for a write: a connection that swallows requests must not stop the next try.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Wait after a failed write.
const RETRY: Duration = Duration::from_secs(5);

/// What changes while the agent runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub workloads: usize,
    pub components: usize,
    pub draining: bool,
}

/// What does not.
pub(super) struct HostObject {
    pub client: Client,
    pub namespace: String,
    pub node: String,
    pub http: SocketAddr,
    pub interfaces: Vec<String>,
    pub owner: Option<OwnerReference>,
}

/// The Node as an owner of the agent's objects, so that they go with it; none where there is no such Node, or where the agent
/// may not read it. Waits for the API server to say so.
pub(super) async fn owner(client: &Client, node: &str) -> Option<OwnerReference> {
    let nodes = Api::<Node>::all(client.clone());
    loop {
        let Ok(found) = tokio::time::timeout(TIMEOUT, nodes.get_opt(node)).await else {
            continue;
        };
        match found {
            Ok(Some(found)) => {
                return Some(OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: node.to_owned(),
                    uid: found.metadata.uid?,
                    ..OwnerReference::default()
                });
            }
            Ok(None) => {
                tracing::warn!(
                    node,
                    "there is no Node of this name; the Host object and the Lease have no owner"
                );
                return None;
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!(
                    node,
                    "the Node may not be read; the Host object and the Lease have no owner"
                );
                return None;
            }
            Err(error) => {
                tracing::warn!(node, %error, "the Node cannot be read; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
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
        let mut created = false;
        loop {
            if standing.wait_for(|s| *s == Standing::Holder).await.is_err() {
                return;
            }
            let now = *load.borrow_and_update();
            let written = self.write(&api, now, &mut created, &mut cpu);
            let wait = match tokio::time::timeout(TIMEOUT, written).await {
                Ok(Ok(())) => REFRESH,
                failed => {
                    tracing::warn!(?failed, "Host object not written; trying again");
                    created = false;
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
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

    async fn write(
        &self,
        api: &Api<api::Host>,
        load: Load,
        created: &mut bool,
        cpu: &mut CpuMeter,
    ) -> Result<(), kube::Error> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        if !*created {
            let object = json!({
                "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
                "kind": "Host",
                "metadata": { "name": self.node, "ownerReferences": self.owner.iter().collect::<Vec<_>>() },
                "hostId": self.node,
                "hostname": hostname(),
                "httpPort": self.http.port(),
            });
            api.patch(&self.node, &params, &Patch::Apply(&object))
                .await?;
            *created = true;
        }
        let before = api_conditions(api, &self.node).await?;
        let status = json!({
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": "Host",
            "metadata": { "name": self.node },
            "status": self.status(load, &before, cpu),
        });
        api.patch_status(&self.node, &params, &Patch::Apply(&status))
            .await?;
        Ok(())
    }

    fn status(&self, load: Load, before: &[api::Condition], cpu: &mut CpuMeter) -> api::HostStatus {
        let (total, free) = memory();
        let ip = self.http.ip();
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
            addresses: if ip.is_unspecified() {
                Vec::new()
            } else {
                vec![ip.to_string()]
            },
            interfaces: self.interfaces.clone(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            ..api::HostStatus::default()
        }
    }
}

/// The conditions as they are, so that the time of the last transition is kept over restarts.
async fn api_conditions(
    api: &Api<api::Host>,
    name: &str,
) -> Result<Vec<api::Condition>, kube::Error> {
    let host = api.get_opt(name).await?;
    Ok(host
        .and_then(|h| h.status)
        .map(|s| s.conditions)
        .unwrap_or_default())
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

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn hostname() -> Option<String> {
    read("/proc/sys/kernel/hostname").filter(|name| !name.is_empty())
}

/// Total and free memory of the machine, in bytes.
fn memory() -> (Option<i64>, Option<i64>) {
    let text = read("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace()
            .next()?
            .parse::<i64>()
            .ok()
            .map(|kib| kib * 1024)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// Measures processor use between two calls.
#[derive(Default)]
struct CpuMeter {
    before: Option<(u64, u64)>,
}

impl CpuMeter {
    /// Share of all processors in use since the last call, in percent; none at the first.
    fn percent(&mut self) -> Option<f64> {
        let text = read("/proc/stat")?;
        let ticks: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|t| t.parse().ok())
            .collect();
        let total: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let (total_before, idle_before) = self.before.replace((total, idle))?;
        let passed = total.checked_sub(total_before).filter(|p| *p > 0)?;
        let idle = idle.saturating_sub(idle_before);
        #[expect(
            clippy::cast_precision_loss,
            reason = "ticks between two reads are few"
        )]
        let share = 100.0 * (1.0 - idle as f64 / passed as f64);
        Some(share.clamp(0.0, 100.0))
    }
}
