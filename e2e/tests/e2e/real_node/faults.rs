//! What goes away on a real node comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use washlet_e2e::{NodeCluster, TestNamespace, eventually, node::NODE, objects, with_node_cluster};

use super::{Site, WASHLET, container, step};
use crate::stage::{START, ready};

/// A Lease of 40 s runs out, and more.
const NOTICED: Duration = Duration::from_secs(90);

#[tokio::test]
async fn what_is_killed_comes_back() -> Result<()> {
    with_node_cluster(
        "real_node::faults::what_is_killed_comes_back",
        async |node| {
            TestNamespace::in_cluster(node.cluster())
                .await?
                .run(async |ns| faults(node, ns).await)
                .await
        },
    )
    .await
}

async fn faults(node: &NodeCluster, ns: &TestNamespace) -> Result<()> {
    let site = Site::new(node, ns).await?;
    // Both families, where the cluster has both.
    step(
        "helm install with listenAddress=::",
        site.helm("install", &["--set", "listenAddress=::"]),
    )
    .await?;
    site.apply_workload("hello").await?;
    ready(ns, "hello").await?;
    let addresses = node.service(ns.name(), "hello").await?;
    for &address in &addresses {
        step(
            &format!("the Service answers at {address}"),
            site.answers(address),
        )
        .await?;
    }
    step("an agent's pod is deleted", pod_deleted(&site)).await?;
    if node.is_own() {
        step(
            "an agent's process is killed",
            process_killed(&site, "agent"),
        )
        .await?;
        step(
            "a controller's process is killed",
            process_killed(&site, "controller"),
        )
        .await?;
        step("the Node is deleted, and comes back", node_deleted(&site)).await?;
    }
    site.uninstall().await
}

async fn pod_deleted(site: &Site<'_>) -> Result<()> {
    let workload = site.ns.get("Workload", "hello").await?;
    let host = workload.data["status"]["hostId"]
        .as_str()
        .context("no host")?;
    let pods = site.pods("agent").await?;
    let on_host = |pod: &&k8s_openapi::api::core::v1::Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(host)
    };
    let pod = pods.iter().find(on_host).context("no agent on the host")?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    site.node
        .cluster()
        .kubectl(&["delete", "pod", name, "-n", WASHLET, "--wait"])
        .await?;
    site.rolled_out().await?;
    ready(site.ns, "hello").await?;
    site.answers(site.address("hello").await?).await
}

async fn process_killed(site: &Site<'_>, component: &str) -> Result<()> {
    let pods = site.pods(component).await?;
    let pod = pods.first().context("no pod")?;
    let id = container(pod).context("no container")?;
    let pid = i32::try_from(site.node.process_of(&id)?)?;
    kill_process(Pid::from_raw(pid).context("a process id")?, Signal::KILL)?;
    let name = pod.metadata.name.clone();
    eventually("another container runs in its place", START, async || {
        let now = site.pods(component).await?;
        let same = now.iter().find(|pod| pod.metadata.name == name);
        let new = same.and_then(container);
        Ok(if new.is_some_and(|new| new != id) {
            Ok(())
        } else {
            Err("the same")
        })
    })
    .await?;
    site.rolled_out().await?;
    ready(site.ns, "hello").await?;
    site.answers(site.address("hello").await?).await
}

/// The only host leaves: the Workload says that it has none. The Node joins again: the Workload is served again.
async fn node_deleted(site: &Site<'_>) -> Result<()> {
    let cluster = site.node.cluster();
    cluster.kubectl(&["delete", "node", NODE]).await?;
    let workload = site.ns.wait_for(
        "Workload",
        "hello",
        |workload| {
            objects::condition(workload, "Ready").is_some_and(|ready| ready.status != "True")
        },
        NOTICED,
    );
    let workload = workload.await?;
    let condition = objects::condition(&workload, "Ready").context("no Ready")?;
    println!(
        "without its node: {} {}: {}",
        condition.status, condition.reason, condition.message
    );
    ensure!(!condition.message.is_empty(), "{condition:?}");

    site.node.restart_kubelet()?;
    let name = format!("node/{NODE}");
    let wait = ["wait", "--for=condition=Ready", &name, "--timeout=5s"];
    eventually("the Node is back", START, async || {
        let said = cluster.kubectl(&wait).await;
        Ok(said.map_err(|error| format!("{error:#}")))
    })
    .await?;
    site.rolled_out().await?;
    ready(site.ns, "hello").await?;
    site.answers(site.address("hello").await?).await
}
