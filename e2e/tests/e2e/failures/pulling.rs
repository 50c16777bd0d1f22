//! Pull secrets: wrong, missing, of both types, with several entries.

use anyhow::{Result, ensure};
use serde_json::json;
use washlet_e2e::{ALICE, BOB, TestNamespace, User, with_namespace};

use super::{Failure, heals_untouched, manifest, warned};
use crate::stage::{Stage, says};

const WRONG: User = User {
    password: "not-the-password",
    ..ALICE
};

#[tokio::test]
async fn a_wrong_password_is_unauthorized_until_the_secret_is_right() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let host = stage.registry.host();
        ns.apply_pull_secret("login", &host, WRONG).await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;

        let secret = format!("secret {}/login: 401", ns.name());
        let message = Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &[
                "component \"app\"",
                &image,
                &secret,
                "check user name, password",
            ],
        }
        .shown(ns, "hello")
        .await?;
        for text in [message, stage.agent.log()?] {
            ensure!(!text.contains(WRONG.password), "a password is shown");
        }

        let line = ns.kubectl(&["get", "ww", "hello"]).await?;
        says(&line, &["False", "Unauthorized", &image])?;
        let all = ns.kubectl(&["describe", "ww", "hello"]).await?;
        let warning = "Warning  Unauthorized";
        says(&all, &[warning, &secret, "check user name, password"])?;

        ns.apply_pull_secret("login", &host, ALICE).await?;
        heals_untouched(&stage.agent, ns, "hello").await?;
        let log = stage.agent.log()?;
        ensure!(!log.contains(ALICE.password), "a password is logged");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_opaque_secret_that_is_wrong_heals_too() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        apply_opaque(ns, "plain", json!({"username": ALICE.name, "pasword": "x"})).await?;
        let named = |spec: &mut serde_json::Value| {
            spec["components"][0]["imagePullSecret"]["name"] = json!("plain");
        };
        ns.apply(manifest(&stage.agent, "hello", &image, named)?)
            .await?;

        let secret = format!("secret {}/plain", ns.name());
        Failure {
            condition: "ImagesPulled",
            reason: "ReferenceNotFound",
            says: &[
                "component \"app\"",
                &image,
                &secret,
                "`username`",
                "`password`",
            ],
        }
        .shown(ns, "hello")
        .await?;

        let wrong = json!({"username": WRONG.name, "password": WRONG.password});
        apply_opaque(ns, "plain", wrong).await?;
        Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &[
                "component \"app\"",
                &image,
                &secret,
                "401",
                "check user name",
            ],
        }
        .shown(ns, "hello")
        .await?;

        let right = json!({"username": ALICE.name, "password": ALICE.password});
        apply_opaque(ns, "plain", right).await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn a_missing_pull_secret_is_named_until_it_is_there() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.delete("Secret", "login").await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;

        let secret = format!("secret {}/login", ns.name());
        Failure {
            condition: "ImagesPulled",
            reason: "ReferenceNotFound",
            says: &["component \"app\"", &image, &secret, "not found", "create"],
        }
        .shown(ns, "hello")
        .await?;
        let hello = ns.get("Workload", "hello").await?;
        warned(ns, &hello, "FailedToRetrieveImagePullSecret", &[&secret]).await?;

        let host = stage.registry.host();
        ns.apply_pull_secret("login", &host, ALICE).await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}

/// As with a Pod: one that is missing is a warning, and the pull goes on with the rest.
#[tokio::test]
async fn a_missing_secret_beside_a_good_one_is_only_a_warning() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let listed = |spec: &mut serde_json::Value| {
            spec["components"][0]["imagePullSecret"]["name"] = json!("nowhere");
            spec["imagePullSecrets"] = json!([{"name": "nowhere-either"}, {"name": "login"}]);
        };
        ns.apply(manifest(&stage.agent, "hello", &image, listed)?)
            .await?;

        heals_untouched(&stage.agent, ns, "hello").await?;
        let hello = ns.get("Workload", "hello").await?;
        let missing = ["nowhere-either", "nowhere: not found"];
        warned(ns, &hello, "FailedToRetrieveImagePullSecret", &missing).await
    })
    .await
}

#[tokio::test]
async fn credentials_are_chosen_by_registry_and_path_not_by_order() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let host = stage.registry.host();
        let entries = json!({"auths": {
            "a.example.com": {"username": "first", "password": "of-another-registry"},
            (host.clone()): {"username": WRONG.name, "password": WRONG.password},
            (format!("{host}/alice")): {"username": ALICE.name, "password": ALICE.password},
            (format!("{host}/bob")): {"username": BOB.name, "password": "of-another-path"},
        }});
        apply_entries(ns, "login", &entries).await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        heals_untouched(&stage.agent, ns, "hello").await?;

        // One that is for another path is not tried, and the message says for which it is.
        let entries = json!({"auths": {
            (format!("{host}/bob")): {"username": BOB.name, "password": BOB.password},
        }});
        apply_entries(ns, "bobs", &entries).await?;
        let other = stage.push(ns, "v2", "v2").await?;
        let bobs = |spec: &mut serde_json::Value| {
            spec["components"][0]["imagePullSecret"]["name"] = json!("bobs");
        };
        ns.apply(manifest(&stage.agent, "other", &other, bobs)?)
            .await?;
        let secret = format!("secret {}/bobs is for {host}/bob", ns.name());
        Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &[
                "component \"app\"",
                &other,
                "no pull secret is for this image",
                &secret,
            ],
        }
        .shown(ns, "other")
        .await?;

        ns.apply_pull_secret("bobs", &format!("{host}/alice"), ALICE)
            .await?;
        heals_untouched(&stage.agent, ns, "other").await
    })
    .await
}

#[tokio::test]
async fn a_service_account_brings_its_secrets_when_it_comes() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let by_account = |spec: &mut serde_json::Value| {
            spec["components"][0]["imagePullSecret"] = json!({});
            spec["serviceAccountName"] = json!("puller");
        };
        ns.apply(manifest(&stage.agent, "hello", &image, by_account)?)
            .await?;
        let account = format!("ServiceAccount {}/puller does not exist", ns.name());
        Failure {
            condition: "ConfigResolved",
            reason: "ReferenceNotFound",
            says: &["spec.serviceAccountName", &account, "create it"],
        }
        .shown(ns, "hello")
        .await?;

        let account = |secrets: serde_json::Value| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller"},
                "imagePullSecrets": secrets})
        };
        ns.apply(account(json!([]))).await?;
        Failure {
            condition: "ImagesPulled",
            reason: "Unauthorized",
            says: &["component \"app\"", &image, "names no pull secret"],
        }
        .shown(ns, "hello")
        .await?;

        ns.apply(account(json!([{"name": "login"}]))).await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}

/// Makes or replaces a secret of Kubernetes' own type.
async fn apply_entries(
    namespace: &TestNamespace,
    name: &str,
    entries: &serde_json::Value,
) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": entries.to_string()}});
    namespace.apply(secret).await.map(drop)
}

/// `data` and not `stringData`, so that a key that is not applied again goes.
async fn apply_opaque(
    namespace: &TestNamespace,
    name: &str,
    texts: serde_json::Value,
) -> Result<()> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let encoded = |value: &serde_json::Value| BASE64_STANDARD.encode(value.as_str().unwrap_or(""));
    let data: serde_json::Map<_, _> = texts
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), json!(encoded(value))))
        .collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "Opaque", "data": data});
    namespace.apply(secret).await.map(drop)
}
