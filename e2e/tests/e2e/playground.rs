//! `cargo xtask cluster` comes up, says how to use it, and leaves nothing behind.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use washlet_e2e::{cluster::Cluster, eventually, process::Process, run_dir};

const UP: Duration = Duration::from_secs(120);
const GONE: Duration = Duration::from_secs(20);

/// Both want the same port for the registry, and would find it free at the same moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Running {
    process: Process,
    said: String,
    cluster: Cluster,
}

async fn start() -> Result<Running> {
    let log = run_dir::subdir("playground")?.join("log");
    let command = Command::new(env!("CARGO_BIN_EXE_washlet-playground"));
    let mut process = Process::spawn("washlet-playground", command, &log)?;
    let said = eventually("the playground tells how to use it", UP, async || {
        process.check_running()?;
        let said = std::fs::read_to_string(&log).context("reading its output")?;
        Ok(if said.contains("curl") {
            Ok(said)
        } else {
            Err(said)
        })
    })
    .await?;
    let kubeconfig = said
        .lines()
        .find_map(|line| line.strip_prefix("export KUBECONFIG="));
    let kubeconfig = PathBuf::from(kubeconfig.context("no KUBECONFIG")?);
    let cluster = Cluster::given(kubeconfig)?;
    Ok(Running {
        process,
        said,
        cluster,
    })
}

/// Waits until the API server refuses connections and the files are gone.
async fn wait_gone(cluster: &Cluster, client: &kube::Client) -> Result<()> {
    eventually("nothing is left of the playground", GONE, async || {
        let answers = client.apiserver_version().await.is_ok();
        let files = cluster.kubeconfig().exists();
        Ok(if answers || files {
            Err((answers, files))
        } else {
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn the_playground_is_ready_to_use_and_sigterm_ends_it() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut running = start().await?;
    let client = running.cluster.client().await?;
    let node = running
        .cluster
        .kubectl(&["get", "node", "playground", "-o", "name"])
        .await?;
    ensure!(node.trim() == "node/playground", "{node}");
    ensure!(
        running.said.contains("--registry-certs-dir") && running.said.contains("alice"),
        "{}",
        running.said
    );
    let crds = running
        .cluster
        .kubectl(&["get", "crd", "-o", "name"])
        .await?;
    ensure!(crds.contains("workloads.runtime.wasmcloud.dev"), "{crds}");

    ensure!(running.process.terminate(GONE).await? == 0);
    wait_gone(&running.cluster, &client).await
}

#[tokio::test]
async fn nothing_outlives_a_playground_that_is_killed() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut running = start().await?;
    let client = running.cluster.client().await?;
    running.process.kill9();
    wait_gone(&running.cluster, &client).await
}
