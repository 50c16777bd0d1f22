//! Edits are rolled without a failed request, and what is deleted finishes what it began.

mod deletion;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, objects, with_namespace};

use crate::{
    load::{Load, Tally},
    stage::{HEAL, START, Stage, ready},
};

/// A changed ConfigMap or Secret is noticed by asking, every half minute.
const NOTICED: Duration = Duration::from_secs(45);

#[tokio::test]
async fn an_edited_image_is_rolled_without_a_failed_request() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = both(&stage, ns).await?;
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        ready(ns, "app").await?;
        let before = ready_condition(&ns.get("Workload", "app").await?)?;

        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        load.more(100).await?;
        edit(ns, "app", image(&v2)).await?;
        says(&stage, "v2", HEAL).await?;
        load.more(200).await?;
        let tally = load.stop_without_failure().await?;
        told_in_order(&tally, &["v1", "v2"])?;

        let after = generation_serves(ns, "app", 2).await?;
        ensure!(
            after.last_transition_time == before.last_transition_time,
            "Ready flipped: {before:?}, {after:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn edited_configuration_is_rolled_without_a_failed_request() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let config = stage.push(ns, "config", "v1").await?;
        ns.apply_yaml(&objects_of_config("1", "1")).await?;
        ns.apply_yaml(&configured(&stage, &config, "1")).await?;
        ready(ns, "app").await?;
        says(&stage, "inline=1\nmap=1\nsecret=1\n", HEAL).await?;

        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        // Two at once, as each takes half a minute.
        ns.apply_yaml(&objects_of_config("2", "2")).await?;
        says(&stage, "inline=1\nmap=2\nsecret=2\n", NOTICED).await?;
        ns.apply_yaml(&configured(&stage, &config, "2")).await?;
        says(&stage, "inline=2\nmap=2\nsecret=2\n", HEAL).await?;
        load.more(50).await?;
        let tally = load.stop_without_failure().await?;
        let bodies = |told: &Vec<String>| (3..=4).contains(&told.len());
        ensure!(tally.told.iter().all(bodies), "{tally:?}");
        // What the objects say is no new generation, and Ready tells so.
        generation_serves(ns, "app", 2).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn requests_in_flight_finish_on_the_old_generation() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let slow = stage.push(ns, "slow", "v1").await?;
        let v2 = stage.push(ns, "v2", "v2").await?;
        ns.apply_yaml(&stage.workload("app", &slow)).await?;
        ready(ns, "app").await?;

        let mut streamed = begin(&stage, "/?ms=1000&chunks=8").await?;
        let whole = stage.agent.get("app.test", "/?ms=6000");
        let rolled = async {
            edit(ns, "app", image(&v2)).await?;
            says(&stage, "v2", HEAL).await
        };
        let (whole, rolled) = tokio::join!(whole, rolled);
        rolled?;
        ensure!(whole? == (200, "slept 6000 ms\n".to_owned()));
        ensure!(rest(&mut streamed).await?.ends_with("chunk 8\n"));
        says(&stage, "v2", HEAL).await
    })
    .await
}

#[tokio::test]
async fn there_and_back_again_ends_where_it_began() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = both(&stage, ns).await?;
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        ready(ns, "app").await?;

        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        edit(ns, "app", image(&v2)).await?;
        edit(ns, "app", image(&v1)).await?;
        generation_serves(ns, "app", 3).await?;
        load.more(100).await?;
        let tally = load.stop_without_failure().await?;
        let last = tally.told.iter().filter_map(|told| told.last());
        ensure!(last.into_iter().all(|last| last == "v1"), "{tally:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_many_quick_edits_the_last_one_stays() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let config = stage.push(ns, "config", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &config)).await?;
        ready(ns, "app").await?;

        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        let started = Instant::now();
        for n in 1..=20_u32 {
            edit(ns, "app", json!({"components": [with_config(&config, n)]})).await?;
            let next = Duration::from_millis(100) * n;
            tokio::time::sleep(next.saturating_sub(started.elapsed())).await;
        }
        generation_serves(ns, "app", 21).await?;
        says(&stage, "n=20\n", HEAL).await?;
        load.more(50).await?;
        let tally = load.stop_without_failure().await?;
        for told in &tally.told {
            let numbers: Vec<u32> = told.iter().map(|body| number(body)).collect();
            ensure!(numbers.is_sorted(), "an older one came back: {numbers:?}");
            ensure!(numbers.last() == Some(&20), "{numbers:?}");
        }
        Ok(())
    })
    .await
}

// === what they have in common ===

async fn both(stage: &Stage, ns: &TestNamespace) -> Result<(String, String)> {
    Ok((
        stage.push(ns, "v1", "v1").await?,
        stage.push(ns, "v2", "v2").await?,
    ))
}

fn image(image: &str) -> Value {
    json!({"components": [{"name": "app", "image": image, "imagePullSecret": {"name": "login"}}]})
}

fn with_config(image: &str, n: u32) -> Value {
    json!({"name": "app", "image": image, "imagePullSecret": {"name": "login"},
        "localResources": {"config": {"n": n.to_string()}}})
}

/// The number that `n=NUMBER` tells; none is 0.
fn number(body: &str) -> u32 {
    let number = body.trim().strip_prefix("n=");
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A workload with one value of each origin.
fn configured(stage: &Stage, image: &str, inline: &str) -> String {
    stage.workload("app", image)
        + &format!(
            "  - namespace: wasi
    package: config
    interfaces: [store]
    config: {{inline: '{inline}'}}
    configFrom: [{{name: map}}]
    secretFrom: [{{name: secret}}]
"
        )
}

fn objects_of_config(map: &str, secret: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{map: '{map}'}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: secret}}\nstringData: {{secret: '{secret}'}}\n"
    )
}

async fn edit(ns: &TestNamespace, name: &str, spec: Value) -> Result<()> {
    let (api, params) = (ns.api("Workload")?, PatchParams::default());
    let patch = Patch::Merge(json!({"spec": spec}));
    let edited = api.patch(name, &params, &patch).await;
    edited.context("editing a Workload").map(drop)
}

async fn says(stage: &Stage, body: &str, limit: Duration) -> Result<()> {
    eventually(&format!("`{body}` from app.test"), limit, async || {
        let got = stage.agent.get("app.test", "/").await?;
        Ok(if got.0 == 200 && got.1 == body {
            Ok(())
        } else {
            Err(got)
        })
    })
    .await
}

fn told_in_order(tally: &Tally, bodies: &[&str]) -> Result<()> {
    ensure!(tally.told.iter().all(|told| told == bodies), "{tally:?}");
    Ok(())
}

fn ready_condition(object: &DynamicObject) -> Result<objects::Condition> {
    objects::condition(object, "Ready").context("no condition Ready")
}

/// Waits until this generation is what serves, and nothing else is under way.
async fn generation_serves(ns: &TestNamespace, name: &str, n: i64) -> Result<objects::Condition> {
    let serves = |object: &DynamicObject| {
        let ready = ready_condition(object)
            .is_ok_and(|c| c.status == "True" && c.observed_generation == Some(n));
        ready
            && objects::condition(object, "Reconciling").is_none()
            && objects::condition(object, "Stalled").is_none()
    };
    ready_condition(&ns.wait_for("Workload", name, serves, HEAL).await?)
}

/// Begins a request, and waits for the first bytes of its body.
async fn begin(stage: &Stage, path: &str) -> Result<reqwest::Response> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(START)
        .build()?;
    let request = client.get(format!("http://{}{path}", stage.agent.http_addr()));
    let mut response = request.header("host", "app.test").send().await?;
    ensure!(response.status() == 200, "{}", response.status());
    let first = response.chunk().await?.context("an empty body")?;
    ensure!(first.starts_with(b"chunk 1\n"), "{first:?}");
    Ok(response)
}

/// The rest of its body.
async fn rest(response: &mut reqwest::Response) -> Result<String> {
    let mut text = String::new();
    while let Some(chunk) = response.chunk().await.context("the body broke off")? {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    Ok(text)
}
