//! An agent's end: what is in flight finishes, and whoever looks is told. And what keeps it from beginning.

use std::{fs, net::TcpListener, time::Duration};

use anyhow::{Context as _, Result, ensure};
use washlet_e2e::{TestNamespace, eventually, objects, process::Signal, with_namespace};

use crate::{
    local::{ends, folder, path},
    stage::{HEAL, Stage, ready, says},
};

const END: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sigterm_drains_and_says_so() -> Result<()> {
    with_namespace(async |ns| {
        let (mut stage, response) = busy(ns, 10).await?;
        stage.agent.process().signal(Signal::TERM)?;
        let reason = Some("Draining");
        ns.wait_for_condition(("Workload", "app"), ("Ready", "False"), reason, HEAL)
            .await?;
        // Said at once, not at the end.
        ensure!(stage.agent.get_admin("/readyz").await?.0 == 503);
        ensure!(stage.agent.get_admin("/livez").await?.0 == 200);
        let rest = response.text().await.context("the body broke off")?;
        ensure!(rest.ends_with("chunk 10\n"), "{rest}");
        ensure!(stage.agent.process().wait(END).await? == 0);

        let lease = ns.get("Lease", ns.name()).await?;
        let holder = lease.data["spec"]["holderIdentity"].as_str();
        ensure!(holder.unwrap_or_default().is_empty(), "{holder:?}");
        ensure!(
            lease.data["spec"]["renewTime"].is_string(),
            "{:?}",
            lease.data
        );
        let host = objects::condition(&ns.get("Host", ns.name()).await?, "Ready");
        let host = host.context("no condition")?;
        ensure!(
            (host.status.as_str(), host.reason.as_str()) == ("False", "Draining"),
            "{host:?}"
        );

        // And it begins again where it ended.
        stage.agent.restart().await?;
        ready(ns, "app").await?;
        let is_ready = |host: &kube::api::DynamicObject| {
            objects::condition(host, "Ready").is_some_and(|c| c.status == "True")
        };
        ns.wait_for("Host", ns.name(), is_ready, HEAL)
            .await
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn a_second_sigterm_does_not_wait_for_requests() -> Result<()> {
    with_namespace(async |ns| {
        let (mut stage, response) = busy(ns, 100).await?;
        stage.agent.process().signal(Signal::TERM)?;
        let reason = Some("Draining");
        ns.wait_for_condition(("Workload", "app"), ("Ready", "False"), reason, HEAL)
            .await?;
        stage.agent.process().signal(Signal::TERM)?;
        ensure!(stage.agent.process().wait(Duration::from_secs(12)).await? == 0);
        ensure!(response.text().await.is_err(), "it came to an end");
        let lease = ns.get("Lease", ns.name()).await?;
        let holder = lease.data["spec"]["holderIdentity"].as_str();
        ensure!(holder.unwrap_or_default().is_empty(), "{holder:?}");
        Ok(())
    })
    .await
}

/// An agent with a request in flight, that takes half a second for each of its chunks.
async fn busy(ns: &TestNamespace, chunks: u32) -> Result<(Stage, reqwest::Response)> {
    let stage = Stage::new(ns).await?;
    let slow = stage.push(ns, "slow", "v1").await?;
    ns.apply_yaml(&stage.workload("app", &slow)).await?;
    ready(ns, "app").await?;
    let client = reqwest::Client::builder().no_proxy().timeout(END).build()?;
    let url = format!("http://{}/?ms=500&chunks={chunks}", stage.agent.http_addr());
    let mut response = client.get(url).header("host", "app.test").send().await?;
    let first = response.chunk().await?.context("an empty body")?;
    ensure!(first.starts_with(b"chunk 1\n"), "{first:?}");
    Ok((stage, response))
}

// === what keeps it from beginning ===

/// Starts an agent that cannot begin, and gives what it says.
async fn refused(changed: &[&str]) -> Result<String> {
    let dir = folder("refused")?;
    let kubeconfig = dir.join("kubeconfig");
    washlet_e2e::cluster::write_kubeconfig(
        &kubeconfig,
        "https://127.0.0.1:1",
        b"",
        "token",
        "default",
    )?;
    let kubeconfig = format!("--kubeconfig={}", path(&kubeconfig)?);
    let state = format!("--state-dir={}", path(&dir.join("state"))?);
    let mut arguments = vec!["agent", "--node-name=node", &kubeconfig];
    let defaults = [
        state.as_str(),
        "--http-listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
    let kept = defaults
        .iter()
        .filter(|d| changed.iter().all(|c| flag(c) != flag(d)));
    arguments.extend(kept.copied().chain(changed.iter().copied()));
    let (code, said) = ends(&arguments).await?;
    ensure!(code == Some(1), "exit code {code:?}: {said}");
    Ok(said)
}

#[tokio::test]
async fn a_busy_port_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let said = refused(&[&format!("--admin-listen={address}")]).await?;
    says(&said, &["--admin-listen", &address])?;
    let said = refused(&[&format!("--http-listen={address}")]).await?;
    says(&said, &[&address])
}

#[tokio::test]
async fn an_address_that_cannot_be_advertised_is_named() -> Result<()> {
    let said = refused(&[
        "--advertise-address=10.0.0.1",
        "--advertise-address=10.0.0.2",
    ])
    .await?;
    says(
        &said,
        &["--advertise-address 10.0.0.2", "same family as 10.0.0.1"],
    )
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_named() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let taken = path(stage.agent.state_dir())?;
        let said = refused(&[&format!("--state-dir={taken}")]).await?;
        says(&said, &["--state-dir", taken, "another agent"])?;
        let file = folder("refused")?.join("file");
        fs::write(&file, "")?;
        let said = refused(&[&format!("--state-dir={}", path(&file)?)]).await?;
        says(&said, &["--state-dir", path(&file)?])
    })
    .await
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() -> Result<()> {
    let missing = folder("refused")?.join("missing");
    let flag = format!("--kubeconfig={}", path(&missing)?);
    let (code, said) = ends(&["agent", "--node-name=node", &flag]).await?;
    ensure!(code == Some(1), "exit code {code:?}: {said}");
    says(&said, &["--kubeconfig", path(&missing)?])
}

#[tokio::test]
async fn a_wrong_flag_is_a_wrong_use() -> Result<()> {
    let cases: [(&[&str], &str); 7] = [
        (&["agent", "--node-nam=x"], "--node-name"),
        (&["run", "--http-lisen=127.0.0.1:0", "."], "--http-listen"),
        (&["agnt"], "agent"),
        (&["agent"], "--node-name"),
        (&["run"], "<FILE|FOLDER|->"),
        (&["probe"], "URL"),
        (&["probe", "https://localhost/"], "http://HOST"),
    ];
    for (arguments, part) in cases {
        let (code, said) = ends(arguments).await?;
        ensure!(code == Some(2), "{arguments:?}: exit code {code:?}: {said}");
        says(&said, &[part])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_probe_tells_by_its_exit_code() -> Result<()> {
    let closed = format!("http://127.0.0.1:{}/", washlet_e2e::ports::free()?);
    let (code, said) = ends(&["probe", "--wait=0s", &closed]).await?;
    ensure!(code == Some(1), "exit code {code:?}: {said}");
    says(&said, &["1 of 1"])?;
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let url = format!("http://{}/livez", stage.agent.admin_addr());
        let (code, said) = ends(&["probe", &url, &url]).await?;
        ensure!(code == Some(0), "exit code {code:?}: {said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_drained_agent_is_gone_soon() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let begun = std::time::Instant::now();
        ensure!(stage.agent.terminate().await? == 0);
        let took = begun.elapsed();
        ensure!(
            took < Duration::from_secs(6),
            "it took {took:?} though nothing was in flight"
        );
        // Its status outlives it.
        eventually("Ready is False", HEAL, async || {
            let ready = objects::condition(&ns.get("Workload", "app").await?, "Ready");
            let drained = ready.as_ref().is_some_and(|c| c.reason == "Draining");
            Ok(if drained { Ok(()) } else { Err(ready) })
        })
        .await
    })
    .await
}
