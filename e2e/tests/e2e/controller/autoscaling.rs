//! A real HorizontalPodAutoscaler scales the sample's deployment by an External metric, up and down.

mod metrics;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, repository, with_namespace};

use super::{DECIDED, Fleet, guide, host_of, is_ready};
use metrics::Metrics;

/// The autoscaler learns of new kinds every 30 seconds.
const LOOKS: Duration = Duration::from_secs(120);

#[tokio::test]
async fn an_autoscaler_scales_a_deployment_up_and_down_by_an_external_metric() -> Result<()> {
    if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        // A given cluster may have a metrics API already, and cannot reach this process.
        eprintln!("left out: it replaces the cluster's API of external metrics");
        return Ok(());
    }
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 2).await?;
        let metrics = Metrics::start(ns).await?;
        metrics.set(350);
        ns.apply_yaml(&guide::sample(ns, &fleet).await?).await?;
        wait_workloads(ns, 3).await?;
        // As documented, but it need not wait before it scales down.
        let mut autoscaler = documented()?;
        autoscaler["spec"]["behavior"] =
            json!({ "scaleDown": { "stabilizationWindowSeconds": 0 } });
        ns.apply(autoscaler).await?;
        // A target of 100 for each.
        for (value, count) in [(350, 4), (150, 2), (1, 1)] {
            metrics.set(value);
            let workloads = wait_workloads(ns, count).await?;
            answers(&mut fleet, &workloads).await?;
        }
        counts_what_there_is(ns, 1).await?;
        metrics.stop(ns).await
    })
    .await
}

/// Waits until there are this many, all Ready.
async fn wait_workloads(ns: &TestNamespace, count: usize) -> Result<Vec<DynamicObject>> {
    let api = ns.api("Workload")?;
    eventually(&format!("{count} Workloads"), LOOKS, async || {
        let all = api.list(&kube::api::ListParams::default()).await?.items;
        let ready = all.iter().filter(|workload| is_ready(workload)).count();
        if (all.len(), ready) == (count, count) {
            return Ok(Ok(all));
        }
        let what = "jsonpath={.status.conditions}";
        let told = ns
            .kubectl(&["get", "hpa", "hello", "--ignore-not-found", "-o", what])
            .await?;
        Ok(Err(format!("{ready} of {} are Ready; {told}", all.len())))
    })
    .await
}

/// Every Workload's host answers at the Service's port, whatever the host name.
async fn answers(fleet: &mut Fleet, workloads: &[DynamicObject]) -> Result<()> {
    for workload in workloads {
        let port = &workload.data["status"]["servicePort"];
        let agent = fleet.agent(host_of(workload).context("a host")?)?;
        let url = format!("http://{}:{port}/", agent.http_addr().ip());
        eventually(&url, DECIDED, async || {
            let answer = reqwest::get(&url).await.map(|answer| answer.status());
            Ok(match answer {
                Ok(status) if status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
        .await?;
    }
    Ok(())
}

/// What the autoscaler read of the deployment through `/scale` is what there is.
async fn counts_what_there_is(ns: &TestNamespace, count: u64) -> Result<()> {
    eventually("the autoscaler's status", LOOKS, async || {
        let text = ns.kubectl(&["get", "hpa", "hello", "-o", "json"]).await?;
        let status = serde_json::from_str::<Value>(&text)?["status"].take();
        let is = (&status["currentReplicas"], &status["desiredReplicas"]);
        Ok(if is == (&json!(count), &json!(count)) {
            Ok(())
        } else {
            Err(status)
        })
    })
    .await
}

/// The HorizontalPodAutoscaler of `docs/deployments.md`.
fn documented() -> Result<Value> {
    let text = fs::read_to_string(repository().join("docs/deployments.md"))?;
    let mut blocks = text
        .split("```yaml\n")
        .filter_map(|rest| rest.split_once("```"));
    let block = blocks.find(|(block, _)| block.contains("kind: HorizontalPodAutoscaler"));
    let (block, _) = block.context("no HorizontalPodAutoscaler is documented")?;
    serde_saphyr::from_str(block).context("reading it")
}
