//! From `helm install` to `helm uninstall`, and again.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use washlet_e2e::{NodeCluster, TestNamespace, with_node_cluster};

use super::{Site, WAIT, WASHLET, container, step};
use crate::{
    load::{Load, Tally},
    stage::ready,
};

#[tokio::test]
async fn one_helm_command_and_all_that_follows() -> Result<()> {
    with_node_cluster(
        "real_node::install::one_helm_command_and_all_that_follows",
        async |node| {
            TestNamespace::in_cluster(node.cluster())
                .await?
                .run(async |ns| life_of_a_release(node, ns).await)
                .await
        },
    )
    .await
}

async fn life_of_a_release(node: &NodeCluster, ns: &TestNamespace) -> Result<()> {
    let site = Site::new(node, ns).await?;
    let begun = Instant::now();
    let notes = step(
        "helm install",
        site.helm("install", &["--create-namespace"]),
    )
    .await?;
    ensure!(notes.contains("kubectl "), "no next command in:\n{notes}");
    step("a Workload with no host is placed and Ready", async {
        site.apply_workload("hello").await?;
        ready(ns, "hello").await
    })
    .await?;
    let address = site.address("hello").await?;
    step("its Service answers", site.answers(address)).await?;
    println!(
        "figures: from `helm install` to the first 200 through the Service: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    placed_on_a_node(&site).await?;
    if node.is_own() {
        memory(&site).await?;
    }
    step("helm test", node.helm(&["test", WASHLET, "-n", WASHLET])).await?;
    let failures = upgrade_and_rollback(&site).await?;
    uninstall_and_reinstall(&site).await?;
    // Last, so that one lost request does not hide what the rest of the release's life shows.
    ensure!(
        failures.is_empty(),
        "{} requests failed: {failures:?}",
        failures.len()
    );
    Ok(())
}

/// The host is a Node, and the restricted namespace has all pods of the release.
async fn placed_on_a_node(site: &Site<'_>) -> Result<()> {
    let workload = site.ns.get("Workload", "hello").await?;
    let host = workload.data["status"]["hostId"].as_str();
    let host = host.context("no status.hostId")?.to_owned();
    site.ns
        .cluster()
        .kubectl(&["get", "node", &host])
        .await
        .with_context(|| format!("the host {host} is no Node"))?;
    ensure!(site.pods("controller").await?.len() == 2);
    site.rolled_out().await
}

async fn memory(site: &Site<'_>) -> Result<()> {
    for component in ["agent", "controller"] {
        for pod in site.pods(component).await? {
            let id = container(&pod).context("a pod without a container")?;
            let pid = site.node.process_of(&id)?;
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let resident = status.lines().find(|line| line.starts_with("VmRSS:"));
            let uid = status.lines().find(|line| line.starts_with("Uid:"));
            ensure!(uid.is_some_and(|uid| uid.contains("65532")), "{uid:?}");
            println!(
                "figures: resident memory of {}: {} (this build)",
                pod.metadata.name.unwrap_or_default(),
                resident
                    .and_then(|line| line.strip_prefix("VmRSS:"))
                    .context("no VmRSS")?
                    .trim()
            );
        }
    }
    Ok(())
}

/// Both replace every agent's pod, the new one beside the old one, under load through the Service.
/// Gives the requests that failed.
async fn upgrade_and_rollback(site: &Site<'_>) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for (verb, round) in [("upgrade", Some("two")), ("rollback", None)] {
        let old: Vec<_> = uids(site).await?;
        let load = Load::start(site.address("hello").await?, "any.example", "/");
        load.more(50).await?;
        step(&format!("helm {verb}"), async {
            if let Some(round) = round {
                let value = format!("podAnnotations.round={round}");
                site.helm("upgrade", &["--set", &value]).await?;
            } else {
                let fixed = ["rollback", WASHLET, "1", "-n", WASHLET];
                site.node.helm(&[&fixed, WAIT.as_slice()].concat()).await?;
            }
            site.rolled_out().await
        })
        .await?;
        load.more(200).await?;
        let tally = load.stop().await?;
        report(verb, &tally);
        ensure!(tally.answers > 200, "{tally:?}");
        failures.extend(tally.failures);
        let new = uids(site).await?;
        ensure!(new.iter().all(|uid| !old.contains(uid)), "no new pod");
        for pod in site.pods("agent").await? {
            let annotations = pod.metadata.annotations.unwrap_or_default();
            ensure!(annotations.get("round").map(String::as_str) == round);
        }
    }
    Ok(failures)
}

fn report(verb: &str, tally: &Tally) {
    println!(
        "figures: helm {verb} under load through the Service: {} requests, {} failed, slowest {:.0} ms, {} connections",
        tally.answers + tally.failures.len(),
        tally.failures.len(),
        tally.slowest.as_secs_f64() * 1000.0,
        tally.connections,
    );
}

async fn uids(site: &Site<'_>) -> Result<Vec<Option<String>>> {
    let pods = site.pods("agent").await?;
    Ok(pods.into_iter().map(|pod| pod.metadata.uid).collect())
}

async fn uninstall_and_reinstall(site: &Site<'_>) -> Result<()> {
    let before = site.ns.get("Workload", "hello").await?;
    step("helm uninstall", site.uninstall()).await?;
    let crds = site.ns.kubectl(&[
        "get",
        "crd",
        "workloads.runtime.wasmcloud.dev",
        "-o",
        "name",
    ]);
    crds.await.context("the CRDs went with the release")?;
    let after = site.ns.get("Workload", "hello").await?;
    ensure!(
        after.metadata.uid == before.metadata.uid && after.metadata.deletion_timestamp.is_none()
    );

    step("helm install over live Workloads", async {
        site.helm("install", &[]).await?;
        site.answers(site.address("hello").await?).await
    })
    .await?;
    let after = site.ns.get("Workload", "hello").await?;
    ensure!(
        after.metadata.uid == before.metadata.uid,
        "the Workload was made anew"
    );
    site.uninstall().await
}
