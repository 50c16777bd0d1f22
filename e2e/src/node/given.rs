//! A cluster that runs already, with nodes of its own: kind's, as `e2e/kind` sets it up.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, Result};

use super::NodeCluster;
use crate::{
    Registry,
    cluster::{self, Cluster},
    run_dir,
};

/// An address of this machine that the pods of that cluster reach.
const REGISTRY_ADDRESS: &str = "WASHLET_E2E_REGISTRY_ADDRESS";

impl NodeCluster {
    /// The cluster of this kubeconfig. The image is on its nodes already.
    pub(super) async fn given(kubeconfig: PathBuf) -> Result<Self> {
        let address = std::env::var(REGISTRY_ADDRESS).with_context(|| {
            format!(
                "KUBECONFIG={}: {REGISTRY_ADDRESS} has to name an address of this machine that pods reach; \
                 e2e/kind/run does all of this",
                kubeconfig.display()
            )
        })?;
        let address: IpAddr = address
            .parse()
            .with_context(|| format!("{REGISTRY_ADDRESS}={address}"))?;
        Ok(Self {
            own: None,
            cluster: Cluster::given(kubeconfig)?,
            registry: Registry::htpasswd_at(address).await?,
            helm: cluster::install_helm()?,
            scratch: run_dir::subdir("helm")?,
        })
    }
}
