//! The programs of a control plane, and the Kubernetes versions that are pinned here.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::install::{Program, installed};

const ETCD: Program = Program {
    name: "etcd",
    package: "go.etcd.io/etcd/server/v3",
};
const API_SERVER: Program = Program {
    name: "kube-apiserver",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
};
const CONTROLLER_MANAGER: Program = Program {
    name: "kube-controller-manager",
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
};
const KUBECTL: Program = Program {
    name: "kubectl",
    package: "k8s.io/kubernetes/cmd/kubectl",
};

const SCHEDULER: Program = Program {
    name: "kube-scheduler",
    package: "k8s.io/kubernetes/cmd/kube-scheduler",
};
const KUBELET: Program = Program {
    name: "kubelet",
    package: "k8s.io/kubernetes/cmd/kubelet",
};
const PROXY: Program = Program {
    name: "kube-proxy",
    package: "k8s.io/kubernetes/cmd/kube-proxy",
};
const HELM: Program = Program {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
};

/// A Kubernetes version that the tests can run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one of every run.
    V1_36,
    /// The oldest with what washlet needs: selectable fields of CRDs.
    V1_32,
}

impl Version {
    /// The version that `WASHLET_E2E_KUBERNETES` asks for.
    ///
    /// # Errors
    /// When it is none of those pinned here.
    pub fn wanted() -> Result<Self> {
        match std::env::var("WASHLET_E2E_KUBERNETES").as_deref() {
            Err(_) | Ok("" | "1.36") => Ok(Self::V1_36),
            Ok("1.32") => Ok(Self::V1_32),
            Ok(other) => bail!(
                "Kubernetes {other} is not pinned here; WASHLET_E2E_KUBERNETES is 1.36 or 1.32"
            ),
        }
    }
}

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) etcd: PathBuf,
    pub(super) api_server: PathBuf,
    pub(super) controller_manager: PathBuf,
    /// kubectl, of the newest version always.
    pub kubectl: PathBuf,
}

/// Builds the programs of a version, unless they are in the cache.
///
/// # Errors
/// As [`installed`].
pub fn install(version: Version) -> Result<Programs> {
    let newest = installed("cluster", &[ETCD, API_SERVER, CONTROLLER_MANAGER, KUBECTL])?;
    let kubernetes = match version {
        Version::V1_36 => newest.clone(),
        Version::V1_32 => installed("cluster-1.32", &[API_SERVER, CONTROLLER_MANAGER])?,
    };
    Ok(Programs {
        etcd: newest.program(ETCD.name),
        api_server: kubernetes.program(API_SERVER.name),
        controller_manager: kubernetes.program(CONTROLLER_MANAGER.name),
        kubectl: newest.program(KUBECTL.name),
    })
}

/// The programs of a node, and helm.
#[derive(Clone, Debug)]
pub struct NodePrograms {
    pub(crate) scheduler: PathBuf,
    pub(crate) kubelet: PathBuf,
    pub(crate) proxy: PathBuf,
    pub(crate) helm: PathBuf,
}

/// Builds the programs of a node and helm, of the newest version always, unless they are in the cache.
///
/// # Errors
/// As [`installed`].
pub fn install_node() -> Result<NodePrograms> {
    let built = installed("cluster", &[SCHEDULER, KUBELET, PROXY])?;
    Ok(NodePrograms {
        scheduler: built.program(SCHEDULER.name),
        kubelet: built.program(KUBELET.name),
        proxy: built.program(PROXY.name),
        helm: install_helm()?,
    })
}

/// Builds helm, unless it is in the cache.
///
/// # Errors
/// As [`installed`].
pub fn install_helm() -> Result<PathBuf> {
    Ok(installed("cluster", &[HELM])?.program(HELM.name))
}
