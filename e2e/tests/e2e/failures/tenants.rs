//! Two users with a private repository each, on a registry that hands out tokens by repository: nobody gets another's image,
//! not even when it is on the node already.

use anyhow::Result;
use serde_json::{Value, json};
use washlet_e2e::{ALICE, Agent, Artifact, BOB, Registry, TestNamespace, with_namespace};

use super::{Failure, heals, heals_untouched, manifest};
use crate::stage::{guest, start_agent};

/// A registry with an image of alice's and one of bob's; an agent; the secrets `alice` and `bob`.
struct Tenants {
    registry: Registry,
    agent: Agent,
}

impl Tenants {
    async fn new(namespace: &TestNamespace) -> Result<Self> {
        let registry = Registry::token().await?;
        for (user, name) in [(ALICE, "v1"), (BOB, "v2")] {
            let repository = format!("{}/private", user.name);
            let artifact = Artifact::wasm(&guest(name)?);
            registry.push(&repository, "v1", &artifact).await?;
            namespace
                .apply_pull_secret(user.name, &registry.host(), user)
                .await?;
        }
        let agent = start_agent(namespace, &registry).await?;
        Ok(Self { registry, agent })
    }

    /// A workload with the image of one and the secret of another.
    fn workload(&self, name: &str, of: &str, secret: &str, policy: &str) -> Result<Value> {
        let image = self.image(of);
        manifest(&self.agent, name, &image, |spec| {
            spec["components"][0]["imagePullSecret"]["name"] = json!(secret);
            spec["components"][0]["imagePullPolicy"] = json!(policy);
        })
    }

    fn image(&self, of: &str) -> String {
        self.registry.image(&format!("{of}/private"), "v1")
    }
}

#[tokio::test]
async fn each_user_gets_their_own_and_nobody_anothers() -> Result<()> {
    with_namespace(async |ns| {
        let tenants = Tenants::new(ns).await?;
        let image = tenants.image("alice");
        let secret = format!("secret {}/bob", ns.name());
        let refused = Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &[
                "component \"app\"",
                &image,
                &secret,
                "rights in these secrets",
            ],
        };
        // Before it is on the node, and after.
        ns.apply(tenants.workload("thief", "alice", "bob", "IfNotPresent")?)
            .await?;
        refused.shown(ns, "thief").await?;
        ns.apply(tenants.workload("alices", "alice", "alice", "IfNotPresent")?)
            .await?;
        ns.apply(tenants.workload("bobs", "bob", "bob", "IfNotPresent")?)
            .await?;
        heals_untouched(&tenants.agent, ns, "alices").await?;
        heals_untouched(&tenants.agent, ns, "bobs").await?;
        refused.shown(ns, "thief").await?;
        for (name, policy) in [("late-thief", "IfNotPresent"), ("keen-thief", "Always")] {
            ns.apply(tenants.workload(name, "alice", "bob", policy)?)
                .await?;
            refused.shown(ns, name).await?;
        }
        ns.apply(tenants.workload("quiet-thief", "alice", "bob", "Never")?)
            .await?;
        Failure {
            condition: "ImagesPulled",
            reason: "ErrImageNeverPull",
            says: &["component \"app\"", &image, "no credential of the workload"],
        }
        .shown(ns, "quiet-thief")
        .await?;

        // With the right secret, a thief is none: no registry is needed for what is here and proven.
        ns.apply(tenants.workload("quiet-thief", "alice", "alice", "Never")?)
            .await?;
        heals(&tenants.agent, ns, "quiet-thief").await?;
        ns.apply_pull_secret("bob", &tenants.registry.host(), ALICE)
            .await?;
        heals_untouched(&tenants.agent, ns, "thief").await?;
        heals_untouched(&tenants.agent, ns, "late-thief").await
    })
    .await
}

/// A stranger is told that a secret is missing, not given what the owner pulled.
#[tokio::test]
async fn a_stranger_gets_nothing_that_is_on_the_node() -> Result<()> {
    with_namespace(async |ns| {
        let tenants = Tenants::new(ns).await?;
        ns.apply(tenants.workload("alices", "alice", "alice", "IfNotPresent")?)
            .await?;
        heals_untouched(&tenants.agent, ns, "alices").await?;
        let image = tenants.image("alice");
        let bare = |spec: &mut Value| {
            if let Some(component) = spec["components"][0].as_object_mut() {
                component.remove("imagePullSecret");
            }
        };
        ns.apply(manifest(&tenants.agent, "stranger", &image, bare)?)
            .await?;
        Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &[
                "component \"app\"",
                &image,
                "names no pull secret",
                "`imagePullSecret`",
            ],
        }
        .shown(ns, "stranger")
        .await?;
        ns.apply(tenants.workload("stranger", "alice", "alice", "IfNotPresent")?)
            .await?;
        heals(&tenants.agent, ns, "stranger").await
    })
    .await
}

/// One workload, one secret with an entry for each path, a component from each repository: a token for one is not used for
/// the other.
#[tokio::test]
async fn one_secret_opens_two_private_repositories() -> Result<()> {
    with_namespace(async |ns| {
        let tenants = Tenants::new(ns).await?;
        let host = tenants.registry.host();
        let entries = json!({"auths": {
            (format!("{host}/alice")): {"username": ALICE.name, "password": ALICE.password},
            (format!("{host}/bob")): {"username": BOB.name, "password": BOB.password},
        }});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "both"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": entries.to_string()}});
        ns.apply(secret).await?;
        for of in ["alice", "bob"] {
            ns.apply(tenants.workload(of, of, "both", "IfNotPresent")?)
                .await?;
        }
        heals_untouched(&tenants.agent, ns, "alice").await?;
        heals_untouched(&tenants.agent, ns, "bob").await
    })
    .await
}
