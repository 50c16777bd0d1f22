//! The rights that the project ships, in `manifests/install.yaml`: as they are, or moved to a test's namespace.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kube::{Client, api::DynamicObject};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{objects, repository};

/// The manifest is for this namespace, and its names begin with the same word.
const SHIPPED: &str = "washlet";
/// What is in no namespace, so that a moved one needs a name of its own.
const OUTSIDE: [&str; 4] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];
const INSIDE: [&str; 3] = ["Role", "RoleBinding", "ServiceAccount"];

/// The rights of one ServiceAccount.
pub(crate) struct Rbac {
    /// The namespace that they are for.
    pub namespace: String,
    /// The name of the ServiceAccount.
    pub account: String,
    documents: Vec<Value>,
}

// === impl Rbac ===

impl Rbac {
    /// The agents', as shipped.
    pub(crate) fn shipped() -> Result<Self> {
        Self::parse(&read()?, "agent")
    }

    /// The agents', as if the manifest had been written for this namespace.
    ///
    /// What is in no namespace gets its name from it, so that tests side by side have rights of their own.
    pub(crate) fn moved_to(namespace: &str) -> Result<Self> {
        Ok(Self::shipped()?.moved(namespace))
    }

    /// The agents' or controllers' of a manifest that is for this namespace already.
    pub(crate) fn given(namespace: &str, manifest: &str, component: &str) -> Result<Self> {
        Ok(Self {
            namespace: namespace.to_owned(),
            ..Self::parse(manifest, component)?
        })
    }

    /// As [`Rbac::moved_to`], the controllers'.
    pub(crate) fn controller_moved_to(namespace: &str) -> Result<Self> {
        Ok(Self::parse(&read()?, "controller")?.moved(namespace))
    }

    /// Applies them; gives the objects that are in no namespace, as `kind/name`.
    pub(crate) async fn apply(&self, client: &Client) -> Result<Vec<String>> {
        // Side by side: every test begins with this.
        let mut applying = JoinSet::new();
        let namespace: Arc<str> = self.namespace.as_str().into();
        for document in &self.documents {
            let object: DynamicObject =
                serde_json::from_value(document.clone()).context("an object of install.yaml")?;
            let (client, namespace) = (client.clone(), Arc::clone(&namespace));
            applying.spawn(async move { objects::apply(&client, &namespace, object).await });
        }
        let mut outside = Vec::new();
        while let Some(applied) = applying.join_next().await {
            let applied = applied.context("applying rights")??;
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

    /// Finds the rights of the ServiceAccount `washlet-COMPONENT` by their names, which begin with its.
    fn parse(manifest: &str, component: &str) -> Result<Self> {
        let account = format!("{SHIPPED}-{component}");
        let mut documents = Vec::new();
        for text in manifest.split("\n---") {
            let kind = text.lines().find_map(|line| line.strip_prefix("kind: "));
            // CRDs are large, and of no interest here.
            if !kind.is_some_and(|kind| OUTSIDE.contains(&kind) || INSIDE.contains(&kind)) {
                continue;
            }
            let document: Value = serde_saphyr::from_str(text).context("reading install.yaml")?;
            if text_at(&document, "/metadata/name").is_some_and(|name| name.starts_with(&account)) {
                documents.push(document);
            }
        }
        let is_account = |document: &Value| kind(document) == "ServiceAccount";
        if !documents.iter().any(is_account) {
            bail!("no ServiceAccount {account} in install.yaml: `cargo xtask generate` writes it");
        }
        Ok(Self {
            namespace: SHIPPED.to_owned(),
            account,
            documents,
        })
    }

    fn moved(mut self, namespace: &str) -> Self {
        for document in &mut self.documents {
            let outside = OUTSIDE.contains(&kind(document));
            let bound_outside = text_at(document, "/roleRef/kind") == Some("ClusterRole");
            for (renamed, pointer) in [
                (outside, "/metadata/name"),
                (bound_outside, "/roleRef/name"),
                (outside, "/spec/policyName"),
            ] {
                if let (true, Some(Value::String(name))) = (renamed, document.pointer_mut(pointer))
                {
                    name.push_str(&format!("-{namespace}"));
                }
            }
            rewrite(document, namespace);
        }
        namespace.clone_into(&mut self.namespace);
        self
    }
}

/// Puts another namespace wherever the shipped one is named: in fields, in user names, and in expressions.
fn rewrite(value: &mut Value, namespace: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "namespace" => namespace.clone_into(text),
                    value => rewrite(value, namespace),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|v| rewrite(v, namespace)),
        Value::String(text) => {
            *text = text
                .replace(
                    &format!(":serviceaccount:{SHIPPED}:"),
                    &format!(":serviceaccount:{namespace}:"),
                )
                .replace(&format!("'{SHIPPED}'"), &format!("'{namespace}'"));
        }
        _ => {}
    }
}

fn read() -> Result<String> {
    let path = repository().join("manifests/install.yaml");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
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

    const MANIFEST: &str = "kind: Namespace\nmetadata: {name: washlet}\n---\n\
        kind: ServiceAccount\nmetadata: {name: washlet-agent, namespace: washlet}\n---\n\
        kind: ServiceAccount\nmetadata: {name: washlet-controller, namespace: washlet}\n---\n\
        kind: ClusterRoleBinding\nmetadata: {name: washlet-agent}\nroleRef: {kind: ClusterRole, name: washlet-agent}\n\
        subjects: [{kind: ServiceAccount, name: washlet-agent, namespace: washlet}]\n---\n\
        kind: RoleBinding\nmetadata: {name: washlet-agent, namespace: washlet}\nroleRef: {kind: Role, name: washlet-agent}\n---\n\
        kind: ValidatingAdmissionPolicy\nmetadata: {name: washlet-agent-x}\n\
        spec: {a: \"user == 'system:serviceaccount:washlet:washlet-agent' && ns == 'washlet'\"}\n---\n\
        kind: ValidatingAdmissionPolicyBinding\nmetadata: {name: washlet-agent-x}\nspec: {policyName: washlet-agent-x}\n";

    #[test]
    fn the_shipped_rights_move_to_a_namespace_with_names_of_their_own() {
        let rbac = Rbac::parse(MANIFEST, "agent").unwrap().moved("test");
        assert_eq!(
            (rbac.account.as_str(), rbac.namespace.as_str()),
            ("washlet-agent", "test")
        );
        assert_eq!(rbac.documents.len(), 5);
        let at = |index: usize, pointer| text_at(&rbac.documents[index], pointer);
        assert_eq!(at(0, "/metadata/namespace"), Some("test"));
        assert_eq!(at(1, "/metadata/name"), Some("washlet-agent-test"));
        assert_eq!(at(1, "/roleRef/name"), Some("washlet-agent-test"));
        assert_eq!(at(1, "/subjects/0/namespace"), Some("test"));
        assert_eq!(at(2, "/roleRef/name"), Some("washlet-agent"));
        assert_eq!(
            at(3, "/spec/a"),
            Some("user == 'system:serviceaccount:test:washlet-agent' && ns == 'test'")
        );
        assert_eq!(at(4, "/spec/policyName"), Some("washlet-agent-x-test"));
    }

    #[test]
    fn an_account_that_is_not_shipped_is_an_error() {
        assert!(Rbac::parse(MANIFEST, "nobody").is_err());
    }
}
