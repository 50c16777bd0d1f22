//! The API server, as the command line or the pod says where it is.

use std::{path::Path, time::Duration};

use kube::{Client, config::KubeConfigOptions};

/// Longest time for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// There is no usable way to the API server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The pod's service account cannot be used.
    #[error("no --kubeconfig is given, and this is no pod with a service account: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// No client can be made of the configuration.
    #[error("no Kubernetes client can be made of the configuration: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A client, and the namespace that its configuration names. The API server need not answer yet.
///
/// # Errors
/// [`ClientError`], naming the flag.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<(Client, String), ClientError> {
    // Two TLS libraries' worth of defaults are compiled in nowhere: this is the only one. An error means it is set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| ClientError::Client(Box::new(error)))?;
    Ok((client, namespace))
}
