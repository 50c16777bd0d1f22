//! A cluster with a real node: kubelet, containerd, kube-proxy and scheduler beside the control plane, on a machine of
//! their own as far as the kernel can tell; or the cluster that `KUBECONFIG` names.

mod given;
mod images;
mod inside;
mod kubelet;
mod machine;
mod runtime;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Service, ServiceAccount};
use kube::Api;

pub use images::WASHLET;
pub use machine::lacks;

use crate::{
    Registry,
    cluster::{self, Cluster, ControlPlane, Version},
    process::{self, Process},
    run_dir,
    wait::eventually,
};
use kubelet::Services;

/// The name of the Node that is started here.
pub const NODE: &str = "real";

/// Five seconds on an idle machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// With `--wait`, an image that is there already, and a development build on two busy cores.
const HELM_LIMIT: Duration = Duration::from_secs(240);

/// A cluster whose nodes run pods.
pub struct NodeCluster {
    // Dropped in this order: the kubelet goes before what it talks to.
    own: Option<Own>,
    cluster: Cluster,
    registry: Registry,
    helm: PathBuf,
    scratch: PathBuf,
}

/// What was started here.
struct Own {
    services: Mutex<Services>,
    _containerd: Process,
    _control_plane: ControlPlane,
}

/// Runs a test on a cluster with a real node. `test` is its full name in its binary, which is started again for it.
///
/// Where no node can be started the test is not run, and a line says so.
///
/// # Errors
/// With the test's own error, after printing what is known about the pods.
pub async fn with_node_cluster(
    test: &str,
    body: impl AsyncFnOnce(&NodeCluster) -> Result<()>,
) -> Result<()> {
    if let Some(kubeconfig) = cluster::given_kubeconfig() {
        return NodeCluster::given(kubeconfig).await?.run(body).await;
    }
    let Some(dir) = inside::dir() else {
        return inside::enter(test).await;
    };
    NodeCluster::start(&dir).await?.run(body).await?;
    inside::passed(&dir)
}

/// Builds the programs that such a cluster takes beside those of a control plane, unless they are in the cache.
///
/// # Errors
/// As [`cluster::install`].
pub fn install() -> Result<()> {
    cluster::install_node().map(drop)
}

// === impl NodeCluster ===

impl NodeCluster {
    /// Starts one in namespaces that nobody else is in.
    async fn start(dir: &Path) -> Result<Self> {
        let addresses = addresses();
        let images = dir.join("images");
        let (control_plane, containerd) = tokio::try_join!(
            ControlPlane::start_for_node(Version::V1_36, NODE, &addresses),
            runtime::start(dir, &addresses, &images),
        )?;
        let programs = cluster::install_node()?;
        let cgroup = inside::cgroup(dir)?;
        let mut services = Services::start(dir, &programs, &control_plane, &addresses, &cgroup)?;
        let cluster = control_plane.cluster().clone();
        wait_ready(&cluster, &mut services).await?;
        Ok(Self {
            cluster,
            registry: Registry::htpasswd_at(inside::IPV4.into()).await?,
            helm: programs.helm,
            scratch: run_dir::subdir("helm")?,
            own: Some(Own {
                services: Mutex::new(services),
                _containerd: containerd,
                _control_plane: control_plane,
            }),
        })
    }

    async fn run(self, body: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let result = body(&self).await;
        if result.is_err() {
            self.print_all().await;
            run_dir::keep();
        }
        result
    }

    /// How to reach its API.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A registry that its pods reach.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether it was started here, so that a test may break its parts and look at its processes.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Runs helm and gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .args(args);
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(variable, self.scratch.join(folder));
        }
        let shown = format!("helm {}", args.join(" "));
        let output = tokio::task::spawn_blocking(move || process::run(command, HELM_LIMIT))
            .await
            .context("running helm")?
            .with_context(|| shown.clone())?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{shown}: {}\n{stdout}", stderr.trim());
        }
        Ok(stdout)
    }

    /// The type of a Service that a client beside the node reaches.
    #[must_use]
    pub fn service_type(&self) -> &'static str {
        if self.is_own() {
            "ClusterIP"
        } else {
            "NodePort"
        }
    }

    /// Where the first port of a Service is reached from here: its own addresses, one for each family, or a node's.
    ///
    /// # Errors
    /// When there is no such Service, or it has no such address.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<Vec<SocketAddr>> {
        let client = self.cluster.client().await?;
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let service = services
            .get(name)
            .await
            .with_context(|| format!("getting Service {name}"))?;
        let spec = service.spec.context("a Service without a spec")?;
        let port = spec.ports.as_deref().and_then(<[_]>::first).cloned();
        let port = port.with_context(|| format!("Service {name} has no port"))?;
        let (hosts, port) = if self.is_own() {
            (spec.cluster_ips.unwrap_or_default(), port.port)
        } else {
            (node_addresses(client).await?, port.node_port.unwrap_or(0))
        };
        let port = u16::try_from(port).context("a port")?;
        let parsed = hosts.iter().map(|host| {
            let host: IpAddr = host
                .parse()
                .with_context(|| format!("the address {host}"))?;
            Ok(SocketAddr::new(host, port))
        });
        parsed.collect()
    }

    /// Kills the kubelet and starts it again.
    ///
    /// # Errors
    /// When it was not started here, or does not start.
    pub fn restart_kubelet(&self) -> Result<()> {
        let own = self
            .own
            .as_ref()
            .context("this node's kubelet is not ours")?;
        let mut services = own.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.restart_kubelet()
    }

    /// The process of a container, by the id that its pod's status has: `containerd://…`.
    ///
    /// # Errors
    /// When it has ended, or runs on another machine.
    pub fn process_of(&self, container: &str) -> Result<u32> {
        let id = container.rsplit('/').next().unwrap_or(container);
        for entry in Path::new("/proc")
            .read_dir()
            .context("reading /proc")?
            .flatten()
        {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            // It may be gone by now.
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if groups.contains(id) {
                return Ok(pid);
            }
        }
        bail!("no process of the container {id} on this machine")
    }

    async fn print_all(&self) {
        for args in [
            ["get", "pods,services,endpointslices", "-A", "-o", "wide"].as_slice(),
            &[
                "get",
                "events",
                "-A",
                "--sort-by=.metadata.creationTimestamp",
            ],
            &[
                "get",
                "workloads.runtime.wasmcloud.dev,hosts.runtime.wasmcloud.dev",
                "-A",
                "-o",
                "yaml",
            ],
            &[
                "logs",
                "-n",
                "washlet",
                "-l",
                "app.kubernetes.io/name=washlet",
                "--all-containers",
                "--prefix",
                "--tail=60",
            ],
        ] {
            let said = self.cluster.kubectl(args).await;
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            eprintln!("--- kubectl {}\n{}", args.join(" "), said.trim_end());
        }
    }
}

/// The node's addresses; both families where the machine has them.
fn addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from(inside::IPV4)];
    if Path::new("/proc/sys/net/ipv6").exists() {
        addresses.push(inside::IPV6.into());
    }
    addresses
}

async fn wait_ready(cluster: &Cluster, services: &mut Services) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client().await?);
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().await?, "default");
    eventually("pods may be made", READY_LIMIT, async || {
        // Made by the controller manager, which is no slower than this as a rule.
        Ok(accounts
            .get("default")
            .await
            .map_err(|error| error.to_string()))
    })
    .await?;
    eventually("the Node is Ready", READY_LIMIT, async || {
        services.check_running()?;
        let node = match nodes.get(NODE).await {
            Ok(node) => node,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let conditions = node
            .status
            .unwrap_or_default()
            .conditions
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(ready) if ready.status == "True" => Ok(()),
            other => Err(format!("{:?}", other.and_then(|c| c.message.clone()))),
        })
    })
    .await
}

/// Of the first Node: each of them leads to every Service.
async fn node_addresses(client: kube::Client) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client);
    let nodes = nodes.list(&kube::api::ListParams::default()).await;
    let node = nodes.context("listing Nodes")?.items.into_iter().next();
    let status = node.and_then(|node| node.status).unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default().into_iter();
    Ok(addresses
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| address.address)
        .collect())
}
