//! What `cargo xtask cluster` starts: the control plane and the registry of the tests, for a person to try things on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    agent::{Account, Identity, ensure_node, rbac::Rbac, write_kubeconfig},
    cluster::{Cluster, ControlPlane, Version},
    objects, ports,
    registry::{ALICE, Artifact, Registry},
    repository, run_dir,
};

/// The port that images in `manifests/samples` name, as kind's documentation has it for a local registry.
pub const REGISTRY_PORT: u16 = 5001;
/// The Node that the samples are assigned to.
pub const NODE: &str = "playground";

const HELLO: &str = "hello:latest";

/// A running playground; dropping it ends all of it.
pub struct Playground {
    control_plane: ControlPlane,
    registry: Registry,
    namespace: String,
    agent_kubeconfig: PathBuf,
    state_dir: PathBuf,
    images: Vec<String>,
}

// === impl Playground ===

impl Playground {
    /// Starts everything: CRDs applied, a Node made, the agent's rights given, the example pushed.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start() -> Result<Self> {
        let registry = Registry::htpasswd_on(registry_port()?).await?;
        let control_plane = ControlPlane::start_with(Version::wanted()?).await?;
        let cluster = control_plane.cluster();
        cluster.apply_crds().await?;
        let dir = run_dir::subdir("agent")?;
        let agent_kubeconfig = dir.join("kubeconfig");
        let namespace = set_up_agent(cluster, &agent_kubeconfig).await?;
        let images = push_samples(&registry).await?;
        let state_dir = dir.join("state");
        Ok(Self {
            control_plane,
            registry,
            namespace,
            agent_kubeconfig,
            state_dir,
            images,
        })
    }

    /// What a person needs to know, with lines to paste.
    #[must_use]
    pub fn instructions(&self) -> String {
        let cluster = self.control_plane.cluster();
        let host = self.registry.host();
        let images: String = self
            .images
            .iter()
            .map(|image| format!("  {image}\n"))
            .collect();
        format!(
            "\nA Kubernetes API without nodes of its own, and a registry that wants a login. Ctrl-C ends both.\n\n\
             {path}export KUBECONFIG={kubeconfig}\n\n\
             Registry {host}: user {user}, password {password}, certificate {ca}. It has\n{images}\n\
             The node agent, in a terminal of its own:\n\n  \
             cargo run --release -- agent --node-name {NODE} --system-namespace {namespace} \\\n    \
             --kubeconfig {agent_kubeconfig} \\\n    \
             --registry-certs-dir {certs_d} \\\n    \
             --state-dir {state_dir} --http-listen 127.0.0.1:8080\n\n\
             A workload, in another (with the export above):\n\n  \
             kubectl create secret docker-registry my-registry-secret --docker-server={host} \\\n    \
             --docker-username={user} --docker-password={password}\n  \
             kubectl apply -f manifests/samples/hello.yaml\n  \
             kubectl wait --for=condition=Ready workload/hello --timeout=60s\n  \
             kubectl get workloads\n  \
             curl -i http://127.0.0.1:8080/\n",
            path = path_hint(cluster.kubectl_path()),
            kubeconfig = cluster.kubeconfig().display(),
            user = ALICE.name,
            password = ALICE.password,
            ca = self.registry.ca().display(),
            namespace = self.namespace,
            agent_kubeconfig = self.agent_kubeconfig.display(),
            certs_d = self.registry.certs_d().display(),
            state_dir = self.state_dir.display(),
        )
    }
}

/// The documented port, or another one when somebody has it.
fn registry_port() -> Result<u16> {
    if ports::is_free(REGISTRY_PORT) {
        return Ok(REGISTRY_PORT);
    }
    let port = ports::free()?;
    eprintln!(
        "!!! port {REGISTRY_PORT} of 127.0.0.1 is taken: the registry is on port {port} instead.\n\
         !!! The samples name localhost:{REGISTRY_PORT}; put localhost:{port} in their place before you apply them."
    );
    Ok(port)
}

/// Gives the agent what an installation would; tells the namespace that it is in.
async fn set_up_agent(cluster: &Cluster, kubeconfig: &Path) -> Result<String> {
    let client = cluster.client().await?;
    ensure_node(&client, NODE).await?;
    let rbac = Rbac::shipped()?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": rbac.namespace}});
    objects::apply(&client, "", serde_json::from_value(namespace)?).await?;
    rbac.apply(&client).await?;
    let account = Account {
        namespace: &rbac.namespace,
        name: &rbac.account,
    };
    write_kubeconfig(cluster, &account, NODE, Identity::Node, kubeconfig).await?;
    Ok(rbac.namespace)
}

/// Pushes the example under every name that the sample has for it.
async fn push_samples(registry: &Registry) -> Result<Vec<String>> {
    let component = repository().join("examples/hello/hello.wasm");
    let component =
        fs::read(&component).with_context(|| format!("reading {}", component.display()))?;
    let sample =
        fs::read_to_string(repository().join("manifests/samples/hello.yaml")).unwrap_or_default();
    let mut names = sample_images(&sample);
    if names.is_empty() {
        names.push(HELLO.to_owned());
    }
    let mut images = Vec::new();
    for name in names {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
        registry
            .push(repository, tag, &Artifact::wasm(&component))
            .await?;
        images.push(registry.image(repository, tag));
    }
    Ok(images)
}

/// The images of a sample that are in the playground's registry, without its name.
fn sample_images(yaml: &str) -> Vec<String> {
    let prefix = format!("localhost:{REGISTRY_PORT}/");
    let values = yaml
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image:"));
    let images =
        values.filter_map(|value| value.trim().trim_matches(['"', '\'']).strip_prefix(&prefix));
    images.map(str::to_owned).collect()
}

/// How to have the kubectl that was built, when there is none.
fn path_hint(kubectl: &Path) -> String {
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("kubectl").is_file()));
    match kubectl.parent() {
        Some(dir) if !on_path => format!("export PATH=$PATH:{}\n", dir.display()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_names_its_images() {
        let yaml = "spec:\n  components:\n  - image: localhost:5001/hello:v1\n    name: a\n  - name: b\n    image: 'ghcr.io/x/y:1'\n";
        assert_eq!(sample_images(yaml), ["hello:v1"]);
    }
}
