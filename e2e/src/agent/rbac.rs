//! The RBAC that the project ships, `manifests/rbac.yaml`, as it is or moved to a test's namespace.

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::{objects, repository};

/// The shipped manifest.
pub(crate) struct Rbac {
    /// The namespace that it is for.
    pub namespace: String,
    /// The name of the agent's ServiceAccount.
    pub account: String,
    documents: Vec<Value>,
}

// === impl Rbac ===

impl Rbac {
    /// As shipped.
    pub(crate) fn shipped() -> Result<Self> {
        Self::parse(&read()?)
    }

    /// As if it had been written for this namespace.
    ///
    /// What is in no namespace gets its name from it, so that tests side by side have rights of their own.
    pub(crate) fn moved_to(namespace: &str) -> Result<Self> {
        move_to(&read()?, namespace)
    }

    /// Applies it; gives the objects that are in no namespace, as `kind/name`.
    pub(crate) async fn apply(&self, client: &Client) -> Result<Vec<String>> {
        let mut outside = Vec::new();
        for document in &self.documents {
            let object: DynamicObject =
                serde_json::from_value(document.clone()).context("an object of rbac.yaml")?;
            let applied = objects::apply(client, &self.namespace, object).await?;
            if let (None, Some(types)) = (&applied.metadata.namespace, applied.types) {
                let group = types
                    .api_version
                    .split_once('/')
                    .map(|(group, _)| format!(".{group}"))
                    .unwrap_or_default();
                outside.push(format!(
                    "{}{group}/{}",
                    types.kind,
                    applied.metadata.name.unwrap_or_default()
                ));
            }
        }
        Ok(outside)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut documents: Vec<Value> =
            serde_saphyr::from_multiple(text).context("reading rbac.yaml")?;
        documents.retain(|document| !document.is_null());
        let account = documents
            .iter()
            .find(|document| kind(document) == "ServiceAccount");
        let account = account.context("no ServiceAccount in rbac.yaml")?;
        let name = text_at(account, "/metadata/name")
            .context("a ServiceAccount without a name")?
            .to_owned();
        let namespace = text_at(account, "/metadata/namespace")
            .context("the ServiceAccount names no namespace")?;
        Ok(Self {
            namespace: namespace.to_owned(),
            account: name,
            documents,
        })
    }
}

fn read() -> Result<String> {
    let path = repository().join("manifests/rbac.yaml");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn move_to(text: &str, namespace: &str) -> Result<Rbac> {
    // As text, for expressions and user names have the namespace inside.
    let mut rbac = Rbac::parse(&text.replace(&Rbac::parse(text)?.namespace, namespace))?;
    rbac.documents
        .retain(|document| kind(document) != "Namespace");
    for document in &mut rbac.documents {
        let own = match kind(document) {
            "ClusterRole"
            | "ClusterRoleBinding"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding" => true,
            "Role" | "RoleBinding" | "ServiceAccount" => false,
            other => bail!(
                "the harness does not know how to move a {other} of rbac.yaml to another namespace"
            ),
        };
        let role = text_at(document, "/roleRef/kind") == Some("ClusterRole");
        for (renamed, pointer) in [
            (own, "/metadata/name"),
            (role, "/roleRef/name"),
            (own, "/spec/policyName"),
        ] {
            if let (true, Some(Value::String(name))) = (renamed, document.pointer_mut(pointer)) {
                name.push_str(&format!("-{namespace}"));
            }
        }
    }
    Ok(rbac)
}

fn kind(document: &Value) -> &str {
    text_at(document, "/kind").unwrap_or_default()
}

fn text_at<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    document.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rbac_moves_to_a_namespace_with_names_of_its_own() {
        let text = "kind: Namespace\nmetadata: {name: washlet-system}\n---\n\
            kind: ServiceAccount\nmetadata: {name: agent, namespace: washlet-system}\n---\n\
            kind: ClusterRoleBinding\nmetadata: {name: agent}\nroleRef: {kind: ClusterRole, name: agent}\n\
            subjects: [{kind: ServiceAccount, name: agent, namespace: washlet-system}]\n---\n\
            kind: RoleBinding\nmetadata: {name: agent, namespace: washlet-system}\nroleRef: {kind: Role, name: agent}\n";
        let rbac = move_to(text, "test").unwrap();
        assert_eq!(
            (rbac.account.as_str(), rbac.namespace.as_str()),
            ("agent", "test")
        );
        assert_eq!(rbac.documents.len(), 3);
        let binding = &rbac.documents[1];
        assert_eq!(text_at(binding, "/metadata/name"), Some("agent-test"));
        assert_eq!(text_at(binding, "/roleRef/name"), Some("agent-test"));
        assert_eq!(text_at(binding, "/subjects/0/namespace"), Some("test"));
        assert_eq!(text_at(&rbac.documents[2], "/roleRef/name"), Some("agent"));
    }
}
