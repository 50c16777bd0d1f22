//! Hosts that give no sign of life lose their workloads, but not all at once, and not when most of them seem lost.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use washlet_e2e::{TestNamespace, eventually, with_namespace};

use super::{Fleet, host_of, workload};
use crate::stage::{HEAL, ready};

/// A Lease lasts 40 s, and is given 5 s more.
const LOST: Duration = Duration::from_secs(45);

/// Three workloads, each on a host of its own.
async fn spread(ns: &TestNamespace, fleet: &Fleet) -> Result<BTreeMap<String, String>> {
    let image = fleet.push(ns, "v1", "v1").await?;
    ns.apply(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "port": 80 }] },
    }))
    .await?;
    let mut on = BTreeMap::new();
    for name in ["one", "two", "three"] {
        let labelled = |object: &mut serde_json::Value| {
            object["metadata"]["labels"] = serde_json::json!({ "app": "spread" });
            object["spec"]["kubernetes"] = serde_json::json!({ "service": { "name": "web" } });
        };
        ns.apply(workload(name, &image, labelled)).await?;
        ready(ns, name).await?;
        let object = ns.get("Workload", name).await?;
        on.insert(
            name.to_owned(),
            host_of(&object).context("a host")?.to_owned(),
        );
    }
    ensure!(
        on.values().collect::<std::collections::BTreeSet<_>>().len() == 3,
        "{on:?}"
    );
    Ok(on)
}

#[tokio::test]
async fn a_lost_hosts_workload_moves_and_its_old_agent_lets_go() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 3).await?;
        let on = spread(ns, &fleet).await?;
        let (name, lost) = on.iter().next().context("a workload")?;
        let others = |host: &str| host != lost;
        fleet.agent(lost)?.kill9();

        let moved = ns
            .wait_for(
                "Workload",
                name,
                |object| host_of(object).is_some_and(others) && super::is_ready(object),
                LOST + HEAL,
            )
            .await?;
        let new = host_of(&moved).context("a host")?.to_owned();
        let host_name = format!("{name}.test");
        let (status, _) = fleet.agent(&new)?.get(&host_name, "/").await?;
        ensure!(status == 200, "{status}");
        let events = ns.events_for(&moved.metadata.uid.context("a uid")?).await?;
        ensure!(
            events
                .iter()
                .any(|e| e.reason.as_deref() == Some("Rescheduled")),
            "{events:?}"
        );
        for (other, host) in on.iter().filter(|(other, _)| *other != name) {
            let object = ns.get("Workload", other).await?;
            ensure!(host_of(&object) == Some(host), "{other} was moved too");
        }

        // Only cut off, as far as anybody can tell: it comes back and has to let go.
        let agent = fleet.agent(lost)?;
        agent.restart().await?;
        agent.wait_ready(HEAL).await?;
        eventually("the old agent serves it no more", HEAL, async || {
            let (status, _) = agent.get(&host_name, "/").await?;
            Ok(if status == 404 { Ok(()) } else { Err(status) })
        })
        .await?;
        let now = ns.get("Workload", name).await?;
        ensure!(
            host_of(&now) == Some(&new) && super::is_ready(&now),
            "{:?}",
            now.data["status"]
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_moves_while_most_hosts_seem_lost() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 3).await?;
        let on = spread(ns, &fleet).await?;
        let lost: Vec<(String, String)> = on
            .iter()
            .take(2)
            .map(|(n, h)| (n.clone(), h.clone()))
            .collect();
        for (_, host) in &lost {
            fleet.agent(host)?.kill9();
        }
        for (name, _) in &lost {
            ns.wait_for_condition(
                ("Workload", name),
                ("Ready", "Unknown"),
                Some("HostLost"),
                LOST + HEAL,
            )
            .await?;
        }
        // What is published of them stays: most likely they only cannot be heard.
        let slices = ns.kubectl(&["get", "endpointslices", "-o", "json"]).await?;
        let slices: serde_json::Value = serde_json::from_str(&slices)?;
        let endpoints = slices["items"][0]["endpoints"]
            .as_array()
            .into_iter()
            .flatten();
        let left = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        ensure!(left.count() == 3, "{slices}");
        // Evictions come within seconds where they come.
        tokio::time::sleep(Duration::from_secs(8)).await;
        for (name, host) in &lost {
            let object = ns.get("Workload", name).await?;
            ensure!(host_of(&object) == Some(host), "{name} was moved");
        }
        ensure!(
            fleet.controller.log()?.contains("2 of 3 hosts look lost"),
            "it does not say so"
        );
        let metrics = fleet.controller.metrics().await?;
        ensure!(
            metrics.contains("washlet_controller_evictions_suspended 1"),
            "{metrics}"
        );

        // Those that come back go on with what they had.
        for (name, host) in &lost {
            fleet.agent(host)?.restart().await?;
            ready(ns, name).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_leaves_for_good_leaves_nothing_behind() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 2).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        ns.apply(workload("app", &image, |_| {})).await?;
        ready(ns, "app").await?;
        let object = ns.get("Workload", "app").await?;
        let gone = host_of(&object).context("a host")?.to_owned();
        fleet.agent(&gone)?.kill9();
        // Its Host and its Lease belong to the Node, and go with it: nobody waits for a Lease to expire.
        ns.kubectl(&["delete", "node", &gone]).await?;
        let elsewhere = |object: &kube::api::DynamicObject| {
            host_of(object).is_some_and(|host| host != gone) && super::is_ready(object)
        };
        ns.wait_for("Workload", "app", elsewhere, HEAL).await?;
        ns.wait_gone("Host", &gone, HEAL).await?;
        ns.wait_gone("Lease", &gone, HEAL).await
    })
    .await
}
