//! What an agent tells about its node, and about itself.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;
use washlet_e2e::{Agent, AgentOptions, TestNamespace, chart, eventually, objects, with_namespace};

use crate::stage::{HEAL, START, Stage, ready};

/// The Lease is renewed every ten seconds.
const RENEWED: Duration = Duration::from_secs(15);
/// Whether there is another Node is looked at every minute.
const OWNED: Duration = Duration::from_secs(90);

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
        let memory = status["allocatable"]["memory"].as_str();
        ensure!(memory.is_some_and(|m| m.ends_with("Ki")), "{status}");
        // Of the image's manifest, and of the component.
        let held = |host: &kube::api::DynamicObject| {
            host.data["status"]["images"]
                .as_array()
                .is_some_and(|i| i.len() == 2)
        };
        let host_now = ns.wait_for("Host", node, held, HEAL).await?;
        let digest = &ns.get("Workload", "app").await?.data["status"]["components"][0]["digest"];
        let images = host_now.data["status"]["images"].as_array().cloned();
        ensure!(
            images.unwrap_or_default().contains(digest),
            "{:?}",
            host_now.data
        );
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
async fn the_host_and_the_lease_go_with_the_node_and_come_back_with_it() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let node = stage.agent.node();
        let first = owned(ns, node).await?;
        ns.delete("Node", node).await?;
        both_gone(ns, node).await?;
        // They are not made for a Node that is no more: nobody would ever remove them.
        sleep(RENEWED).await;
        both_gone(ns, node).await?;
        let (status, _) = stage.agent.get("app.test", "/").await?;
        ensure!(status == 200, "{status}");

        make_node(ns, node).await?;
        let second = owned(ns, node).await?;
        ensure!(first != second);
        // It acts as before.
        ns.apply_yaml(&stage.workload("late", &image)).await?;
        ready(ns, "late").await?;

        // So fast that the agent may never see the Node gone.
        ns.delete("Node", node).await?;
        make_node(ns, node).await?;
        let third = owned(ns, node).await?;
        ensure!(second != third);
        // The garbage collector has nothing more to do.
        let before = uids(ns, node).await?;
        sleep(RENEWED).await;
        ensure!(uids(ns, node).await? == before, "they were made once more");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_comes_after_its_agent_owns_what_is_there() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let node = stage.agent.node().to_owned();
        owned(ns, &node).await?;
        ns.delete("Node", &node).await?;
        both_gone(ns, &node).await?;
        // One that has never seen its Node.
        stage.agent.kill9();
        stage.agent.restart().await?;
        for kind in ["Host", "Lease"] {
            let object = ns.wait_for(kind, &node, |_| true, HEAL).await?;
            let owners = object.metadata.owner_references.unwrap_or_default();
            ensure!(owners.is_empty(), "{kind}: {owners:?}");
        }
        let before = uids(ns, &node).await?;
        make_node(ns, &node).await?;
        owned(ns, &node).await?;
        ensure!(uids(ns, &node).await? == before, "they were made anew");
        Ok(())
    })
    .await
}

async fn both_gone(ns: &TestNamespace, node: &str) -> Result<()> {
    for kind in ["Host", "Lease"] {
        let api = ns.api(kind)?;
        eventually(&format!("the {kind} is gone"), START, async || {
            Ok(match api.get_opt(node).await? {
                None => Ok(()),
                Some(object) => Err(object.metadata.owner_references),
            })
        })
        .await?;
    }
    Ok(())
}

async fn make_node(ns: &TestNamespace, name: &str) -> Result<()> {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    ns.apply(node).await.map(drop)
}

/// Waits until the Node owns both objects, and gives its UID.
async fn owned(ns: &TestNamespace, node: &str) -> Result<String> {
    let uid = ns.get("Node", node).await?.metadata.uid.context("a UID")?;
    for kind in ["Host", "Lease"] {
        let owned = |object: &kube::api::DynamicObject| {
            let owners = object.metadata.owner_references.iter().flatten();
            owners.map(|o| &o.uid).eq([&uid])
        };
        ns.wait_for(kind, node, owned, OWNED).await?;
    }
    Ok(uid)
}

async fn uids(ns: &TestNamespace, node: &str) -> Result<[Option<String>; 2]> {
    let (host, lease) = (ns.get("Host", node).await?, ns.get("Lease", node).await?);
    Ok([host.metadata.uid, lease.metadata.uid])
}

#[tokio::test]
async fn the_host_object_tells_what_the_agent_was_told() -> Result<()> {
    with_namespace(async |ns| {
        let args = [
            "--advertise-address=10.1.2.3,fd00::3",
            "--environment=eu-1",
            "--host-label=zone=a",
            "--host-label=example.com/disk=ssd",
            "--memory=3Gi",
        ];
        // The policy lets a host say only what the chart tells it to.
        let values = [
            "--set=environment=eu-1,hostLabels.zone=a",
            "--set=hostLabels.example\\.com/disk=ssd",
        ];
        let options = AgentOptions {
            rights: Some(chart::rendered(ns, &values.map(str::to_owned)).await?),
            args: args.map(str::to_owned).into(),
            ..AgentOptions::default()
        };
        let agent = Agent::start(ns, options).await?;
        let told = |host: &kube::api::DynamicObject| host.data["status"]["addresses"].is_array();
        let host = ns.wait_for("Host", agent.node(), told, HEAL).await?;
        let (top, status) = (&host.data, &host.data["status"]);
        ensure!(top["environment"] == "eu-1", "{top}");
        ensure!(
            // Nobody listens at the other one.
            status["addresses"] == serde_json::json!(["10.1.2.3"]),
            "{status}"
        );
        ensure!(status["allocatable"]["memory"] == "3145728Ki", "{status}");
        let labels = host.metadata.labels.unwrap_or_default();
        ensure!(labels.get("zone").is_some_and(|v| v == "a"), "{labels:?}");
        ensure!(
            labels.get("example.com/disk").is_some_and(|v| v == "ssd"),
            "{labels:?}"
        );
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
