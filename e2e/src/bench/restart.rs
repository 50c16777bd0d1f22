//! P14: an agent that was killed, until all that it served is served again.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Figure, Options,
    figure::median,
    scene::{LIMIT, Scene, host},
};
use crate::{agent::Agent, tls};

const WORKLOADS: usize = 1000;
const COMPONENTS: usize = 50;
/// Between two questions whether a route answers.
const POLL: Duration = Duration::from_millis(2);
/// Time for the agent to be at rest before it is killed.
const SETTLE: Duration = Duration::from_secs(5);

#[expect(clippy::cast_precision_loss, reason = "megabytes are exact")]
pub(super) async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let count = options.workloads.unwrap_or(WORKLOADS);
    let mut scene = Scene::new(options, COMPONENTS.min(count), false).await?;
    let mut agent = scene.agent().await?;
    scene.create(scene.images.len()).await?;
    scene.readiness(scene.images.len()).await?.all().await?;
    scene.clear().await?;
    let names = scene.create(count).await?;
    scene.readiness(count).await?.all().await?;
    scene.registry.stop();

    let compiled = agent.state_dir().join("compiled");
    let (mut took, mut read, mut bytes) = (Vec::new(), Vec::new(), 0);
    for round in 1..=options.rounds {
        tokio::time::sleep(SETTLE).await;
        agent.kill9();
        let begun = Instant::now();
        bytes = read_all(&compiled)?;
        read.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        agent.restart().await?;
        let listening = begun.elapsed();
        all_answer(&agent, &names).await?;
        took.push(begun.elapsed().as_secs_f64());
        eprintln!(
            "round {round}: listening after {listening:.2?}, all serve after {took:.2?} s; files read in {read:.4?} s"
        );
    }
    ensure!(bytes > 0, "{} has no files", compiled.display());
    let ratio: Vec<f64> = took.iter().zip(&read).map(|(t, r)| t / r).collect();
    let (took, read) = (median(&took), median(&read));
    Ok(vec![
        Figure {
            figure: "P14",
            value: took,
            target: Some(2.0),
            ours: took,
            peer: None,
            unit: "s",
            note: format!(
                "from the start of the process until each of {count} routes has answered 200; the registry is stopped"
            ),
        },
        Figure {
            figure: "P14",
            value: median(&ratio),
            target: None,
            ours: took * 1000.0,
            peer: Some(read * 1000.0),
            unit: "ms",
            note: format!(
                "the same ÷ reading the compiled files that they need: {:.1} MiB, which the system has in memory",
                bytes as f64 / f64::from(1 << 20)
            ),
        },
    ])
}

/// Reads all files of a folder, as what starts again has to; gives how many bytes that were.
fn read_all(folder: &Path) -> Result<usize> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() {
            bytes += fs::read(&path)?.len();
        }
    }
    Ok(bytes)
}

/// Asks each route in turn until it answers.
async fn all_answer(agent: &Agent, names: &[String]) -> Result<()> {
    tls::use_ring();
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.context("making an HTTP client")?;
    let url = format!("http://{}/", agent.http_addr());
    let begun = Instant::now();
    for name in names {
        loop {
            let answer = client.get(&url).header("host", host(name)).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                break;
            }
            ensure!(begun.elapsed() < LIMIT, "{name} does not answer");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
