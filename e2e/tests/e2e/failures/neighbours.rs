//! What a failure must not touch: other workloads, and those of other nodes.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use washlet_e2e::{Artifact, objects, with_namespace};

use super::{add, answers, heals, heals_untouched, manifest, while_answering};
use crate::stage::{HEAL, START, Stage, fails, repository_of, says};

#[tokio::test]
async fn neighbours_of_the_broken_go_on() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("good", &image)).await?;
        heals(&stage.agent, ns, "good").await?;
        let before = ns.get("Workload", "good").await?;

        let missing = stage.registry.image(&repository_of(ns, "v1"), "missing");
        let widgets = stage.push(ns, "needs-widgets", "v1").await?;
        let text = repository_of(ns, "text");
        stage
            .registry
            .push(&text, "v1", &Artifact::wasm(b"no wasm at all"))
            .await?;
        let text = stage.registry.image(&text, "v1");
        while_answering(&stage.agent, "good.test", async {
            for (name, image) in [
                ("missing", &missing),
                ("widgets", &widgets),
                ("text", &text),
            ] {
                ns.apply_yaml(&stage.workload(name, image)).await?;
            }
            fails(ns, "missing", "ImageNotFound").await?;
            fails(ns, "widgets", "ImportNotSatisfied").await?;
            fails(ns, "text", "NotAComponent").await?;
            // A newcomer beside them is not held up either.
            ns.apply_yaml(&stage.workload("newcomer", &image)).await?;
            heals(&stage.agent, ns, "newcomer").await?;
            ns.delete("Workload", "missing").await
        })
        .await?;
        let after = ns.get("Workload", "good").await?;
        ensure!(
            before.data["status"] == after.data["status"],
            "{} became {}",
            before.data["status"],
            after.data["status"]
        );
        Ok(())
    })
    .await
}

/// One broken component of a workload keeps the whole from starting, and the others say for whom they wait.
#[tokio::test]
async fn the_others_of_a_workload_wait_for_the_broken_one() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let missing = stage.registry.image(&repository_of(ns, "v1"), "missing");
        let two = |spec: &mut serde_json::Value| {
            let other =
                json!({"name": "side", "image": missing, "imagePullSecret": {"name": "login"}});
            add(&mut spec["components"], other);
        };
        ns.apply(manifest(&stage.agent, "hello", &image, two)?)
            .await?;
        let message = fails(ns, "hello", "ImageNotFound").await?;
        ensure!(message.contains("component \"side\""), "{message}");
        let object = ns.get("Workload", "hello").await?;
        let state = |index: usize| {
            let components = &object.data["status"]["components"];
            components[index]["state"]["waiting"].clone()
        };
        ensure!(state(1)["reason"] == "ImageNotFound", "{}", state(1));
        ensure!(
            state(0)["reason"] == "Pending"
                && state(0)["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("side")),
            "{}",
            state(0)
        );
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        heals(&stage.agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn a_workload_of_another_node_is_left_alone() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let elsewhere = |spec: &mut serde_json::Value| spec["hostId"] = json!("another-node");
        ns.apply(manifest(&stage.agent, "elsewhere", &image, elsewhere)?)
            .await?;
        let nowhere = |spec: &mut serde_json::Value| spec["hostId"] = json!("");
        ns.apply(manifest(&stage.agent, "nowhere", &image, nowhere)?)
            .await?;
        // By the time this one is Ready the others would have been taken.
        ns.apply_yaml(&stage.workload("here", &image)).await?;
        heals(&stage.agent, ns, "here").await?;
        for name in ["elsewhere", "nowhere"] {
            answers(&stage.agent, &format!("{name}.test"), 404, HEAL).await?;
            let object = ns.get("Workload", name).await?;
            let ready = objects::condition(&object, "Ready").context("no Ready")?;
            ensure!(
                (ready.status.as_str(), ready.reason.as_str()) == ("Unknown", "Pending"),
                "{ready:?}"
            );
            let touched = object.data.pointer("/status/hostId").is_some();
            let uid = object.metadata.uid.context("a uid")?;
            ensure!(!touched && ns.events_for(&uid).await?.is_empty());
        }

        // Pinned to this node, it is taken; pinned away, it is let go of, and not written to any more.
        let api = ns.api("Workload")?;
        let pin = async |host: &str| {
            let patch = json!({"spec": {"hostId": host}});
            api.patch("elsewhere", &PatchParams::default(), &Patch::Merge(patch))
                .await
        };
        pin(stage.agent.node()).await?;
        heals(&stage.agent, ns, "elsewhere").await?;
        let left = pin("another-node").await?;
        answers(&stage.agent, "elsewhere.test", 404, HEAL).await?;
        ns.apply_yaml(&stage.workload("later", &image)).await?;
        heals(&stage.agent, ns, "later").await?;
        let now = ns.get("Workload", "elsewhere").await?;
        ensure!(
            now.data["status"] == left.data["status"],
            "{}",
            now.data["status"]
        );
        Ok(())
    })
    .await
}

/// It takes connections, and says nothing: the kernel does that for a listener that nobody serves.
#[tokio::test]
async fn a_registry_that_hangs_holds_up_nobody() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let silent = TcpListener::bind("127.0.0.1:0").context("a listener")?;
        let port = silent.local_addr().context("its port")?.port();
        // More than the downloads that may run at once.
        for number in 0..8 {
            let image = format!("localhost:{port}/alice/{number}:v1");
            ns.apply_yaml(&stage.workload(&format!("hung-{number}"), &image))
                .await?;
        }
        ns.wait_for_condition(
            ("Workload", "hung-7"),
            ("Ready", "False"),
            Some("Pulling"),
            HEAL,
        )
        .await?;
        ns.apply_yaml(&stage.workload("good", &image)).await?;
        heals(&stage.agent, ns, "good").await?;
        let hung = ns.get("Workload", "hung-0").await?;
        let ready = objects::condition(&hung, "Ready").context("no Ready")?;
        ensure!(ready.reason == "Pulling", "it does not hang: {ready:?}");

        let message = fails(ns, "hung-0", "RegistryUnavailable").await?;
        says(
            &message,
            &["component \"app\"", &format!("localhost:{port}/alice/0:v1")],
        )?;
        // What hangs is let go of like anything else, and heals by an edit.
        ns.delete("Workload", "hung-0").await?;
        ns.apply_yaml(&stage.workload("hung-1", &image)).await?;
        heals(&stage.agent, ns, "hung-1").await
    })
    .await
}

/// A failure outlives the agent that found it: the next one says the same, and waits for the same repair.
#[tokio::test]
async fn a_restarted_agent_goes_on_waiting() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.registry.image(&repository_of(ns, "v1"), "v1");
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        let before = fails(ns, "hello", "ImageNotFound").await?;
        let since = async || {
            let ready = objects::condition(&ns.get("Workload", "hello").await?, "Ready");
            ready.context("no Ready").map(|c| c.last_transition_time)
        };
        let failed_at = since().await?;

        stage.agent.restart().await?;
        stage.agent.wait_ready(START).await?;
        let after = fails(ns, "hello", "ImageNotFound").await?;
        ensure!(before == after && failed_at == since().await?, "{after}");
        stage.push(ns, "v1", "v1").await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}
