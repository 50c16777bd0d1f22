//! What the figures are measured on: a control plane, a registry with variants of one component, and Workloads of one node.

use std::{collections::HashSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use super::Options;
use crate::{
    agent::{Agent, AgentOptions},
    cluster::{ControlPlane, Version},
    namespace::TestNamespace,
    objects,
    registry::{ALICE, Artifact, Registry},
    repository,
    wait::eventually,
};

/// Requests of ours that are under way at a time.
pub(super) const IN_FLIGHT: usize = 32;
/// Longest time for anything that is waited for, on a slow machine with thousands of Workloads.
pub(super) const LIMIT: Duration = Duration::from_secs(280);

const KIND: &str = "Workload";

/// Dropped in this order: whoever uses a server goes before it.
pub(super) struct Scene {
    pub namespace: TestNamespace,
    pub registry: Registry,
    /// The images, each of other bytes.
    pub images: Vec<String>,
    pub control_plane: ControlPlane,
    options: AgentOptions,
}

impl Scene {
    /// Starts everything but the agent, and pushes `distinct` components that differ in one custom section.
    pub async fn new(options: &Options, distinct: usize, audited: bool) -> Result<Self> {
        eprintln!("starting a control plane and a registry");
        let version = Version::wanted()?;
        let control_plane = if audited {
            ControlPlane::start_audited(version).await?
        } else {
            ControlPlane::start_with(version).await?
        };
        control_plane.cluster().apply_crds().await?;
        let namespace = TestNamespace::in_cluster(control_plane.cluster()).await?;
        let registry = Registry::htpasswd().await?;
        namespace
            .apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let path = repository().join("examples/hello/hello.wasm");
        let hello = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut images = Vec::with_capacity(distinct);
        for number in 0..distinct {
            let (name, component) = (format!("alice/hello-{number}"), variant(&hello, number));
            registry
                .push(&name, "v1", &Artifact::wasm(&component))
                .await?;
            images.push(registry.image(&name, "v1"));
        }
        let options = AgentOptions {
            certs_d: vec![registry.certs_d()],
            binary: Some(options.washlet.clone()),
            // As in a cluster: what a workload's start logs is for those who look for it.
            env: vec![("RUST_BACKTRACE".to_owned(), "0".to_owned())],
            ..AgentOptions::default()
        };
        Ok(Self {
            namespace,
            registry,
            images,
            control_plane,
            options,
        })
    }

    /// Starts the agent of the Workloads' node.
    pub async fn agent(&self) -> Result<Agent> {
        let mut agent = Agent::start(&self.namespace, self.options.clone()).await?;
        agent.wait_ready(LIMIT).await?;
        Ok(agent)
    }

    pub fn api(&self) -> Result<Api<DynamicObject>> {
        self.namespace.api(KIND)
    }

    /// The Workload `NAME` of the node, with one component, at the host name `NAME.test`.
    pub fn workload(&self, name: &str, image: &str) -> Result<DynamicObject> {
        let object = json!({
            "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {
                "hostId": self.namespace.name(),
                "components": [{"name": "app", "image": image, "imagePullSecret": {"name": "login"}}],
                "hostInterfaces": [{
                    "namespace": "wasi", "package": "http", "interfaces": ["incoming-handler"],
                    "config": {"host": host(name)},
                }],
            },
        });
        serde_json::from_value(object).context("a Workload")
    }

    /// Creates Workloads, their images in turn; gives their names.
    pub async fn create(&self, count: usize) -> Result<Vec<String>> {
        eprintln!("creating {count} Workloads");
        let names: Vec<String> = (0..count).map(|n| format!("w-{n:05}")).collect();
        let images = self.images.iter().cycle();
        let objects: Result<Vec<_>> = names
            .iter()
            .zip(images)
            .map(|(name, image)| self.workload(name, image))
            .collect();
        let api = self.api()?;
        concurrently(objects?, async move |object| {
            let created = api.create(&PostParams::default(), &object).await;
            created.map(drop).context("creating a Workload")
        })
        .await?;
        Ok(names)
    }

    /// Deletes all Workloads, and waits until they are gone.
    pub async fn clear(&self) -> Result<()> {
        let api = self.api()?;
        api.delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .context("deleting Workloads")?;
        eventually("the Workloads are gone", LIMIT, async || {
            let left = api.list(&ListParams::default().limit(1)).await?;
            Ok(if left.items.is_empty() {
                Ok(())
            } else {
                Err("some are left")
            })
        })
        .await
    }

    /// Follows the Workloads from now on, until `count` of them are Ready.
    pub async fn readiness(&self, count: usize) -> Result<Readiness> {
        let api = self.api()?;
        let listed = api.list(&ListParams::default()).await.context("listing")?;
        let mut ready = Readiness {
            version: listed.metadata.resource_version.unwrap_or_default(),
            api,
            count,
            ready: HashSet::new(),
        };
        listed.items.iter().for_each(|object| ready.take(object));
        Ok(ready)
    }
}

/// The Workloads that have been seen Ready.
pub(super) struct Readiness {
    api: Api<DynamicObject>,
    version: String,
    count: usize,
    ready: HashSet<String>,
}

impl Readiness {
    fn take(&mut self, object: &DynamicObject) {
        if objects::condition(object, "Ready").is_some_and(|c| c.status == "True") {
            self.ready.insert(object.name_any());
        }
    }

    /// Waits until all are Ready.
    pub async fn all(mut self) -> Result<()> {
        let watching = async {
            while self.ready.len() < self.count {
                self.watch().await?;
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(LIMIT, watching).await;
        let seen = format!("{} of {} Workloads are Ready", self.ready.len(), self.count);
        waited.with_context(|| format!("after {LIMIT:?} {seen}"))?
    }

    async fn watch(&mut self) -> Result<()> {
        use futures::StreamExt as _;
        let params = WatchParams::default().timeout(250);
        let watch = self.api.watch(&params, &self.version).await;
        let mut events = watch.context("watching")?.boxed();
        while let Some(event) = events.next().await {
            match event.context("watching")? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.version = object.resource_version().unwrap_or_default();
                    self.take(&object);
                }
                WatchEvent::Bookmark(mark) => self.version = mark.metadata.resource_version,
                WatchEvent::Deleted(_) => {}
                WatchEvent::Error(error) => anyhow::bail!("watching: {error}"),
            }
            if self.ready.len() >= self.count {
                break;
            }
        }
        Ok(())
    }
}

/// The host name of a Workload's route.
pub(super) fn host(name: &str) -> String {
    format!("{name}.test")
}

/// Does something with each item, [`IN_FLIGHT`] at a time.
pub(super) async fn concurrently<T, F>(items: Vec<T>, work: F) -> Result<()>
where
    F: AsyncFn(T) -> Result<()>,
{
    use futures::StreamExt as _;
    let work = &work;
    let all = futures::stream::iter(items.into_iter().map(|item| work(item)));
    let results: Vec<Result<()>> = all.buffer_unordered(IN_FLIGHT).collect().await;
    results.into_iter().collect()
}

/// The same component with other bytes: a custom section says which one it is.
fn variant(component: &[u8], number: usize) -> Vec<u8> {
    let (name, data) = (b"variant".as_slice(), format!("{number:08}"));
    // Lengths below 128 are one byte of LEB128.
    let mut section = vec![u8::try_from(name.len()).unwrap_or_default()];
    section.extend_from_slice(name);
    section.extend_from_slice(data.as_bytes());
    let mut bytes = component.to_vec();
    bytes.extend([0, u8::try_from(section.len()).unwrap_or_default()]);
    bytes.extend(section);
    bytes
}

/// What is measured must be what is served.
pub(super) async fn ensure_answers(agent: &Agent, name: &str) -> Result<()> {
    let (status, body) = agent.get(&host(name), "/").await?;
    ensure!(status == 200, "{name} answers {status}: {body}");
    Ok(())
}

/// What a Workload's status is, for the peer to write the same.
pub(super) async fn status(api: &Api<DynamicObject>, name: &str) -> Result<Value> {
    let object = api.get_status(name).await.context("getting a status")?;
    object.data.get("status").cloned().context("no status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_differ_by_a_whole_section() {
        let one = variant(b"abc", 1);
        assert_eq!(one, b"abc\x00\x10\x07variant00000001");
        assert_ne!(one, variant(b"abc", 2));
    }
}
