//! A client with an agent's rights and token, for a test that tries what a stolen token can do.

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Account, Identity, ensure_node, identity::write_kubeconfig, rbac::Rbac};
use crate::{namespace::TestNamespace, run_dir, tls};

/// The client that an agent on `node` would be, with the rights that the project ships moved to the test's namespace.
///
/// The Node is made if it is not there.
///
/// # Errors
/// When the rights or the token can't be had.
pub async fn client(namespace: &TestNamespace, node: &str, identity: Identity) -> Result<Client> {
    if ensure_node(namespace.client(), node).await? {
        namespace.remove_too(format!("node/{node}"));
    }
    let rbac = Rbac::moved_to(namespace.name())?;
    let outside = rbac.apply(namespace.client()).await?;
    outside
        .into_iter()
        .for_each(|object| namespace.remove_too(object));
    let account = Account {
        namespace: namespace.name(),
        name: &rbac.account,
    };
    let kubeconfig = run_dir::subdir(&format!("client-{node}"))?.join("kubeconfig");
    write_kubeconfig(namespace.cluster(), &account, node, identity, &kubeconfig).await?;
    tls::use_ring();
    let file = Kubeconfig::read_from(&kubeconfig).context("reading the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.context("using the kubeconfig")?).context("making a client")
}
