//! Calls out: connections are kept, and who is denied one is told why where people look.

mod relay;

use std::{fs, sync::atomic::Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use washlet_e2e::{eventually, with_namespace};

use crate::{
    capabilities::outside,
    local::{Local, folder, path, workload, yaml},
    stage::{HEAL, START, Stage, ready, says},
};

#[tokio::test]
async fn a_hundred_calls_need_few_connections() -> Result<()> {
    for guest in ["fetch", "fetch-p3"] {
        let (address, connections) = outside().await?;
        let allowed = json!({"localResources": {"allowedHosts": [address]}});
        let local = Local::of(&[workload("calls", guest, allowed)]).await?;
        local.ready(&["calls"]).await?;
        let path = format!("/?url=http://{address}/");
        for _ in 0..100 {
            local
                .expect("calls.test", &path, (200, "from outside"))
                .await?;
        }
        // One for each worker, and one for guests that take long.
        let most = std::thread::available_parallelism()?.get() + 1;
        let opened = connections.load(Ordering::Relaxed);
        ensure!(opened <= most, "{guest}: {opened} connections");
    }
    Ok(())
}

#[tokio::test]
async fn washlet_run_blocks_networks_too() -> Result<()> {
    let (address, connections) = outside().await?;
    let allowed = json!({"localResources": {"allowedHosts": [address]}});
    let file = folder("run")?.join("calls.yaml");
    fs::write(&file, yaml(&[workload("calls", "fetch", allowed)]))?;
    let local = Local::start(&["--block-network", "127.0.0.0/8", path(&file)?]).await?;
    local.ready(&["calls"]).await?;
    let path = format!("/?url=http://{address}/");
    let prohibited = (502, "DestinationIpProhibited\n");
    local.expect("calls.test", &path, prohibited).await?;
    ensure!(connections.load(Ordering::Relaxed) == 0);
    local.says("127.0.0.0/8").await
}

#[tokio::test]
async fn a_denied_call_is_an_event_that_names_the_rule() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "fetch", "v1").await?;
        ns.apply_yaml(&stage.workload("caller", &image)).await?;
        ready(ns, "caller").await?;
        let path = "/?url=http://127.0.0.1:1/";
        for _ in 0..3 {
            let answer = stage.answers("caller.test", path, 502, START).await?;
            ensure!(answer == "HttpRequestDenied\n", "{answer}");
        }
        let object = ns.get("Workload", "caller").await?;
        let uid = object.metadata.uid.context("a uid")?;
        let note = eventually("an Event EgressDenied", HEAL, async || {
            let events = ns.events_for(&uid).await?;
            let denied: Vec<_> = events
                .into_iter()
                .filter(|e| e.reason.as_deref() == Some("EgressDenied"))
                .collect();
            // One, though it was called three times.
            Ok(match denied.as_slice() {
                [event] => Ok(event.message.clone().unwrap_or_default()),
                events => Err(format!("{} events", events.len())),
            })
        })
        .await?;
        says(
            &note,
            &[
                "component \"app\"",
                "add `http://127.0.0.1:1` to its localResources.allowedHosts",
            ],
        )?;
        // One that may call everything, and what is blocked not even then.
        let all = "    localResources:\n      allowedHosts: ['*']\n  hostInterfaces:";
        let bold = stage.workload("bold", &image);
        ns.apply_yaml(&bold.replace("  hostInterfaces:", all))
            .await?;
        ready(ns, "bold").await?;
        let path = "/?url=http://localhost:1/";
        let answer = stage.answers("bold.test", path, 502, START).await?;
        ensure!(answer == "DestinationIpProhibited\n", "{answer}");
        let metrics = stage.agent.metrics().await?;
        for line in [
            "washlet_egress_denied_total 3\n",
            "washlet_egress_prohibited_total 1\n",
            "washlet_egress_limited_total 0\n",
            "washlet_egress_connections_total 1\n",
            "washlet_egress_connections_open 0\n",
        ] {
            ensure!(metrics.contains(line), "{line}: {metrics}");
        }
        Ok(())
    })
    .await
}
