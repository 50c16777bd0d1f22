//! ConfigMaps and Secrets that a workload's configuration comes from, and the right to read them.

use anyhow::{Context as _, Result, ensure};
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, objects, with_namespace};

use super::{Failure, add, answers, heals_untouched, manifest, settled, warned, while_answering};
use crate::stage::{HEAL, START, Stage};

#[tokio::test]
async fn missing_configuration_is_named_until_it_is_there() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "config", "v1").await?;
        let named = |spec: &mut Value| {
            let mut entry = store_from_settings();
            entry["secretFrom"] = json!([{"name": "keys"}]);
            add(&mut spec["hostInterfaces"], entry);
        };
        ns.apply(manifest(&stage.agent, "hello", &image, named)?)
            .await?;
        let (map, secret) = (
            format!("ConfigMap {}/settings does not exist", ns.name()),
            format!("Secret {}/keys does not exist", ns.name()),
        );
        let at = "spec.hostInterfaces[1]";
        Failure {
            condition: "ConfigResolved",
            reason: "ReferenceNotFound",
            says: &[
                &format!("{at}.configFrom[0]"),
                &map,
                &format!("{at}.secretFrom[0]"),
                &secret,
                "create it",
            ],
        }
        .shown(ns, "hello")
        .await?;

        apply_config(ns, "settings", "from", "the map").await?;
        let still = eventually("only the Secret is missing", HEAL, async || {
            let ready = objects::condition(&ns.get("Workload", "hello").await?, "Ready");
            let message = ready.context("no Ready")?.message;
            Ok(if message.contains(&map) {
                Err(message)
            } else {
                Ok(message)
            })
        })
        .await?;
        ensure!(still.contains(&secret), "{still}");

        let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
            "stringData": {"key": "of the secret"}});
        ns.apply(keys).await?;
        heals_untouched(&stage.agent, ns, "hello").await?;
        let body = answers(&stage.agent, "hello.test", 200, HEAL).await?;
        ensure!(
            body.contains("from=the map") && body.contains("key=of the secret"),
            "{body}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn missing_variables_name_the_component() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "ambient", "v1").await?;
        let named = |spec: &mut Value| {
            let from = json!({"configFrom": [{"name": "settings"}]});
            spec["components"][0]["localResources"] = json!({"environment": from});
        };
        ns.apply(manifest(&stage.agent, "hello", &image, named)?)
            .await?;
        let map = format!("ConfigMap {}/settings does not exist", ns.name());
        let at = "spec.components[0].localResources.environment.configFrom[0]";
        Failure {
            condition: "ConfigResolved",
            reason: "ReferenceNotFound",
            says: &["component \"app\"", at, &map, "create it"],
        }
        .shown(ns, "hello")
        .await?;

        apply_config(ns, "settings", "COLOUR", "green").await?;
        heals_untouched(&stage.agent, ns, "hello").await?;
        let body = answers(&stage.agent, "hello.test", 200, HEAL).await?;
        ensure!(body.contains("COLOUR") && body.contains("green"), "{body}");
        Ok(())
    })
    .await
}

/// What runs keeps the last good configuration; what starts anew waits. The second workload is what makes the agent look.
#[tokio::test]
async fn configuration_that_goes_away_stops_nothing() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "config", "v1").await?;
        let named = |spec: &mut Value| {
            add(&mut spec["hostInterfaces"], store_from_settings());
        };
        let apply = async |name| ns.apply(manifest(&stage.agent, name, &image, named)?).await;
        apply_config(ns, "settings", "colour", "green").await?;
        apply("old").await?;
        heals_untouched(&stage.agent, ns, "old").await?;
        settled(ns, "old").await?;

        ns.delete("ConfigMap", "settings").await?;
        let map = format!("ConfigMap {}/settings does not exist", ns.name());
        while_answering(&stage.agent, "old.test", async {
            apply("new").await?;
            Failure {
                condition: "ConfigResolved",
                reason: "ReferenceNotFound",
                says: &[&map],
            }
            .shown(ns, "new")
            .await?;
            let old = ns.get("Workload", "old").await?;
            warned(ns, &old, "ReferenceNotFound", &[&map]).await?;
            still_ready(ns, "old", "ConfigResolved").await?;
            apply_config(ns, "settings", "colour", "blue").await?;
            heals_untouched(&stage.agent, ns, "new").await
        })
        .await?;
        // The rolled configuration arrives at the one that kept the last good one.
        eventually("the new configuration", HEAL, async || {
            let (_, body) = stage.agent.get("old.test", "/").await?;
            Ok(if body.contains("colour=blue") {
                Ok(())
            } else {
                Err(body)
            })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_names_verb_and_object() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("old", &image)).await?;
        heals_untouched(&stage.agent, ns, "old").await?;
        settled(ns, "old").await?;

        let allowed = forbid_secrets(ns).await?;
        let secret = format!("get Secret {}/login", ns.name());
        while_answering(&stage.agent, "old.test", async {
            ns.apply_yaml(&stage.workload("new", &image)).await?;
            Failure {
                condition: "ConfigResolved",
                reason: "Forbidden",
                says: &[
                    "component \"app\"",
                    "imagePullSecret",
                    &secret,
                    "allow it in the agent's Role",
                ],
            }
            .shown(ns, "new")
            .await?;
            still_ready(ns, "old", "ConfigResolved").await?;

            let mut role: DynamicObject = serde_json::from_value(allowed)?;
            role.metadata.managed_fields = None;
            role.metadata.resource_version = None;
            ns.api("ClusterRole")?
                .replace(&role.name_any(), &PostParams::default(), &role)
                .await?;
            heals_untouched(&stage.agent, ns, "new").await
        })
        .await
    })
    .await
}

/// An entry for `wasi:config` with the values of the ConfigMap `settings`.
fn store_from_settings() -> Value {
    json!({"namespace": "wasi", "package": "config", "interfaces": ["store"],
        "configFrom": [{"name": "settings"}]})
}

/// Takes the right to read Secrets and ConfigMaps from the agent, waits until that holds, and gives the role as it was.
async fn forbid_secrets(namespace: &TestNamespace) -> Result<Value> {
    let api = namespace.api("ClusterRole")?;
    // The harness makes the names of what it moves out of the namespace's.
    let name = format!("washlet-agent-references-{}", namespace.name());
    let role = api.get(&name).await.context("no role of the agent")?;
    let mut less = role.clone();
    less.data["rules"]
        .as_array_mut()
        .context("a role without rules")?
        .retain(|rule| rule["resources"] != json!(["secrets", "configmaps"]));
    ensure!(less.data != role.data, "{}", role.data);
    api.replace(&name, &PostParams::default(), &less).await?;
    let agent = agent_account(namespace).await?;
    eventually("the right is gone", START, async || {
        let may = namespace
            .kubectl(&["auth", "can-i", "get", "secrets", &agent])
            .await;
        // "no" is a failure of the command.
        Ok(may.map_or(Ok(()), Err))
    })
    .await?;
    Ok(serde_json::to_value(role)?)
}

/// The flag that makes kubectl ask as the agent.
async fn agent_account(namespace: &TestNamespace) -> Result<String> {
    let accounts = namespace.api("ServiceAccount")?;
    let accounts = accounts.list(&ListParams::default()).await?.items;
    let own = |account: &&DynamicObject| account.name_any() != "default";
    let account = accounts
        .iter()
        .find(own)
        .context("no account of the agent")?;
    let (namespace, name) = (namespace.name(), account.name_any());
    Ok(format!("--as=system:serviceaccount:{namespace}:{name}"))
}

/// Fails unless a workload is Ready though this condition is not True.
async fn still_ready(namespace: &TestNamespace, name: &str, condition: &str) -> Result<()> {
    let seen = |object: &DynamicObject| {
        let is = |kind| objects::condition(object, kind).map(|c| c.status);
        is("Ready").as_deref() == Some("True") && is(condition).as_deref() == Some("False")
    };
    namespace
        .wait_for("Workload", name, seen, HEAL)
        .await
        .map(drop)
}

async fn apply_config(namespace: &TestNamespace, name: &str, key: &str, value: &str) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: value}});
    namespace.apply(map).await.map(drop)
}
