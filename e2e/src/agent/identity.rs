//! Who an agent is to the API server: the shipped RBAC, and a token bound to a Pod or a Node as a kubelet would mount.

use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use serde_json::json;

use crate::{cluster::Cluster, objects};

/// Longer than a day of trying things out; an agent on a node has its token renewed.
const LIFETIME_SECONDS: i64 = 48 * 3600;

/// What an agent's token is bound to, and so which node the API server knows it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// A Pod on its node, as in a DaemonSet.
    #[default]
    Pod,
    /// Its Node.
    Node,
    /// Nothing: the API server does not know which node it is on.
    Unbound,
}

/// The ServiceAccount that an agent runs as.
pub(crate) struct Account<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Writes the kubeconfig of an agent on `node`, with a token of its own.
pub(crate) async fn write_kubeconfig(
    cluster: &Cluster,
    account: &Account<'_>,
    node: &str,
    identity: Identity,
    path: &Path,
) -> Result<()> {
    let client = cluster.client().await?;
    let bound = match identity {
        Identity::Pod => Some(("Pod", create_pod(&client, account, node).await?)),
        Identity::Node => {
            let node = objects::api(&client, "", "Node")?.get(node).await;
            Some(("Node", node.context("getting the agent's Node")?))
        }
        Identity::Unbound => None,
    };
    let bound = bound.map(|(kind, object)| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: object.metadata.name,
        uid: object.metadata.uid,
    });
    let token = request_token(client, account, bound).await?;
    let (server, ca) = cluster.server()?;
    crate::cluster::write_kubeconfig(path, &server, &ca, &token, account.namespace)
}

/// Creates a Node, without a kubelet, unless it is there; tells whether it did.
pub(crate) async fn ensure_node(client: &Client, node: &str) -> Result<bool> {
    if objects::api(client, "", "Node")?
        .get_opt(node)
        .await
        .context("looking for a Node")?
        .is_some()
    {
        return Ok(false);
    }
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": node, "labels": {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"},
    }});
    objects::apply(client, "", serde_json::from_value(object)?).await?;
    Ok(true)
}

/// A Pod that nobody runs: the API server only looks at its node.
async fn create_pod(client: &Client, account: &Account<'_>, node: &str) -> Result<DynamicObject> {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("agent-{node}")}, "spec": {
        "nodeName": node, "serviceAccountName": account.name, "automountServiceAccountToken": false,
        "containers": [{"name": "agent", "image": "localhost/washlet:dev"}],
    }});
    objects::apply(client, account.namespace, serde_json::from_value(object)?).await
}

async fn request_token(
    client: Client,
    account: &Account<'_>,
    bound: Option<BoundObjectReference>,
) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, account.namespace);
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: bound,
        expiration_seconds: Some(LIFETIME_SECONDS),
    };
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account.name, &PostParams::default(), &request)
        .await;
    let answer = answer
        .with_context(|| format!("asking for a token of the ServiceAccount {}", account.name))?;
    match answer.status {
        Some(status) => Ok(status.token),
        None => bail!("a token request without a status"),
    }
}
