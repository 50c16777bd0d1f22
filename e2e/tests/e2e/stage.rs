//! What most tests stand on: an agent, a registry that both users may log in to, and the guests pushed to it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use washlet_e2e::{
    ALICE, Agent, AgentOptions, Artifact, Registry, TestNamespace, eventually, repository,
};

/// Longer than any start may take on a slow machine, that compiles in a debug build.
pub const START: Duration = Duration::from_secs(60);
/// "Within seconds": how long a repair may take to be noticed and acted on.
pub const HEAL: Duration = Duration::from_secs(20);

/// The bytes of a guest under `e2e/guests/wasm`.
pub fn guest(name: &str) -> Result<Vec<u8>> {
    let path = repository()
        .join("e2e/guests/wasm")
        .join(format!("{name}.wasm"));
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// An agent and a registry.
pub struct Stage {
    pub agent: Agent,
    pub registry: &'static Registry,
}

impl Stage {
    /// Starts an agent that trusts the shared registry, and gives the namespace alice's login as the secret `login`.
    pub async fn new(namespace: &TestNamespace) -> Result<Self> {
        Self::with(namespace, AgentOptions::default()).await
    }

    /// The same, with what else the agent is given.
    pub async fn with(namespace: &TestNamespace, options: AgentOptions) -> Result<Self> {
        let registry = Registry::shared().await?;
        namespace
            .apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let agent = start_agent_with(namespace, registry, options).await?;
        Ok(Self { agent, registry })
    }

    /// Pushes a guest as `alice/NAMESPACE-NAME:TAG`, and returns the image's name.
    pub async fn push(&self, namespace: &TestNamespace, name: &str, tag: &str) -> Result<String> {
        let repository = repository_of(namespace, name);
        self.registry
            .push(&repository, tag, &Artifact::wasm(&guest(name)?))
            .await?;
        Ok(self.registry.image(&repository, tag))
    }

    /// A workload of one HTTP component.
    pub fn workload(&self, name: &str, image: &str) -> String {
        workload(self.agent.node(), name, image)
    }

    /// Waits until the agent answers a route with this status, and returns the body.
    pub async fn answers(
        &self,
        host: &str,
        path: &str,
        status: u16,
        limit: Duration,
    ) -> Result<String> {
        eventually(&format!("{status} from {host}{path}"), limit, async || {
            let (got, body) = self.agent.get(host, path).await?;
            Ok(if got == status {
                Ok(body)
            } else {
                Err(format!("{got}: {body}"))
            })
        })
        .await
    }
}

/// An agent that trusts a registry.
pub async fn start_agent(namespace: &TestNamespace, registry: &Registry) -> Result<Agent> {
    start_agent_with(namespace, registry, AgentOptions::default()).await
}

async fn start_agent_with(
    namespace: &TestNamespace,
    registry: &Registry,
    mut options: AgentOptions,
) -> Result<Agent> {
    options.certs_d.push(registry.certs_d());
    let mut agent = Agent::start(namespace, options).await?;
    agent.wait_ready(START).await?;
    Ok(agent)
}

/// A repository of a test's own, so that pulls can be counted.
pub fn repository_of(namespace: &TestNamespace, name: &str) -> String {
    format!("alice/{}-{name}", namespace.name())
}

/// A workload of one HTTP component, called `app`, at the host name `NAME.test`.
pub fn workload(node: &str, name: &str, image: &str) -> String {
    format!(
        "apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: Workload
metadata:
  name: {name}
spec:
  hostId: {node}
  components:
  - name: app
    image: {image}
    imagePullSecret:
      name: login
  hostInterfaces:
  - namespace: wasi
    package: http
    interfaces: [incoming-handler]
    config:
      host: {name}.test
"
    )
}

/// Waits until a workload is Ready.
pub async fn ready(namespace: &TestNamespace, name: &str) -> Result<()> {
    namespace
        .wait_for_condition(("Workload", name), ("Ready", "True"), None, START)
        .await
        .map(drop)
}

/// Waits until a workload is not Ready for this reason, and returns the message. Its Event says the same.
pub async fn fails(namespace: &TestNamespace, name: &str, reason: &str) -> Result<String> {
    let condition = namespace
        .wait_for_condition(("Workload", name), ("Ready", "False"), Some(reason), START)
        .await?;
    let uid = namespace
        .get("Workload", name)
        .await?
        .metadata
        .uid
        .context("a uid")?;
    eventually(&format!("an Event {reason}"), HEAL, async || {
        let events = namespace.events_for(&uid).await?;
        let found = events
            .iter()
            .any(|e| e.reason.as_deref() == Some(reason) && e.type_.as_deref() == Some("Warning"));
        let reasons: Vec<_> = events.iter().filter_map(|e| e.reason.clone()).collect();
        Ok(if found {
            Ok(())
        } else {
            Err(format!("{reasons:?}"))
        })
    })
    .await?;
    Ok(condition.message)
}

/// Fails unless a message has all of these parts.
pub fn says(message: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(message.contains(part), "`{part}` is not in: {message}");
    }
    Ok(())
}
