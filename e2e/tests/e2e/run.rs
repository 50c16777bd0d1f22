//! `washlet run`: the same YAML without a cluster.

mod composition;
mod mistakes;
mod reload;
mod terminal;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use washlet_e2e::{ALICE, Artifact, Registry, agent::binary, process::Signal, repository};

use crate::{
    local::{Local, folder, path, wasm, workload, yaml},
    stage::guest,
};

const END: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_first_command_of_the_readme_answers_where_it_says() -> Result<()> {
    let hello = repository().join("examples/hello");
    let local = Local::start(&[path(&hello)?]).await?;
    local.ready(&["hello"]).await?;
    local
        .says(&format!("curl http://{}/", local.address))
        .await?;
    let (status, body) = local.get("any.test", "/").await?;
    ensure!(
        status == 200 && body.starts_with("Hello"),
        "{status}: {body}"
    );
    Ok(())
}

#[tokio::test]
async fn what_means_nothing_without_a_cluster_is_named_and_skipped() -> Result<()> {
    let deployment =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let local = Local::of(&[deployment, workload("app", "v1", json!({}))]).await?;
    local.answers("app.test", "/", "v1").await?;
    local.says("skipped: Deployment web (").await
}

#[tokio::test]
async fn standard_input_and_folders_are_read() -> Result<()> {
    let dir = folder("run")?;
    fs::write(
        dir.join("one.yaml"),
        yaml(&[workload("one", "v1", json!({}))]),
    )?;
    fs::write(
        dir.join("two.yml"),
        yaml(&[workload("two", "v2", json!({}))]),
    )?;
    fs::write(
        dir.join("three.json"),
        yaml(&[workload("three", "v2", json!({}))]),
    )?;
    fs::write(dir.join("notes.txt"), "not YAML: [")?;
    let local = Local::start(&[path(&dir)?]).await?;
    local.answers("one.test", "/", "v1").await?;
    local.answers("two.test", "/", "v2").await?;
    local.answers("three.test", "/", "v2").await?;

    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"exec "$0" run - --http-listen=127.0.0.1:0 < "$1""#])
        .arg(binary()?)
        .arg(dir.join("one.yaml"));
    Local::spawn(shell)
        .await?
        .answers("one.test", "/", "v1")
        .await
}

#[tokio::test]
async fn an_image_is_pulled_with_the_secret_of_the_same_file() -> Result<()> {
    let registry = Registry::shared().await?;
    registry
        .push("alice/run", "v1", &Artifact::wasm(&guest("v1")?))
        .await?;
    let login = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": ALICE.docker_config_json(&registry.host())}});
    let image =
        json!({"image": registry.image("alice/run", "v1"), "imagePullSecret": {"name": "login"}});
    let file = folder("run")?.join("private.yaml");
    fs::write(&file, yaml(&[workload("app", "v1", image), login]))?;
    let certs = format!("--registry-certs-dir={}", registry.certs_d().display());
    let local = Local::start(&[path(&file)?, &certs]).await?;
    local.answers("app.test", "/", "v1").await
}

#[tokio::test]
async fn both_signals_let_requests_finish() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let mut local = Local::of(&[workload("app", "slow", json!({}))]).await?;
        local.ready(&["app"]).await?;
        let mut response = local.send("app.test", "/?ms=500&chunks=6").await?;
        let first = response.chunk().await?.context("an empty body")?;
        ensure!(first.starts_with(b"chunk 1\n"), "{first:?}");
        local.process.signal(signal)?;
        local.says("stopping").await?;
        ensure!(response.text().await?.ends_with("chunk 6\n"), "{signal:?}");
        ensure!(local.process.wait(END).await? == 0, "{signal:?}");
        ensure!(
            local.get("app.test", "/").await.is_err(),
            "it still listens"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_second_signal_does_not_wait() -> Result<()> {
    let mut local = Local::of(&[workload("app", "slow", json!({}))]).await?;
    local.ready(&["app"]).await?;
    let mut response = local.send("app.test", "/?ms=500&chunks=60").await?;
    response.chunk().await?.context("an empty body")?;
    local.process.signal(Signal::TERM)?;
    local.says("stopping").await?;
    local.process.signal(Signal::TERM)?;
    ensure!(local.process.wait(Duration::from_secs(5)).await? == 0);
    ensure!(response.text().await.is_err(), "it came to an end");
    Ok(())
}

#[tokio::test]
async fn changed_files_are_taken_over() -> Result<()> {
    let dir = folder("run")?;
    let (file, component) = (dir.join("app.yaml"), dir.join("app.wasm"));
    fs::copy(wasm("v1"), &component)?;
    let with_host = |host: &str| {
        let mut app = workload("app", "v1", json!({"image": "file:./app.wasm"}));
        app["spec"]["hostInterfaces"][0]["config"]["host"] = host.into();
        yaml(&[app])
    };
    fs::write(&file, with_host("app.test"))?;
    let local = Local::start(&[path(&file)?]).await?;
    local.answers("app.test", "/", "v1").await?;

    // A compiler replaces its output, and so do editors.
    fs::copy(wasm("v2"), dir.join("new.wasm"))?;
    fs::rename(dir.join("new.wasm"), &component)?;
    local.answers("app.test", "/", "v2").await?;
    fs::write(dir.join("new.yaml"), with_host("other.test"))?;
    fs::rename(dir.join("new.yaml"), &file)?;
    local.answers("other.test", "/", "v2").await?;
    local
        .expect(
            "app.test",
            "/",
            (404, "no workload here serves this host and path\n"),
        )
        .await?;

    fs::write(
        &file,
        with_host("other.test").replace("hostInterfaces", "hostInterfazes"),
    )?;
    local.says("what was running goes on").await?;
    local.says("hostInterfazes").await?;
    local.expect("other.test", "/", (200, "v2")).await?;
    fs::write(&file, with_host("app.test"))?;
    local.answers("app.test", "/", "v2").await?;

    fs::write(&component, b"no component at all")?;
    local.says("NotAComponent").await?;
    local.expect("app.test", "/", (200, "v2")).await?;
    fs::copy(wasm("v1"), &component)?;
    local.answers("app.test", "/", "v1").await
}

#[tokio::test]
async fn a_component_that_is_yet_to_be_built_is_waited_for() -> Result<()> {
    let dir = folder("run")?;
    let (file, built) = (dir.join("app.yaml"), dir.join("built"));
    fs::create_dir(&built)?;
    fs::write(&file, yaml(&[workload("app", "v1", json!({}))]))?;
    let local = Local::start(&[path(&file)?]).await?;
    local.answers("app.test", "/", "v1").await?;

    let image = json!({"image": "file:./built/app.wasm"});
    fs::write(&file, yaml(&[workload("app", "v1", image)]))?;
    local.says("there is no file").await?;
    local.expect("app.test", "/", (200, "v1")).await?;
    fs::copy(wasm("v2"), built.join("app.wasm"))?;
    local.answers("app.test", "/", "v2").await
}

#[tokio::test]
async fn a_workload_that_leaves_the_files_is_stopped() -> Result<()> {
    let file = folder("run")?.join("two.yaml");
    let (one, two) = (
        workload("one", "v1", json!({})),
        workload("two", "v2", json!({})),
    );
    fs::write(&file, yaml(&[one.clone(), two]))?;
    let local = Local::start(&[path(&file)?]).await?;
    local.answers("one.test", "/", "v1").await?;
    local.answers("two.test", "/", "v2").await?;
    fs::write(&file, yaml(&[one]))?;
    local.says("default/two: stopped").await?;
    local
        .expect(
            "two.test",
            "/",
            (404, "no workload here serves this host and path\n"),
        )
        .await?;
    local.expect("one.test", "/", (200, "v1")).await
}

#[tokio::test]
async fn an_instance_serves_as_many_requests_at_a_time_as_its_manifest_says() -> Result<()> {
    let component = json!({"poolSize": 1, "maxConcurrency": 2, "requestTimeoutSeconds": 60});
    let local = Local::of(&[workload("app", "counter-p3", component)]).await?;
    local.ready(&["app"]).await?;
    let ask = || local.get("app.test", "/?ms=5000");
    let (one, two, three) = tokio::try_join!(ask(), ask(), ask())?;
    let mut answers = [one.1, two.1, three.1];
    answers.sort_unstable();
    // Two in one, and the third has one of its own.
    let wanted = [
        "served 1 together 1\n",
        "served 1 together 1\n",
        "served 2 together 2\n",
    ];
    ensure!(answers == wanted, "{answers:?}");
    Ok(())
}
