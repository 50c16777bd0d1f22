//! What a platform engineer does with helm, on a real node: kubelet, containerd, kube-proxy. Or on the cluster of KUBECONFIG.

mod faults;
mod install;

use std::{fs, net::SocketAddr, time::Duration, time::Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::json;
use washlet_e2e::{ALICE, Artifact, NodeCluster, TestNamespace, eventually, repository, run_dir};

use crate::stage::{START, guest};

/// The release and its namespace, as the README has them.
const WASHLET: &str = "washlet";

/// A release on a cluster, and a namespace for Workloads with a login.
struct Site<'a> {
    node: &'a NodeCluster,
    ns: &'a TestNamespace,
    /// The image of the component.
    image: String,
    values: String,
}

// === impl Site ===

impl<'a> Site<'a> {
    /// Everything that `helm install` does not do: the system's namespace, which takes restricted pods only, the image of
    /// a component, its login, and values that tell the registry's authority.
    async fn new(node: &'a NodeCluster, ns: &'a TestNamespace) -> Result<Self> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        ns.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WASHLET, "labels": labels}}))
            .await?;
        ns.remove_too(format!("namespace/{WASHLET}"));
        let registry = node.registry();
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let pushed = "alice/hello";
        registry
            .push(pushed, "v1", &Artifact::wasm(&guest("v1")?))
            .await?;
        let ca = fs::read_to_string(registry.ca()).context("reading the registry's certificate")?;
        let values = run_dir::subdir("values")?.join("values.json");
        let registries = json!({registry.host(): {"ca": ca}});
        fs::write(&values, json!({"registries": registries}).to_string())?;
        Ok(Self {
            node,
            ns,
            image: registry.image(pushed, "v1"),
            values: values.display().to_string(),
        })
    }

    /// `helm VERB washlet charts/washlet`, with the values of this site and more; waits as `--wait` does.
    async fn helm(&self, verb: &str, more: &[&str]) -> Result<String> {
        let chart = repository().join("charts/washlet");
        let chart = chart.to_str().context("the path is no UTF-8")?;
        let fixed = [verb, WASHLET, chart, "-n", WASHLET, "-f", &self.values];
        self.node
            .helm(&[&fixed, WAIT.as_slice(), more].concat())
            .await
    }

    /// A Workload with no host named, and an ordinary Service for it.
    async fn apply_workload(&self, name: &str) -> Result<()> {
        let kind = self.node.service_type();
        self.ns
            .apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"type": kind, "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}}))
            .await?;
        let route = json!({"namespace": "wasi", "package": "http", "interfaces": ["incoming-handler"],
            "config": {"host": format!("{name}.test")}});
        let component =
            json!({"name": "app", "image": self.image, "imagePullSecret": {"name": "login"}});
        self.ns
            .apply(json!({"apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
                "spec": {"components": [component], "hostInterfaces": [route], "kubernetes": {"service": {"name": name}}}}))
            .await
            .map(drop)
    }

    /// The address of a Service.
    async fn address(&self, service: &str) -> Result<SocketAddr> {
        let all = self.node.service(self.ns.name(), service).await?;
        all.first().copied().context("a Service without an address")
    }

    /// Waits until an address answers 200, whatever the host name.
    async fn answers(&self, address: SocketAddr) -> Result<()> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .no_proxy()
            .build()?;
        let url = format!("http://{address}/");
        eventually(&format!("200 from {url}"), START, async || {
            Ok(match client.get(&url).send().await {
                Ok(answer) if answer.status() == 200 => {
                    let body = answer.text().await?;
                    ensure!(body.contains("v1"), "{body}");
                    Ok(())
                }
                Ok(answer) => Err(answer.status().to_string()),
                Err(error) => Err(format!("{error:?}")),
            })
        })
        .await
    }

    /// The pods of the release, of one part.
    async fn pods(&self, component: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.ns.client().clone(), WASHLET);
        let ours =
            ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        Ok(pods.list(&ours).await?.items)
    }

    /// Waits until the DaemonSet and the Deployment are all that they should be.
    async fn rolled_out(&self) -> Result<()> {
        for object in ["daemonset/washlet-agent", "deployment/washlet-controller"] {
            self.node
                .cluster()
                .kubectl(&["rollout", "status", object, "-n", WASHLET, "--timeout=110s"])
                .await?;
        }
        Ok(())
    }

    /// `helm uninstall`, and waits for the last pod: helm waits for the objects that it made.
    async fn uninstall(&self) -> Result<()> {
        self.node
            .helm(&[&["uninstall", WASHLET, "-n", WASHLET], WAIT.as_slice()].concat())
            .await?;
        eventually("all pods are gone", PODS_GONE, async || {
            let mut left = self.pods("agent").await?;
            left.extend(self.pods("controller").await?);
            let names: Vec<_> = left.into_iter().map(|pod| pod.metadata.name).collect();
            Ok(if names.is_empty() { Ok(()) } else { Err(names) })
        })
        .await
    }
}

/// Longer than an agent may take to drain.
const PODS_GONE: Duration = Duration::from_secs(90);
const WAIT: [&str; 3] = ["--wait", "--timeout", "180s"];

/// The first container's id, once it runs.
fn container(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.container_id.clone()
}

/// Says what was shown, and how long it took.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let done = work.await.with_context(|| what.to_owned())?;
    println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}
