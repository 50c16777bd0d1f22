//! A component that goes wrong harms its own request and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::local::{Local, workload};

/// Longest time for a neighbour's answer; a loaded machine takes some of it.
const QUICK: Duration = Duration::from_millis(700);

/// A component that goes wrong as it is asked to, and a neighbour.
async fn start(component: Value) -> Result<Local> {
    let faulty = workload("faulty", "faults", component);
    let local = Local::of(&[faulty, workload("neighbour", "v1", json!({}))]).await?;
    local.ready(&["faulty", "neighbour"]).await?;
    Ok(local)
}

/// Both answer as if nothing had been.
async fn well(local: &Local) -> Result<()> {
    local.expect("faulty.test", "/ok", (200, "ok\n")).await?;
    local.expect("neighbour.test", "/", (200, "v1")).await
}

#[tokio::test]
async fn what_traps_is_a_failed_request_and_no_more() -> Result<()> {
    let local = start(json!({})).await?;
    for path in ["/panic", "/stack", "/no-response"] {
        for _ in 0..3 {
            let (status, body) = local.get("faulty.test", path).await?;
            ensure!(status == 500, "{path}: {status}: {body}");
            ensure!(
                !body.contains("wasm"),
                "it tells a stranger too much: {body}"
            );
            well(&local).await.context(path)?;
        }
    }
    // The log tells the operator what the client is not told.
    local.says(r#""reason":"Trapped""#).await
}

#[tokio::test]
async fn a_body_that_breaks_off_is_seen_to() -> Result<()> {
    let local = start(json!({})).await?;
    for _ in 0..3 {
        let mut response = local.send("faulty.test", "/drop-body").await?;
        ensure!(response.status() == 200, "{}", response.status());
        let first = response.chunk().await?;
        ensure!(
            first.is_some_and(|first| first.starts_with(b"the first half, and ")),
            "the body does not begin as it should"
        );
        let rest = response.bytes().await;
        ensure!(rest.is_err(), "it came to an end: {rest:?}");
        well(&local).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_loop_without_end_is_stopped_and_neighbours_stay_quick() -> Result<()> {
    let local = start(json!({"requestTimeoutSeconds": 1})).await?;
    let spin = async || {
        let begun = Instant::now();
        let (status, body) = local.get("faulty.test", "/spin").await?;
        let took = begun.elapsed();
        ensure!(status == 504, "{status}: {body}");
        ensure!(
            (0.9..4.0).contains(&took.as_secs_f64()),
            "stopped after {took:?}"
        );
        Ok(())
    };
    let neighbour = async || {
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_millis(900) {
            let asked = Instant::now();
            local.expect("neighbour.test", "/", (200, "v1")).await?;
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ensure!(slowest < QUICK, "a neighbour's answer took {slowest:?}");
        eprintln!("beside four endless loops the neighbour's slowest answer took {slowest:?}");
        Ok(())
    };
    tokio::try_join!(spin(), spin(), spin(), spin(), neighbour())?;
    well(&local).await
}

#[tokio::test]
async fn memory_ends_at_the_limit() -> Result<()> {
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    let local = start(limits).await?;
    for _ in 0..3 {
        let (status, body) = local.get("faulty.test", "/alloc").await?;
        let mib = body
            .strip_prefix("refused at ")
            .and_then(|rest| rest.strip_suffix(" MiB\n"));
        let mib: Option<u32> = mib.and_then(|mib| mib.parse().ok());
        ensure!(
            status == 200 && mib.is_some_and(|mib| (8..=16).contains(&mib)),
            "{status}: {body}"
        );
        well(&local).await?;
    }
    Ok(())
}
