//! What an agent tells about its node, and about itself.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use washlet_e2e::{eventually, objects, with_namespace};

use crate::stage::{HEAL, Stage, ready};

/// The Lease is renewed every ten seconds.
const RENEWED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_host_object_tells_what_the_node_is_and_holds() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let node = stage.agent.node();
        let counted = |host: &kube::api::DynamicObject| host.data["status"]["workloadCount"] == 1;
        let host = ns.wait_for("Host", node, counted, HEAL).await?;

        let (top, status) = (&host.data, &host.data["status"]);
        ensure!(top["hostId"] == node, "{top}");
        ensure!(top["httpPort"] == stage.agent.http_addr().port(), "{top}");
        ensure!(top["hostname"].is_string(), "{top}");
        ensure!(status["componentCount"] == 1, "{status}");
        ensure!(
            status["addresses"] == serde_json::json!(["127.0.0.1"]),
            "{status}"
        );
        for text in [
            "version", "osName", "osArch", "osKernel", "lastSeen", "bootID",
        ] {
            ensure!(
                status[text].as_str().is_some_and(|t| !t.is_empty()),
                "{text}: {status}"
            );
        }
        for number in ["systemMemoryTotal", "systemMemoryFree"] {
            ensure!(
                status[number].as_u64().is_some_and(|n| n > 0),
                "{number}: {status}"
            );
        }
        let interfaces: HashSet<&str> = status["interfaces"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for interface in [
            "wasi:http/types@",
            "wasi:config/store@",
            "wasi:logging/logging@",
            "wasi:cli/environment@",
        ] {
            ensure!(
                interfaces.iter().any(|i| i.starts_with(interface)),
                "{interface} is not in {interfaces:?}"
            );
        }
        let condition = objects::condition(&host, "Ready").context("no condition")?;
        ensure!(condition.status == "True", "{condition:?}");

        let uid = ns.get("Node", node).await?.metadata.uid;
        for kind in ["Host", "Lease"] {
            let owners = ns
                .get(kind, node)
                .await?
                .metadata
                .owner_references
                .unwrap_or_default();
            let owned = owners
                .iter()
                .any(|o| o.kind == "Node" && o.name == node && Some(&o.uid) == uid.as_ref());
            ensure!(owned, "the Node does not own its {kind}: {owners:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_lease_is_renewed() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let spec =
            async || anyhow::Ok(ns.get("Lease", stage.agent.node()).await?.data["spec"].clone());
        ns.wait_for("Lease", stage.agent.node(), |_| true, HEAL)
            .await?;
        let first = spec().await?;
        ensure!(first["leaseDurationSeconds"] == 40, "{first}");
        ensure!(
            first["holderIdentity"]
                .as_str()
                .is_some_and(|h| !h.is_empty()),
            "{first}"
        );
        eventually("the Lease is renewed", RENEWED, async || {
            let now = spec().await?;
            // Both are UTC with microseconds, so they compare as text.
            let newer = now["renewTime"].as_str() > first["renewTime"].as_str();
            ensure!(
                now["holderIdentity"] == first["holderIdentity"]
                    && now["leaseTransitions"] == first["leaseTransitions"],
                "{now}"
            );
            Ok(if newer { Ok(()) } else { Err(now) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn probes_and_metrics_answer() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        for probe in ["/livez", "/readyz"] {
            let answer = stage.agent.get_admin(probe).await?;
            ensure!(answer.0 == 200, "{probe}: {answer:?}");
        }
        ensure!(stage.agent.get_admin("/elsewhere").await?.0 == 404);

        let metrics = eventually("the agent has counted its workload", HEAL, async || {
            let metrics = stage.agent.metrics().await?;
            let counted = [
                "washlet_workloads 1",
                "washlet_workloads_ready 1",
                "washlet_lease_held 1",
            ];
            let all = counted
                .iter()
                .all(|line| metrics.lines().any(|l| l == *line));
            Ok(if all { Ok(metrics) } else { Err(metrics) })
        })
        .await?;
        ensure!(
            metrics.contains("washlet_status_writes_total{outcome=\"Applied\"}"),
            "{metrics}"
        );
        open_metrics(&metrics).with_context(|| metrics.clone())
    })
    .await
}

/// Reads OpenMetrics as a scraper would: each sample belongs to the family that was described before it, counters end with
/// `_total`, values are numbers, and the text ends as it must.
fn open_metrics(text: &str) -> Result<()> {
    let body = text
        .strip_suffix("# EOF\n")
        .context("no `# EOF` at the end")?;
    let (mut family, mut kind, mut described) = (String::new(), String::new(), HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (word, name, value) = (
                words.next(),
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            ensure!(
                matches!(word, Some("HELP" | "TYPE" | "UNIT")) && !value.is_empty(),
                "{line}"
            );
            ensure!(name.starts_with("washlet_"), "{line}");
            if name != family {
                ensure!(described.insert(name.to_owned()), "twice: {line}");
                family = name.to_owned();
            }
            if word == Some("TYPE") {
                kind = value.to_owned();
            }
            continue;
        }
        let (sample, value) = line
            .rsplit_once(' ')
            .with_context(|| format!("no value: {line}"))?;
        ensure!(value.parse::<f64>().is_ok(), "{line}");
        let name = sample.split('{').next().unwrap_or_default();
        let wanted = if kind == "counter" {
            format!("{family}_total")
        } else {
            family.clone()
        };
        ensure!(name == wanted, "{line} is no sample of the {kind} {family}");
    }
    ensure!(described.len() >= 8, "{described:?}");
    Ok(())
}
