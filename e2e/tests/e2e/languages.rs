//! Components in other languages than Rust: a real toolchain's output, large and with imports that it does not use, under
//! the limits that an agent has without flags.

use std::{fs, path::PathBuf, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{Artifact, Language, TestNamespace, eventually, with_namespace};

use crate::{
    capabilities::outside,
    local::{Local, workload},
    stage::{HEAL, Stage, guest, repository_of, says},
};

/// Cranelift, in a debug build, takes a minute of two busy cores for an engine of JavaScript or for CPython.
const COMPILE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn c_runs_without_a_cluster() -> Result<()> {
    let environment = json!({"localResources": {"environment": {"config": {"GREETING": "moin"}}}});
    let local = Local::of(&[workload("c", "c", environment)]).await?;
    local.answers("c.test", "/", "Hello from C!\n").await?;
    local
        .expect("c.test", "/env?name=GREETING", (200, "moin\n"))
        .await?;
    local
        .expect("c.test", "/env?name=HOME", (404, "no variable HOME\n"))
        .await?;
    local.expect("c.test", "/count", (200, "1\n")).await?;
    local.expect("c.test", "/count", (200, "1\n")).await?;
    // What it writes to stderr.
    local.expect("c.test", "/lost", (404, "no /lost\n")).await?;
    local.says("no /lost").await
}

#[tokio::test]
async fn components_in_c_javascript_and_python_serve_in_a_cluster() -> Result<()> {
    let javascript = built(Language::JavaScript).await?;
    let python = built(Language::Python).await?;
    let (address, connections) = outside().await?;
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let languages = [
            ("c", "C", guest("c")?, json!({})),
            (
                "js",
                "JavaScript",
                fs::read(&javascript).context("reading the guest in JavaScript")?,
                json!({"allowedHosts": [address]}),
            ),
            (
                "python",
                "Python",
                fs::read(&python).context("reading the guest in Python")?,
                json!({}),
            ),
        ];
        for (name, _, component, resources) in &languages {
            let repository = repository_of(ns, name);
            let artifact = Artifact::wasm(component);
            stage.registry.push(&repository, "v1", &artifact).await?;
            let image = stage.registry.image(&repository, "v1");
            let mut resources = resources.clone();
            resources["environment"] = json!({"config": {"GREETING": "moin"}});
            let kept = json!({"poolSize": 1, "maxInvocations": 3});
            for (suffix, more) in [("", json!({})), ("-kept", kept)] {
                let name = format!("{name}{suffix}");
                ns.apply(in_cluster(&stage, &name, &image, &resources, &more))
                    .await?;
            }
        }
        for (name, language, _, _) in &languages {
            serves(ns, &stage, name, language).await?;
            keeps_its_instances(ns, &stage, &format!("{name}-kept")).await?;
        }
        javascript_calls_out(&stage, &address).await?;
        ensure!(connections.load(Ordering::Relaxed) > 0, "nobody called");
        python_answers_json(&stage).await?;
        python_is_told_what_it_may_not(&stage).await
    })
    .await
}

async fn built(language: Language) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || language.guest()).await?
}

async fn ready(namespace: &TestNamespace, name: &str) -> Result<()> {
    namespace
        .wait_for_condition(("Workload", name), ("Ready", "True"), None, COMPILE)
        .await
        .map(drop)
}

/// What all three have in common.
async fn serves(ns: &TestNamespace, stage: &Stage, name: &str, language: &str) -> Result<()> {
    ready(ns, name).await?;
    let host = format!("{name}.test");
    let hello = format!("Hello from {language}!\n");
    for (path, status, body) in [
        ("/", 200, hello.as_str()),
        ("/env?name=GREETING", 200, "moin\n"),
        ("/env?name=HOME", 404, "no variable HOME\n"),
        ("/lost", 404, "no /lost\n"),
        // An instance for each request.
        ("/count", 200, "1\n"),
        ("/count", 200, "1\n"),
    ] {
        let got = stage.answers(&host, path, status, HEAL).await?;
        ensure!(got == body, "{host}{path}: {got:?}, not {body:?}");
    }
    // More than any buffer on the way.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (status, got) = post(stage, &host, "/echo", sent.clone()).await?;
    ensure!(
        status == 200 && got == sent,
        "{host}/echo: {status}, {} bytes of {}",
        got.len(),
        sent.len()
    );
    Ok(())
}

/// Three requests to an instance, then a new one. A request that comes while the instance is still busy with the end of the last
/// one has another, which is not kept.
async fn keeps_its_instances(ns: &TestNamespace, stage: &Stage, name: &str) -> Result<()> {
    ready(ns, name).await?;
    let host = format!("{name}.test");
    let mut counts = Vec::new();
    while !counts.ends_with(&["1\n", "2\n", "3\n", "1\n"].map(str::to_owned)) {
        ensure!(counts.len() < 24, "{name}: {counts:?}");
        counts.push(stage.answers(&host, "/count", 200, HEAL).await?);
    }
    let most = counts.iter().max().map(String::as_str);
    ensure!(most == Some("3\n"), "{name}: {counts:?}");
    Ok(())
}

async fn javascript_calls_out(stage: &Stage, address: &str) -> Result<()> {
    let path = format!("/fetch?url=http://{address}/");
    let got = stage.answers("js.test", &path, 200, HEAL).await?;
    ensure!(got == "from outside", "{got}");
    // `fetch` tells nobody why, as in a browser; the agent's log does.
    let denied = "/fetch?url=http://example.com/";
    let got = stage.answers("js.test", denied, 502, HEAL).await?;
    ensure!(got.starts_with("TypeError: NetworkError"), "{got}");
    // The log is written behind the answer.
    eventually("the agent's log tells why", HEAL, async || {
        let log = stage.agent.log()?;
        let told = ["http://example.com:80", "calling http://example.com/"];
        Ok(says(&log, &told).map_err(|error| error.to_string()))
    })
    .await
}

async fn python_answers_json(stage: &Stage) -> Result<()> {
    let sent = br#"{"numbers": [1, 2.5]}"#.to_vec();
    let (status, got) = post(stage, "python.test", "/sum", sent).await?;
    let got: Value = serde_json::from_slice(&got).context("an answer that is no JSON")?;
    ensure!(
        status == 200 && got == json!({"count": 2, "sum": 3.5}),
        "{status}: {got}"
    );
    let (status, _) = post(stage, "python.test", "/sum", b"no JSON".to_vec()).await?;
    ensure!(status == 400, "{status}");
    Ok(())
}

/// It imports files and sockets; using them fails as it does for a process without rights, and nothing traps.
async fn python_is_told_what_it_may_not(stage: &Stage) -> Result<()> {
    let path = "/reach?tcp=127.0.0.1:1";
    let got = stage.answers("python.test", path, 200, HEAL).await?;
    says(&got, &["open: ", "list: ", "connect: ", "lookup: "])?;
    ensure!(!got.contains("reached"), "{got}");
    Ok(())
}

async fn post(stage: &Stage, host: &str, path: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>)> {
    let response = reqwest::Client::builder()
        .no_proxy()
        .timeout(HEAL)
        .build()?
        .post(format!("http://{}{path}", stage.agent.http_addr()))
        .header("host", host)
        .body(body)
        .send()
        .await
        .with_context(|| format!("posting to {host}{path}"))?;
    let status = response.status().as_u16();
    let body = response.bytes().await.context("half an answer")?;
    Ok((status, body.to_vec()))
}

fn in_cluster(stage: &Stage, name: &str, image: &str, resources: &Value, more: &Value) -> Value {
    let mut workload = workload(name, "c", more.clone());
    workload["spec"]["hostId"] = stage.agent.node().into();
    let app = &mut workload["spec"]["components"][0];
    app["image"] = image.into();
    app["imagePullSecret"] = json!({"name": "login"});
    app["localResources"] = resources.clone();
    workload
}
