//! P13: what an agent costs that has nothing to do: memory, and requests to the API server.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Figure, Options,
    memory::Resident,
    scene::{LIMIT, Scene},
};
use crate::agent::Agent;

const WORKLOADS: usize = 1000;
const COMPONENTS: usize = 50;
/// After this all is told: Events too.
const SETTLE: Duration = Duration::from_secs(40);
/// After this an agent has nothing left to do, and its allocator has given back what it does not use.
const REST: Duration = Duration::from_secs(15);
/// How long requests are counted.
const COUNTED: Duration = Duration::from_secs(120);

pub(super) async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let count = options.workloads.unwrap_or(WORKLOADS);
    let scene = Scene::new(options, COMPONENTS.min(count), true).await?;
    let mut agent = scene.agent().await?;
    let idle = resident(&mut agent, options.rounds).await?;
    scene.create(scene.images.len()).await?;
    scene.readiness(scene.images.len()).await?.all().await?;
    scene.clear().await?;
    scene.create(count).await?;
    scene.readiness(count).await?.all().await?;
    // As after a restart: what it took to pull and compile is no part of being idle.
    agent.restart().await?;
    agent.wait_ready(LIMIT).await?;
    eprintln!("counting requests for {COUNTED:?}");
    tokio::time::sleep(SETTLE).await;
    let before = requests(&scene)?;
    tokio::time::sleep(COUNTED).await;
    let after = requests(&scene)?;
    let full = resident(&mut agent, options.rounds).await?;

    let minutes = COUNTED.as_secs_f64() / 60.0;
    let mut told = Vec::new();
    let mut counted = 0;
    for (what, number) in &after {
        let new = number - before.get(what).copied().unwrap_or_default();
        if new > 0 {
            told.push(format!("{what} {new}"));
        }
        // Its Lease, and the Secrets that it polls, are not counted.
        if !what.contains(" leases") && !what.contains(" secrets") {
            counted += new;
        }
    }
    let (idle, full) = (idle.total / 1024.0, full.total / 1024.0);
    Ok(vec![
        Figure {
            figure: "P13",
            value: idle,
            target: Some(40.0),
            ours: idle,
            peer: None,
            unit: "MiB",
            note: format!("resident memory without a Workload; {full:.1} MiB with {count}"),
        },
        Figure {
            figure: "P13",
            value: f64::from(counted) / minutes,
            target: Some(4.0),
            ours: f64::from(counted) / minutes,
            peer: None,
            unit: "requests/min",
            note: format!(
                "with {count} Workloads, from the API server's audit log, beside the Lease and Secrets; in {} s: {}",
                COUNTED.as_secs(),
                told.join(", ")
            ),
        },
    ])
}

/// What an agent at rest keeps in memory: the median over as many of its lives.
async fn resident(agent: &mut Agent, rounds: usize) -> Result<Resident> {
    let mut lives = Vec::new();
    for round in 1..=rounds {
        agent.restart().await?;
        agent.wait_ready(LIMIT).await?;
        tokio::time::sleep(REST).await;
        let resident = Resident::of(agent.id())?;
        eprintln!("round {round}: {resident:?}");
        lives.push(resident);
    }
    Ok(Resident::median(&lives))
}

/// The agent's requests so far, by verb and resource.
fn requests(scene: &Scene) -> Result<BTreeMap<String, u32>> {
    let log = scene.control_plane.audit_log();
    let text = fs::read_to_string(&log).context("reading the audit log")?;
    Ok(count(&text, scene.namespace.name()))
}

fn count(log: &str, namespace: &str) -> BTreeMap<String, u32> {
    let agent = format!("system:serviceaccount:{namespace}:washlet-agent");
    let mut counted = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(&agent)) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        // A watch counts when it begins.
        let wanted = match text("/verb") {
            Some("watch") => "ResponseStarted",
            _ => "ResponseComplete",
        };
        if text("/user/username") == Some(&agent) && text("/stage") == Some(wanted) {
            let (verb, resource) = (text("/verb"), text("/objectRef/resource"));
            let subresource = text("/objectRef/subresource").map(|s| format!("/{s}"));
            let what = format!(
                "{} {}{}",
                verb.unwrap_or("?"),
                resource.unwrap_or("?"),
                subresource.unwrap_or_default()
            );
            *counted.entry(what).or_default() += 1;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_requests_are_counted_once() {
        let line = |user: &str, verb: &str, stage: &str| {
            format!(
                r#"{{"verb":"{verb}","stage":"{stage}","user":{{"username":"system:serviceaccount:{user}"}},"objectRef":{{"resource":"hosts","subresource":"status"}}}}"#
            )
        };
        let log = [
            line("ns:washlet-agent", "patch", "ResponseComplete"),
            line("ns:washlet-agent", "watch", "ResponseStarted"),
            line("ns:washlet-agent", "watch", "ResponseComplete"),
            line("other:washlet-agent", "patch", "ResponseComplete"),
        ]
        .join("\n");
        let counted = count(&log, "ns");
        assert_eq!(counted["patch hosts/status"], 1);
        assert_eq!(counted["watch hosts/status"], 1);
        assert_eq!(counted.len(), 2);
    }
}
