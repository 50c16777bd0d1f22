//! Figures, printed and not judged: this machine's speed is nobody's promise. `cargo xtask test figures -- --nocapture`.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use washlet_e2e::with_namespace;

use crate::stage::{Stage, ready};

/// Workloads whose start is timed.
const STARTS: usize = 20;

#[tokio::test]
async fn from_apply_to_ready_and_idle_memory() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let idle = resident(stage.agent.id())?;
        let image = stage.push(ns, "v1", "v1").await?;
        // Pulls and compiles once, so that the others come from the cache.
        ns.apply_yaml(&stage.workload("first", &image)).await?;
        ready(ns, "first").await?;

        let mut ready_after = Vec::new();
        let mut inside = Vec::new();
        for number in 0..STARTS {
            let name = format!("timed-{number}");
            let begun = Instant::now();
            ns.apply_yaml(&stage.workload(&name, &image)).await?;
            ready(ns, &name).await?;
            ready_after.push(begun.elapsed().as_secs_f64() * 1000.0);
            let object = ns.get("Workload", &name).await?;
            let total = object.data["status"]["timings"]["total"].as_str();
            inside.push(total.context("a total in status.timings")?.to_owned());
        }
        ready_after.sort_by(f64::total_cmp);
        inside.sort_by_key(|text| text.len());
        println!(
            "figures: apply to Ready of a cached component: median {:.0} ms of {STARTS} (seen by polling); \
             within the agent, for example: {}",
            ready_after[STARTS / 2],
            inside[STARTS / 2],
        );
        println!(
            "figures: resident memory of the agent: {idle} KiB idle, {} KiB with {} workloads",
            resident(stage.agent.id())?,
            STARTS + 1,
        );
        Ok(())
    })
    .await
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|n| n.parse().ok())
        .context("no VmRSS in /proc")
}
