//! The harness of the end-to-end tests: everything real that a test talks to, and nothing of the product.
//!
//! ```text
//! ControlPlane ── etcd, kube-apiserver, kube-controller-manager   (built from a pinned go.mod)
//!   └─ Cluster ── kubeconfig, client, kubectl                     (or the cluster that KUBECONFIG names)
//!        └─ TestNamespace ── objects, waiting, events             (one a test)
//!             └─ Agent ── `washlet agent` under the shipped RBAC
//! NodeCluster ── a control plane, kubelet, containerd, kube-proxy, helm  (in namespaces of the kernel's of their own)
//! Registry ── distribution's registry over TLS, by password or by token
//! ```
//!
//! Every server listens on loopback only, every wait has a limit, and no process outlives the one that started it.
//! What the environment decides:
//!
//! | variable | meaning |
//! |---|---|
//! | `WASHLET_CACHE` | where built programs are kept; else `washlet` in the user's cache directory |
//! | `WASHLET_BIN` | the binary under test; else the one beside the test's own |
//! | `WASHLET_E2E_KUBERNETES` | `1.36` (default) or `1.32` |
//! | `WASHLET_E2E_KEEP` | set: namespaces of failed tests stay |
//! | `KUBECONFIG` | a cluster to use in place of one started here; its administrator's rights are needed |
//! | `KUBECTL` | the kubectl for that cluster, so that Go is not needed for one |
//! | `WASHLET_E2E_REGISTRY_ADDRESS` | for real-node tests on that cluster: an address of this machine that its pods reach |
//!
//! A test returns an error or panics; run by [`with_namespace`], both print the namespace's objects and the agents' logs,
//! and leave the logs of all servers in a folder that is named. This crate drives the product through its binary and the Kubernetes API; it does not link the library.

pub mod agent;
pub mod bench;
pub mod cache;
pub mod chart;
pub mod cluster;
pub mod controller;
pub mod install;
pub mod languages;
pub mod namespace;
pub mod node;
pub mod objects;
pub mod playground;
pub mod ports;
pub mod process;
pub mod random;
pub mod registry;
pub mod run_dir;
pub mod tasks;
pub mod tls;
pub mod wait;

pub use agent::{Agent, AgentOptions, Identity};
pub use cluster::{Cluster, ControlPlane};
pub use controller::{Controller, ControllerOptions};
pub use languages::Language;
pub use namespace::{TestNamespace, with_namespace};
pub use node::{NodeCluster, with_node_cluster};
pub use registry::{ALICE, Artifact, BOB, Registry, User};
pub use wait::eventually;

use std::path::{Path, PathBuf};

/// The root of the repository that this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
