//! What is deleted finishes what it began, and no more.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::api::DynamicObject;
use serde_json::Value;
use washlet_e2e::with_namespace;

use super::{begin, both, ready_condition, rest, says};
use crate::stage::{HEAL, START, Stage, ready};

#[tokio::test]
async fn a_deleted_workload_finishes_what_is_in_flight() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let slow = stage.push(ns, "slow", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &slow)).await?;
        ready(ns, "app").await?;

        let mut response = begin(&stage, "/?ms=700&chunks=8").await?;
        ns.delete("Workload", "app").await?;
        stage.answers("app.test", "/", 503, HEAL).await?;
        let seen = rest(&mut response).await?;
        ensure!(seen.ends_with("chunk 8\n"), "{seen}");
        stage.answers("app.test", "/", 404, HEAL).await.map(drop)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn after_its_grace_a_deleted_workload_is_cut() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let slow = stage.push(ns, "slow", "v1").await?;
        let workload = stage.workload("app", &slow);
        let grace = "spec:\n  terminationGracePeriodSeconds: 3\n";
        ns.apply_yaml(&workload.replace("spec:\n", grace)).await?;
        ready(ns, "app").await?;

        let mut response = begin(&stage, "/?ms=500&chunks=60").await?;
        let deleted = Instant::now();
        ns.delete("Workload", "app").await?;
        let cut = rest(&mut response).await;
        let after = deleted.elapsed();
        ensure!(cut.is_err(), "it came to an end: {cut:?}");
        ensure!(
            (2.5..5.0).contains(&after.as_secs_f64()),
            "cut after {after:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_workload_made_anew_at_once_is_another_one() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = both(&stage, ns).await?;
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        ready(ns, "app").await?;
        for (image, version) in [(&v2, "v2"), (&v1, "v1"), (&v2, "v2"), (&v1, "v1")] {
            ns.delete("Workload", "app").await?;
            ns.apply_yaml(&stage.workload("app", image)).await?;
            let mut mixed = None;
            let is_ready = |object: &DynamicObject| {
                let id = object
                    .data
                    .pointer("/status/workloadId")
                    .and_then(Value::as_str);
                if id.is_some() && id != object.metadata.uid.as_deref() {
                    mixed = Some(object.data["status"].clone());
                }
                id.is_some() && ready_condition(object).is_ok_and(|c| c.status == "True")
            };
            ns.wait_for("Workload", "app", is_ready, START).await?;
            ensure!(mixed.is_none(), "the status of its predecessor: {mixed:?}");
            says(&stage, version, HEAL).await?;
        }
        // Nothing of the former ones writes later.
        let last = ns.get("Workload", "app").await?;
        ensure!(ready_condition(&last)?.observed_generation == Some(1));
        Ok(())
    })
    .await
}
