//! Two workloads that claim one route: the older has it, the younger is told so.

use anyhow::{Result, ensure};
use serde_json::json;
use washlet_e2e::{TestNamespace, eventually, with_namespace};

use super::{
    Failure, answers, apply_younger, heals, heals_untouched, manifest,
    rollout::{Behind, ready_generation},
    settled, while_answering,
};
use crate::stage::{HEAL, Stage, repository_of};

#[tokio::test]
async fn the_younger_claimant_waits_until_the_route_is_free() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (one, two) = (
            stage.push(ns, "v1", "v1").await?,
            stage.push(ns, "v2", "v1").await?,
        );
        let claim = |spec: &mut serde_json::Value| {
            spec["hostInterfaces"][0]["config"]["host"] = json!("young.test");
        };
        ns.apply(manifest(&stage.agent, "old", &one, claim)?)
            .await?;
        answers(&stage.agent, "young.test", 200, HEAL).await?;
        let holder = format!("belongs to workload {}/old", ns.name());

        let conflict = Failure {
            condition: "Ready",
            reason: "RouteConflict",
            says: &[
                "host young.test, path /",
                &holder,
                "older",
                "another `host` or `path`",
            ],
        };
        while_answering(&stage.agent, "young.test", async {
            settled(ns, "old").await?;
            let young = manifest(&stage.agent, "young", &two, |_| ())?;
            apply_younger(ns, "old", young).await?;
            conflict.shown(ns, "young").await?;
            let body = answers(&stage.agent, "young.test", 200, HEAL).await?;
            ensure!(body.contains("v1"), "the younger one answers: {body}");
            Ok(())
        })
        .await?;

        ns.delete("Workload", "old").await?;
        heals_untouched(&stage.agent, ns, "young").await?;
        let body = answers(&stage.agent, "young.test", 200, HEAL).await?;
        ensure!(body.contains("v2"), "{body}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_path_or_host_ends_a_conflict() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (one, two) = (
            stage.push(ns, "v1", "v1").await?,
            stage.push(ns, "v2", "v1").await?,
        );
        ns.apply_yaml(&stage.workload("old", &one)).await?;
        heals(&stage.agent, ns, "old").await?;
        settled(ns, "old").await?;
        let at = |path: &'static str| {
            move |spec: &mut serde_json::Value| {
                spec["hostInterfaces"][0]["config"] = json!({"host": "old.test", "path": path});
            }
        };
        let young = manifest(&stage.agent, "young", &two, at("/"))?;
        apply_younger(ns, "old", young).await?;
        Failure {
            condition: "Ready",
            reason: "RouteConflict",
            says: &["host old.test, path /"],
        }
        .shown(ns, "young")
        .await?;

        while_answering(&stage.agent, "old.test", async {
            ns.apply(manifest(&stage.agent, "young", &two, at("/deep"))?)
                .await?;
            eventually("v2 below /deep", HEAL, async || {
                let (_, body) = stage.agent.get("old.test", "/deep/er").await?;
                Ok(if body.contains("v2") {
                    Ok(())
                } else {
                    Err(body)
                })
            })
            .await?;
            let ready = ("Ready", "True");
            ns.wait_for_condition(("Workload", "young"), ready, None, HEAL)
                .await?;
            let body = answers(&stage.agent, "old.test", 200, HEAL).await?;
            ensure!(body.contains("v1"), "{body}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_edit_to_a_taken_route_leaves_the_old_generation_answering() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        two_ages(&stage, ns).await?;
        let image = stage.registry.image(&repository_of(ns, "v2"), "v1");
        let taken = |spec: &mut serde_json::Value| {
            spec["hostInterfaces"][0]["config"]["host"] = json!("old.test");
        };
        let holder = format!("belongs to workload {}/old", ns.name());
        while_answering(&stage.agent, "young.test", async {
            ns.apply(manifest(&stage.agent, "young", &image, taken)?)
                .await?;
            let behind = Behind {
                condition: "Ready",
                reason: "RouteConflict",
                progress: "Reconciling",
                says: &["host old.test, path /", &holder],
            };
            behind.shown(ns, "young").await?;
            let body = answers(&stage.agent, "old.test", 200, HEAL).await?;
            ensure!(body.contains("v1"), "{body}");
            Ok(())
        })
        .await?;

        ns.delete("Workload", "old").await?;
        ready_generation(ns, "young", 2).await?;
        let body = answers(&stage.agent, "old.test", 200, HEAL).await?;
        ensure!(body.contains("v2"), "{body}");
        answers(&stage.agent, "young.test", 404, HEAL)
            .await
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn an_older_workload_takes_a_route_without_a_gap_and_gives_it_back() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        two_ages(&stage, ns).await?;
        let image = stage.registry.image(&repository_of(ns, "v1"), "v1");
        let taken = |spec: &mut serde_json::Value| {
            spec["hostInterfaces"][0]["config"]["host"] = json!("young.test");
        };
        let holder = format!("belongs to workload {}/old", ns.name());
        while_answering(&stage.agent, "young.test", async {
            ns.apply(manifest(&stage.agent, "old", &image, taken)?)
                .await?;
            let conflict = Failure {
                condition: "Ready",
                reason: "RouteConflict",
                says: &["host young.test, path /", &holder],
            };
            conflict.shown(ns, "young").await?;
            ready_generation(ns, "old", 2).await?;
            let body = answers(&stage.agent, "young.test", 200, HEAL).await?;
            ensure!(body.contains("v1"), "{body}");

            ns.apply_yaml(&stage.workload("old", &image)).await?;
            ready_generation(ns, "old", 3).await?;
            heals_untouched(&stage.agent, ns, "young").await
        })
        .await?;
        let body = answers(&stage.agent, "young.test", 200, HEAL).await?;
        ensure!(body.contains("v2"), "{body}");
        Ok(())
    })
    .await
}

/// The workloads `old`, which answers `v1`, and `young`, which answers `v2`, each at its own name.
async fn two_ages(stage: &Stage, namespace: &TestNamespace) -> Result<()> {
    let image = stage.push(namespace, "v1", "v1").await?;
    namespace.apply_yaml(&stage.workload("old", &image)).await?;
    heals(&stage.agent, namespace, "old").await?;
    settled(namespace, "old").await?;

    let image = stage.push(namespace, "v2", "v1").await?;
    let young = manifest(&stage.agent, "young", &image, |_| ())?;
    apply_younger(namespace, "old", young).await?;
    heals(&stage.agent, namespace, "young").await
}
