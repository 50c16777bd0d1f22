//! The controller with three agents, each with a token of its own node: scheduling, loss of hosts, replicas, Services, leaders.

mod autoscaling;
mod guide;
mod leaders;
mod loss;
mod replicas;
mod scheduling;
mod services;

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use washlet_e2e::{ALICE, Agent, AgentOptions, Artifact, Controller, Registry, TestNamespace};

use crate::stage::{START, guest, repository_of};

/// Long enough for a decision to be seen.
pub(crate) const DECIDED: Duration = Duration::from_secs(20);

/// Some agents, a controller and a registry.
pub(crate) struct Fleet {
    pub agents: Vec<Agent>,
    pub controller: Controller,
    pub registry: &'static Registry,
}

impl Fleet {
    /// Starts this many agents, on nodes `NAMESPACE-a`, `-b` and so on, and a controller; waits until all are there.
    pub async fn start(ns: &TestNamespace, agents: usize) -> Result<Self> {
        Self::start_with(ns, agents, |_| Vec::new()).await
    }

    /// The same, with further arguments for each agent by its number.
    pub async fn start_with(
        ns: &TestNamespace,
        count: usize,
        args: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self> {
        Self::start_under(ns, count, None, args).await
    }

    /// The same, with other rights for the agents.
    pub async fn start_under(
        ns: &TestNamespace,
        count: usize,
        rights: Option<&str>,
        args: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self> {
        let registry = Registry::shared().await?;
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let mut agents = Vec::new();
        for number in 0..count {
            agents.push(agent(ns, registry, number, (rights, args(number))).await?);
        }
        let mut controller = Controller::start(ns).await?;
        for agent in &mut agents {
            agent.wait_ready(START).await?;
        }
        controller.wait_leading(START).await?;
        for agent in &agents {
            ns.wait_for("Host", agent.node(), is_ready, START).await?;
        }
        Ok(Self {
            agents,
            controller,
            registry,
        })
    }

    /// The agent of a host.
    pub fn agent(&mut self, host: &str) -> Result<&mut Agent> {
        let mut agents = self.agents.iter_mut();
        agents
            .find(|agent| agent.node() == host)
            .with_context(|| format!("no agent is {host}"))
    }

    /// Pushes a guest as `alice/NAMESPACE-NAME:TAG`, and returns the image's name.
    pub async fn push(&self, ns: &TestNamespace, name: &str, tag: &str) -> Result<String> {
        let repository = repository_of(ns, name);
        self.registry
            .push(&repository, tag, &Artifact::wasm(&guest(name)?))
            .await?;
        Ok(self.registry.image(&repository, tag))
    }
}

/// The name of the node with this number.
pub(crate) fn node(ns: &TestNamespace, number: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(number).unwrap_or(25));
    format!("{}-{letter}", ns.name())
}

async fn agent(
    ns: &TestNamespace,
    registry: &Registry,
    number: usize,
    (rights, args): (Option<&str>, Vec<String>),
) -> Result<Agent> {
    let options = AgentOptions {
        node: Some(node(ns, number)),
        certs_d: vec![registry.certs_d()],
        listen: Some(loopback()),
        rights: rights.map(str::to_owned),
        args: [
            vec![format!("--advertise-address={}", advertised(number))],
            args,
        ]
        .concat(),
        ..AgentOptions::default()
    };
    Agent::start(ns, options).await
}

/// What an agent says of itself: a loopback address is no endpoint. Nobody asks at this one.
pub(crate) fn advertised(number: usize) -> String {
    format!("192.0.2.{}", number + 1)
}

/// An address of the loopback interface that no other agent of this process has, nor, most likely, of another one.
fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 8192;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 2).to_bits() + process * 512 + number)
}

fn is_ready(object: &DynamicObject) -> bool {
    washlet_e2e::objects::condition(object, "Ready").is_some_and(|ready| ready.status == "True")
}

/// A workload of one HTTP component without a host; `change` adds what the test is about.
pub(crate) fn workload(name: &str, image: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
        "kind": "Workload",
        "metadata": { "name": name },
        "spec": spec(image, &format!("{name}.test")),
    });
    change(&mut object);
    object
}

/// The specification of a workload of one HTTP component.
pub(crate) fn spec(image: &str, host: &str) -> Value {
    json!({
        "components": [{ "name": "app", "image": image, "imagePullSecret": { "name": "login" } }],
        "hostInterfaces": [{
            "namespace": "wasi", "package": "http", "interfaces": ["incoming-handler"], "config": { "host": host },
        }],
    })
}

/// Where a workload is.
pub(crate) fn host_of(object: &DynamicObject) -> Option<&str> {
    object.data["status"]["hostId"].as_str()
}

/// Waits until the cluster's garbage collector has seen all replica sets: it learns of new kinds every 30 seconds, and what it
/// has not seen yet is not spared when its owner is deleted with `--cascade=orphan`.
pub(crate) async fn wait_collected(ns: &TestNamespace) -> Result<()> {
    let missing = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none" });
    let set = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "WorkloadReplicaSet",
        "metadata": { "name": "unowned", "ownerReferences": [missing] },
        "spec": { "replicas": 0, "template": { "spec": {} } },
    });
    ns.apply(set).await?;
    ns.wait_gone("WorkloadReplicaSet", "unowned", Duration::from_secs(90))
        .await
}
