//! The main job: applied, pulled with its secret, served, reported, rolled, stopped.

use anyhow::{Result, ensure};
use washlet_e2e::{ALICE, objects, with_namespace};

use crate::stage::{HEAL, START, Stage, ready};

#[tokio::test]
async fn a_workload_is_pulled_served_and_reported() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        ns.kubectl(&["wait", "--for=condition=Ready", "ww/hello", "--timeout=60s"])
            .await?;

        let (status, body) = stage.agent.get("hello.test", "/").await?;
        ensure!(status == 200 && body.contains("v1"), "{status}: {body}");

        let line = ns.kubectl(&["get", "ww", "hello"]).await?;
        for word in [
            "READY",
            "REASON",
            "HOST",
            "IMAGE",
            "RESTARTS",
            "AGE",
            "True",
            stage.agent.node(),
            &image,
        ] {
            ensure!(line.contains(word), "`{word}` is not in:\n{line}");
        }
        let object = ns.get("Workload", "hello").await?;
        let status = &object.data["status"];
        ensure!(
            status["workloadId"].as_str() == object.metadata.uid.as_deref(),
            "{status}"
        );
        ensure!(status["observedGeneration"] == 1, "{status}");
        ensure!(
            status["components"][0]["digest"]
                .as_str()
                .is_some_and(|d| d.starts_with("sha256:")),
            "{status}"
        );
        for kind in [
            "Accepted",
            "ConfigResolved",
            "ImagesPulled",
            "Linked",
            "Ready",
        ] {
            let condition = objects::condition(&object, kind);
            ensure!(
                condition.as_ref().is_some_and(|c| c.status == "True"),
                "{kind}: {condition:?}"
            );
        }

        ns.delete("Workload", "hello").await?;
        stage.answers("hello.test", "/", 404, HEAL).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_opaque_secret_logs_in() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.delete("Secret", "login").await?;
        ns.kubectl(&[
            "create",
            "secret",
            "generic",
            "login",
            &format!("--from-literal=username={}", ALICE.name),
            &format!("--from-literal=password={}", ALICE.password),
        ])
        .await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        ready(ns, "hello").await?;
        stage.answers("hello.test", "/", 200, START).await.map(drop)
    })
    .await
}
