//! Kubeconfig files: written for users with a bearer token, read for the address of the API server.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use kube::config::Kubeconfig;
use serde_json::json;

/// Writes a kubeconfig with one user; `namespace` is its default.
///
/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, server: &str, ca_pem: &[u8], token: &str, namespace: &str) -> Result<()> {
    // JSON is YAML, and needs no rules about quoting.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "washlet-e2e", "cluster": {
            "server": server,
            "certificate-authority-data": BASE64_STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "washlet-e2e", "context": {
            "cluster": "washlet-e2e", "user": "user", "namespace": namespace,
        }}],
        "current-context": "washlet-e2e",
    });
    let text = serde_json::to_string_pretty(&config).context("writing a kubeconfig")?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The server of the current context and its certificate authority.
pub(super) fn server(path: &Path) -> Result<(String, Vec<u8>)> {
    let file = Kubeconfig::read_from(path).context("reading the kubeconfig")?;
    let current = file.current_context.as_deref();
    let context = file
        .contexts
        .iter()
        .find(|context| Some(context.name.as_str()) == current);
    let name = context
        .and_then(|context| context.context.as_ref())
        .map(|context| context.cluster.as_str());
    let cluster = file
        .clusters
        .iter()
        .find(|cluster| Some(cluster.name.as_str()) == name);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster.as_ref())
        .context("the kubeconfig names no cluster")?;
    let server = cluster
        .server
        .clone()
        .context("the kubeconfig names no server")?;
    let ca = match (
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
    ) {
        (Some(data), _) => BASE64_STANDARD
            .decode(data)
            .context("certificate-authority-data")?,
        (None, Some(path)) => fs::read(path).with_context(|| format!("reading {path}"))?,
        (None, None) => bail!("the kubeconfig has no certificate authority"),
    };
    Ok((server, ca))
}
