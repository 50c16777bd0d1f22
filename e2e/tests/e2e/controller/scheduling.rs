//! Workloads that name no host get one, or hear why not.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, chart, with_namespace};

use super::{DECIDED, Fleet, host_of, node, workload};
use crate::stage::{ready, says};

/// Waits until a workload is refused for lack of a host, and returns the message.
async fn unschedulable(ns: &TestNamespace, name: &str) -> Result<String> {
    let scheduled = ns
        .wait_for_condition(
            ("Workload", name),
            ("Scheduled", "False"),
            Some("Unschedulable"),
            DECIDED,
        )
        .await?;
    let ready = ns
        .wait_for_condition(
            ("Workload", name),
            ("Ready", "False"),
            Some("Unschedulable"),
            DECIDED,
        )
        .await?;
    ensure!(
        ready.message == scheduled.message,
        "{ready:?} {scheduled:?}"
    );
    Ok(scheduled.message)
}

#[tokio::test]
async fn a_workload_without_a_host_is_placed_and_answers() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 3).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        ns.apply(workload("app", &image, |_| {})).await?;
        ready(ns, "app").await?;
        let object = ns.get("Workload", "app").await?;
        let host = host_of(&object).context("a host")?;
        let (status, body) = fleet.agent(host)?.get("app.test", "/").await?;
        ensure!(status == 200, "{status}: {body}");
        ns.wait_for_condition(
            ("Workload", "app"),
            ("Scheduled", "True"),
            Some("Scheduled"),
            DECIDED,
        )
        .await?;
        let events = ns
            .events_for(&object.metadata.uid.context("a uid")?)
            .await?;
        ensure!(
            events
                .iter()
                .any(|e| e.reason.as_deref() == Some("Scheduled")),
            "{events:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn workloads_of_one_app_are_spread_over_the_hosts() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 3).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        for number in 0..3 {
            let labelled =
                |object: &mut Value| object["metadata"]["labels"] = json!({ "app": "web" });
            ns.apply(workload(&format!("app-{number}"), &image, labelled))
                .await?;
        }
        let mut hosts = BTreeSet::new();
        for number in 0..3 {
            let name = format!("app-{number}");
            ready(ns, &name).await?;
            hosts.extend(host_of(&ns.get("Workload", &name).await?).map(str::to_owned));
        }
        ensure!(hosts.len() == 3, "{hosts:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_fits_nowhere_says_why_by_reason_and_is_placed_when_it_fits() -> Result<()> {
    with_namespace(async |ns| {
        // The policy lets a host say only what the chart tells it to.
        let told = ["--set=environment=edge,hostLabels.disk=ssd".to_owned()];
        let rights = chart::rendered(ns, &told).await?;
        let fleet = Fleet::start_under(ns, 3, Some(&rights), |number| match number {
            0 => vec![
                "--environment=edge".to_owned(),
                "--host-label=disk=ssd".to_owned(),
            ],
            _ => vec!["--memory=64Mi".to_owned()],
        })
        .await?;
        let image = fleet.push(ns, "v1", "v1").await?;

        let lacks = json!({ "namespace": "wasi", "package": "keyvalue", "interfaces": ["store"] });
        let wants = |object: &mut Value| {
            if let Some(entries) = object["spec"]["hostInterfaces"].as_array_mut() {
                entries.push(lacks.clone());
            }
        };
        ns.apply(workload("keyvalue", &image, wants)).await?;
        says(
            &unschedulable(ns, "keyvalue").await?,
            &["0/3 hosts", "3 lack", "wasi:keyvalue"],
        )?;

        let elsewhere = |object: &mut Value| object["spec"]["environment"] = json!("moon");
        ns.apply(workload("elsewhere", &image, elsewhere)).await?;
        says(
            &unschedulable(ns, "elsewhere").await?,
            &["0/3 hosts", "3 ", "environment"],
        )?;

        // Only the first host has the label, and only it has the room.
        let edge = |object: &mut Value| {
            object["spec"]["hostSelector"] = json!({ "disk": "ssd" });
            object["spec"]["environment"] = json!("edge");
        };
        let first = node(ns, 0);
        ns.kubectl(&["cordon", &first]).await?;
        ns.apply(workload("edge", &image, edge)).await?;
        says(
            &unschedulable(ns, "edge").await?,
            &["0/3 hosts", "1 cordoned", "2 "],
        )?;
        ns.kubectl(&["uncordon", &first]).await?;
        ready(ns, "edge").await?;
        let object = ns.get("Workload", "edge").await?;
        ensure!(
            host_of(&object) == Some(&first),
            "{:?}",
            object.data["status"]
        );
        ensure!(
            object.data["status"]["environment"] == "edge",
            "{:?}",
            object.data["status"]
        );

        let large = |object: &mut Value| {
            object["spec"]["hostSelector"] = json!({ "kubernetes.io/hostname": node(ns, 1) });
            object["spec"]["components"][0]["resources"] =
                json!({ "limits": { "memory": "48Mi" } });
        };
        ns.apply(workload("large", &image, large)).await?;
        ready(ns, "large").await?;
        ns.apply(workload("larger", &image, large)).await?;
        says(&unschedulable(ns, "larger").await?, &["1 ", "memory"])?;
        ns.delete("Workload", "large").await?;
        ready(ns, "larger").await
    })
    .await
}
