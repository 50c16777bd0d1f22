//! Replica sets and deployments: numbers kept, templates rolled out, failures told, owners respected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use washlet_e2e::{Controller, TestNamespace, eventually, with_namespace};

use super::{Fleet, spec};
use crate::stage::{HEAL, START, says};

fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "WorkloadDeployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "template": { "labels": { "app": name }, "spec": spec(image, &format!("{name}.test")) },
        },
    })
}

/// The names of the Workloads that are there, with their image's tag and whether they are Ready.
async fn workloads(ns: &TestNamespace) -> Result<Vec<(String, String, bool)>> {
    let text = ns.kubectl(&["get", "workloads", "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let of = |item: &Value| {
        let image = item["spec"]["components"][0]["image"]
            .as_str()
            .unwrap_or_default();
        let conditions = item["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        let tag = image.rsplit(':').next().unwrap_or_default().to_owned();
        (
            item["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            tag,
            ready,
        )
    };
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(of)
        .collect())
}

async fn wait_workloads(ns: &TestNamespace, count: usize, tag: &str) -> Result<Vec<String>> {
    eventually(&format!("{count} Workloads of {tag}"), START, async || {
        let all = workloads(ns).await?;
        let right = all.len() == count && all.iter().all(|(_, is, ready)| is == tag && *ready);
        Ok(if right {
            Ok(all.into_iter().map(|(name, ..)| name).collect())
        } else {
            Err(all)
        })
    })
    .await
}

async fn complete(ns: &TestNamespace, name: &str) -> Result<DynamicObject> {
    let done = |object: &DynamicObject| {
        let status = &object.data["status"];
        status["observedGeneration"].as_i64() == object.metadata.generation
            && status["updatedReplicas"] == object.data["spec"]["replicas"]
            && status["availableReplicas"] == object.data["spec"]["replicas"]
            && status["currentReplicas"] == object.data["spec"]["replicas"]
            && super::is_ready(object)
    };
    ns.wait_for("WorkloadDeployment", name, done, START).await
}

#[tokio::test]
async fn a_deployment_keeps_its_number_is_scaled_and_rolled_out_and_back() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 3).await?;
        let (v1, v2) = (fleet.push(ns, "v1", "v1").await?, fleet.push(ns, "v2", "v2").await?);
        ns.apply(deployment("web", &v1, 3)).await?;
        let first = wait_workloads(ns, 3, "v1").await?;
        complete(ns, "web").await?;

        let deleted = ns.get("Workload", &first[0]).await?.metadata.uid.context("a uid")?;
        ns.delete("Workload", &first[0]).await?;
        eventually("another one takes its place", START, async || {
            wait_workloads(ns, 3, "v1").await?;
            let uids = ns.kubectl(&["get", "ww", "-o", "jsonpath={.items[*].metadata.uid}"]).await?;
            Ok(if uids.contains(&deleted) { Err(uids) } else { Ok(()) })
        })
        .await?;

        ns.kubectl(&["scale", "wd/web", "--replicas=5"]).await?;
        wait_workloads(ns, 5, "v1").await?;
        ns.kubectl(&["scale", "wd/web", "--replicas=2"]).await?;
        wait_workloads(ns, 2, "v1").await?;
        complete(ns, "web").await?;
        let scale = ns.kubectl(&["get", "wd/web", "--subresource=scale", "-o", "json"]).await?;
        let scale: Value = serde_json::from_str(&scale)?;
        ensure!(scale["status"]["replicas"] == 2, "{scale}");
        ensure!(scale["status"]["selector"].as_str().is_some_and(|s| !s.is_empty()), "{scale}");

        ns.apply(deployment("web", &v2, 2)).await?;
        wait_workloads(ns, 2, "v2").await?;
        complete(ns, "web").await?;
        let sets = ns.kubectl(&["get", "wrs", "-o", "name"]).await?;
        ensure!(sets.lines().count() == 2, "the former revision is kept: {sets}");

        // Back, by giving it the former template again: no new revision is made of what was there before.
        ns.apply(deployment("web", &v1, 2)).await?;
        wait_workloads(ns, 2, "v1").await?;
        complete(ns, "web").await?;
        let sets = ns.kubectl(&["get", "wrs", "-o", "name"]).await?;
        ensure!(sets.lines().count() == 2, "{sets}");

        // A restart is a change of the template.
        let before = wait_workloads(ns, 2, "v1").await?;
        let restart = json!({ "spec": { "template": { "annotations": { "kubectl.kubernetes.io/restartedAt": "now" } } } });
        ns.kubectl(&["patch", "wd/web", "--type=merge", "-p", &restart.to_string()]).await?;
        eventually("all are new", START, async || {
            let now = wait_workloads(ns, 2, "v1").await?;
            Ok(if now.iter().any(|name| before.contains(name)) { Err(now) } else { Ok(()) })
        })
        .await?;

        // What it made goes with it, by the garbage collector.
        ns.delete("WorkloadDeployment", "web").await?;
        eventually("nothing is left", START, async || {
            let left = workloads(ns).await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_revision_that_never_becomes_ready_leaves_the_old_one_serving_and_says_why() -> Result<()>
{
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 2).await?;
        let v1 = fleet.push(ns, "v1", "v1").await?;
        ns.apply(deployment("web", &v1, 2)).await?;
        wait_workloads(ns, 2, "v1").await?;
        complete(ns, "web").await?;

        let mut broken = deployment("web", &v1.replace(":v1", ":nope"), 2);
        broken["spec"]["progressDeadlineSeconds"] = json!(5);
        ns.apply(broken).await?;
        let of = ("WorkloadDeployment", "web");
        ns.wait_for_condition(
            of,
            ("Progressing", "False"),
            Some("ProgressDeadlineExceeded"),
            START,
        )
        .await?;
        let stalled = ns
            .wait_for_condition(of, ("Stalled", "True"), None, HEAL)
            .await?;
        says(&stalled.message, &["ImageNotFound", "nope"])?;
        ns.wait_for_condition(of, ("Available", "True"), None, HEAL)
            .await?;
        for agent in &mut fleet.agents {
            let (status, body) = agent.get("web.test", "/").await?;
            ensure!(status == 200 && body.contains("v1"), "{status}: {body}");
        }
        ns.apply(deployment("web", &v1, 2)).await?;
        complete(ns, "web").await?;
        wait_workloads(ns, 2, "v1").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_controller_that_dies_in_the_middle_of_a_rollout_is_followed_by_one_that_goes_on()
-> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 2).await?;
        let (v1, v2) = (
            fleet.push(ns, "v1", "v1").await?,
            fleet.push(ns, "v2", "v2").await?,
        );
        ns.apply(deployment("web", &v1, 6)).await?;
        wait_workloads(ns, 6, "v1").await?;
        let mut second = Controller::start(ns).await?;
        ns.apply(deployment("web", &v2, 6)).await?;
        eventually("the rollout has begun", HEAL, async || {
            let all = workloads(ns).await?;
            Ok(if all.iter().any(|(_, tag, _)| tag == "v2") {
                Ok(())
            } else {
                Err(all)
            })
        })
        .await?;
        fleet.controller.kill9();
        second.wait_leading(Duration::from_secs(30)).await?;
        wait_workloads(ns, 6, "v2").await?;
        complete(ns, "web").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn orphans_are_adopted_and_strangers_released() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 1).await?;
        let v1 = fleet.push(ns, "v1", "v1").await?;
        ns.apply(deployment("web", &v1, 2)).await?;
        let names = wait_workloads(ns, 2, "v1").await?;
        super::wait_collected(ns).await?;
        let set = ns.kubectl(&["get", "wrs", "-o", "name"]).await?;

        // Deleted without what it owns, and made again: the new set takes over what is there.
        ns.kubectl(&["delete", "wd/web", "--cascade=orphan"])
            .await?;
        ns.kubectl(&["delete", set.trim(), "--cascade=orphan"])
            .await?;
        ns.apply(deployment("web", &v1, 2)).await?;
        complete(ns, "web").await?;
        let adopted = wait_workloads(ns, 2, "v1").await?;
        ensure!(adopted == names, "{adopted:?} in place of {names:?}");

        // One whose labels no longer match is let go, goes on, and is replaced.
        ns.kubectl(&["label", "ww", &names[0], "washlet.dev/replica-set-"])
            .await?;
        wait_workloads(ns, 3, "v1").await?;
        let released = ns.get("Workload", &names[0]).await?;
        ensure!(
            released
                .metadata
                .owner_references
                .is_none_or(|owners| owners.is_empty())
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_artifact_is_the_image_of_a_deployment_and_a_new_one_is_rolled_out() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 1).await?;
        let (v1, v2) = (fleet.push(ns, "v1", "v1").await?, fleet.push(ns, "v2", "v2").await?);
        let artifact = |image: &str| {
            json!({
                "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Artifact", "metadata": { "name": "app" },
                "spec": { "image": image, "imagePullSecret": { "name": "login" } },
            })
        };
        let mut web = deployment("web", "artifact://app", 1);
        web["spec"]["artifacts"] = json!([{ "name": "app", "artifactFrom": { "name": "app" } }]);
        ns.apply(web).await?;
        let of = ("WorkloadDeployment", "web");
        let missing = ns.wait_for_condition(of, ("Ready", "False"), None, HEAL).await?;
        says(&missing.message, &["app"])?;
        ns.apply(artifact(&v1)).await?;
        wait_workloads(ns, 1, "v1").await?;
        ns.apply(artifact(&v2)).await?;
        wait_workloads(ns, 1, "v2").await.map(drop)
    })
    .await
}
