//! P7 and P8: thousands of Workloads on one agent, until all are Ready, and what each of them costs in memory then.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{
    Figure, Options,
    figure::median,
    memory::Resident,
    peer::Peer,
    scene::{IN_FLIGHT, Scene, ensure_answers, status},
};
use crate::agent::Agent;

const WORKLOADS: usize = 5000;
const COMPONENTS: usize = 50;
/// After this the agent has nothing left to do, and its allocator has given back what it does not use.
const SETTLE: Duration = Duration::from_secs(15);

pub(super) async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let count = options.workloads.unwrap_or(WORKLOADS);
    let scene = Scene::new(options, COMPONENTS.min(count), false).await?;
    let (mut agent, peer) = prepare(&scene).await?;
    agent.restart().await?;
    agent.wait_ready(super::scene::LIMIT).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = Resident::of(agent.id())?;
    agent.kill9();

    let (mut ours, mut peers, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        scene.create(count).await?;
        let took = peer.write_all(&scene).await?;
        peers.push(took.as_secs_f64());
        scene.clear().await?;

        let names = scene.create(count).await?;
        let readiness = scene.readiness(count).await?;
        let begun = Instant::now();
        agent.restart().await?;
        readiness.all().await?;
        ours.push(begun.elapsed().as_secs_f64());
        for name in names.iter().step_by(count.div_ceil(10)) {
            ensure_answers(&agent, name).await?;
        }
        tokio::time::sleep(SETTLE).await;
        let resident = Resident::of(agent.id())?;
        eprintln!("round {round}: agent {ours:.2?} s, bare client {peers:.2?} s; {resident:?}");
        full.push(resident);
        agent.kill9();
        scene.clear().await?;
    }
    let ratio: Vec<f64> = ours.iter().zip(&peers).map(|(o, p)| o / p).collect();
    Ok(figures(
        count,
        median(&ratio),
        (median(&ours), median(&peers)),
        (idle, Resident::median(&full)),
    ))
}

/// An agent that has pulled and compiled every component, and the bare client. No Workload is left.
async fn prepare(scene: &Scene) -> Result<(Agent, Peer)> {
    let agent = scene.agent().await?;
    let names = scene.create(scene.images.len()).await?;
    scene.readiness(names.len()).await?.all().await?;
    let first = names.first().cloned().unwrap_or_default();
    ensure!(!first.is_empty(), "there is no Workload");
    let status = status(&scene.api()?, &first).await?;
    let peer = Peer::new(scene, status).await?;
    scene.clear().await?;
    Ok((agent, peer))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "thousands of workloads are exact"
)]
fn figures(
    count: usize,
    ratio: f64,
    (ours, peer): (f64, f64),
    (idle, full): (Resident, Resident),
) -> Vec<Figure> {
    let each = |idle: f64, full: f64| (full - idle).max(0.0) / count as f64;
    vec![
        Figure {
            figure: "P7",
            value: ratio,
            target: Some(2.0),
            ours,
            peer: Some(peer),
            unit: "s",
            note: format!(
                "{count} Workloads of {COMPONENTS} components, from the start of an agent that has these on disk until a watch has \
                 seen all Ready; the bare client applies the same statuses, {IN_FLIGHT} at a time"
            ),
        },
        Figure {
            figure: "P8",
            value: each(idle.total, full.total),
            target: Some(64.0),
            ours: full.total,
            peer: Some(idle.total),
            unit: "KiB",
            note: format!(
                "resident memory with {count} Workloads, less what it is with none, a Workload; of its own (anonymous): {:.1} KiB",
                each(idle.anonymous, full.anonymous)
            ),
        },
    ]
}
