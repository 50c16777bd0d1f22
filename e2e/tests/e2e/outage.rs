//! What goes away comes back: the API server, the registry, the agent itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::Value;
use washlet_e2e::{
    ALICE, Agent, AgentOptions, Artifact, ControlPlane, Registry, TestNamespace, eventually,
    objects, with_namespace,
};

use crate::{
    load::Load,
    stage::{HEAL, START, Stage, guest, ready, repository_of, start_agent, workload},
};

/// Longer than the Lease is valid.
const AWAY: Duration = Duration::from_secs(45);

#[tokio::test]
async fn an_api_server_that_is_away_stops_nothing_and_is_caught_up_with() -> Result<()> {
    let mut control_plane = ControlPlane::start().await?;
    control_plane.cluster().apply_crds().await?;
    let ns = TestNamespace::in_cluster(control_plane.cluster()).await?;
    ns.run(async |ns| {
        let stage = Stage::new(ns).await?;
        let v1 = stage.push(ns, "v1", "v1").await?;
        let v2 = stage.push(ns, "v2", "v2").await?;
        for name in ["app", "doomed", "idle"] {
            ns.apply_yaml(&stage.workload(name, &v1)).await?;
            ready(ns, name).await?;
        }
        let before = ready_since(ns, "idle").await?;

        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        control_plane.stop_api_server();
        tokio::time::sleep(AWAY).await;
        for probe in ["/livez", "/readyz"] {
            let answer = stage.agent.get_admin(probe).await?;
            ensure!(answer.0 == 200, "{probe}: {answer:?}");
        }
        control_plane.start_api_server().await?;
        ns.delete("Workload", "doomed").await?;
        ns.apply_yaml(&stage.workload("app", &v2)).await?;

        stage.answers("doomed.test", "/", 404, HEAL).await?;
        answers(&stage.agent, "app.test", "v2", HEAL).await?;
        let current = |object: &DynamicObject| {
            objects::condition(object, "Ready").is_some_and(|c| c.observed_generation == Some(2))
        };
        ns.wait_for("Workload", "app", current, HEAL).await?;
        load.stop_without_failure().await?;
        ensure!(ready_since(ns, "idle").await? == before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_that_starts_without_an_api_server_waits_for_it() -> Result<()> {
    let mut control_plane = ControlPlane::start().await?;
    control_plane.cluster().apply_crds().await?;
    let ns = TestNamespace::in_cluster(control_plane.cluster()).await?;
    ns.run(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let v1 = stage.push(ns, "v1", "v1").await?;
        stage.agent.kill9();
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        control_plane.stop_api_server();

        stage.agent.restart().await?;
        ensure!(stage.agent.get_admin("/livez").await?.0 == 200);
        let (status, why) = stage.agent.get_admin("/readyz").await?;
        ensure!(
            status == 503 && why.contains("API server"),
            "{status}: {why}"
        );
        // Long enough for its waits between tries to have grown.
        tokio::time::sleep(Duration::from_secs(20)).await;
        ensure!(stage.agent.get_admin("/livez").await?.0 == 200);

        control_plane.start_api_server().await?;
        stage.agent.wait_ready(HEAL).await?;
        answers(&stage.agent, "app.test", "v1", HEAL).await?;
        ready(ns, "app").await
    })
    .await
}

#[tokio::test]
async fn a_killed_agent_comes_back_from_its_disk_without_a_registry() -> Result<()> {
    with_namespace(async |ns| {
        let mut registry = Registry::htpasswd().await?;
        let repository = repository_of(ns, "v1");
        registry
            .push(&repository, "v1", &Artifact::wasm(&guest("v1")?))
            .await?;
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let mut agent = start_agent(ns, &registry).await?;
        let image = registry.image(&repository, "v1");
        ns.apply_yaml(&workload(agent.node(), "app", &image))
            .await?;
        ready(ns, "app").await?;
        let (since, pulls) = (ready_since(ns, "app").await?, registry.pulls(&repository)?);
        ensure!(pulls > 0);

        for registry_is_there in [true, false] {
            if !registry_is_there {
                registry.stop();
            }
            agent.restart().await?;
            never_not_ready(&agent, ns, "app").await?;
            ensure!(registry.pulls(&repository)? == pulls, "pulled again");
        }
        // Time for whatever is written late, and for a wait that is over.
        tokio::time::sleep(Duration::from_secs(12)).await;
        ensure!(ready_since(ns, "app").await? == since, "Ready flipped");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_agent_on_a_node_stands_by_and_takes_over() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let v1 = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        ready(ns, "app").await?;
        let first = holder(ns).await?.context("nobody holds the Lease")?;

        let second = another(ns, &stage).await?;
        // It is prepared,
        answers(&second, "app.test", "v1", START).await?;
        let v2 = stage.push(ns, "v2", "v2").await?;
        ns.apply_yaml(&stage.workload("app", &v2)).await?;
        answers(&second, "app.test", "v2", HEAL).await?;
        // and silent.
        ensure!(holder(ns).await?.as_ref() == Some(&first));
        let metrics = second.metrics().await?;
        ensure!(metrics.contains("\nwashlet_lease_held 0\n"), "{metrics}");
        ensure!(
            !metrics.contains("washlet_status_writes_total{"),
            "it wrote a status:\n{metrics}"
        );
        let port = http_port(ns).await?;
        ensure!(port == Some(u64::from(stage.agent.http_addr().port())));

        ensure!(stage.agent.terminate().await? == 0);
        taken_from(ns, &first, HEAL).await?;
        ready(ns, "app").await?;
        eventually("the Host tells the second's port", HEAL, async || {
            let port = http_port(ns).await?;
            let is = port == Some(u64::from(second.http_addr().port()));
            Ok(if is { Ok(()) } else { Err(port) })
        })
        .await?;
        answers(&second, "app.test", "v2", HEAL).await
    })
    .await
}

#[tokio::test]
async fn a_second_agent_takes_over_from_one_that_was_killed() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let v1 = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &v1)).await?;
        ready(ns, "app").await?;
        let since = ready_since(ns, "app").await?;
        let first = holder(ns).await?.context("nobody holds the Lease")?;
        let second = another(ns, &stage).await?;
        answers(&second, "app.test", "v1", START).await?;

        stage.agent.kill9();
        ensure!(holder(ns).await?.as_ref() == Some(&first));
        // Not before the Lease has run out.
        taken_from(ns, &first, AWAY + HEAL).await?;
        answers(&second, "app.test", "v1", HEAL).await?;
        // A Workload that nothing happened to is reported as before, and a new one is reported at all.
        ns.apply_yaml(&stage.workload("new", &v1)).await?;
        ready(ns, "new").await?;
        ensure!(ready_since(ns, "app").await? == since, "Ready flipped");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_deleted_while_the_agent_was_gone_does_not_come_back() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let v1 = stage.push(ns, "v1", "v1").await?;
        let v2 = stage.push(ns, "v2", "v2").await?;
        for name in ["deleted", "edited", "anew"] {
            ns.apply_yaml(&stage.workload(name, &v1)).await?;
            ready(ns, name).await?;
        }
        stage.agent.kill9();
        ns.delete("Workload", "deleted").await?;
        ns.apply_yaml(&stage.workload("edited", &v2)).await?;
        ns.delete("Workload", "anew").await?;
        ns.apply_yaml(&stage.workload("anew", &v2)).await?;
        stage.agent.restart().await?;
        stage.agent.wait_ready(START).await?;
        for name in ["edited", "anew"] {
            answers(&stage.agent, &format!("{name}.test"), "v2", START).await?;
            ready(ns, name).await?;
        }
        ensure!(stage.agent.get("deleted.test", "/").await?.0 == 404);
        Ok(())
    })
    .await
}

// === what they have in common ===

/// A second agent on the same node, with a state directory of its own.
async fn another(ns: &TestNamespace, stage: &Stage) -> Result<Agent> {
    let options = AgentOptions {
        certs_d: vec![stage.registry.certs_d()],
        ..AgentOptions::default()
    };
    let mut agent = Agent::start(ns, options).await?;
    agent.wait_ready(START).await?;
    Ok(agent)
}

/// Waits until the node's Lease is held, but not by this agent.
async fn taken_from(ns: &TestNamespace, first: &str, limit: Duration) -> Result<()> {
    eventually("the second agent holds the Lease", limit, async || {
        let holder = holder(ns).await?;
        let taken = holder.as_ref().is_some_and(|holder| holder != first);
        Ok(if taken { Ok(()) } else { Err(holder) })
    })
    .await
}

async fn answers(agent: &Agent, host: &str, body: &str, limit: Duration) -> Result<()> {
    eventually(&format!("`{body}` from {host}"), limit, async || {
        let got = agent.get(host, "/").await?;
        Ok(if got == (200, body.to_owned()) {
            Ok(())
        } else {
            Err(got)
        })
    })
    .await
}

async fn ready_since(ns: &TestNamespace, name: &str) -> Result<String> {
    let ready = objects::condition(&ns.get("Workload", name).await?, "Ready");
    let ready = ready.context("no condition Ready")?;
    ensure!(ready.status == "True", "{ready:?}");
    Ok(ready.last_transition_time)
}

/// Waits until a restarted agent answers, and fails if the status says meanwhile that it does not.
async fn never_not_ready(agent: &Agent, ns: &TestNamespace, name: &str) -> Result<()> {
    eventually("the workload is back", START, async || {
        ready_since(ns, name).await?;
        let (status, body) = agent.get(&format!("{name}.test"), "/").await?;
        Ok(if status == 200 {
            Ok(())
        } else {
            Err(format!("{status}: {body}"))
        })
    })
    .await
}

/// Who holds the node's Lease; the agent's node is called after the namespace.
async fn holder(ns: &TestNamespace) -> Result<Option<String>> {
    let lease = ns.get("Lease", ns.name()).await?;
    let holder = lease
        .data
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str);
    Ok(holder.filter(|h| !h.is_empty()).map(str::to_owned))
}

async fn http_port(ns: &TestNamespace) -> Result<Option<u64>> {
    Ok(ns.get("Host", ns.name()).await?.data["httpPort"].as_u64())
}
