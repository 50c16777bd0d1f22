//! A workload behind a Service: the port that the controller gives it, which these tests do in its place.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    time::{sleep, timeout},
};
use washlet_e2e::{TestNamespace, eventually, objects, ports, with_namespace};

use crate::{
    load::{Address, Load},
    stage::{HEAL, Stage, fails, ready, says},
};

/// A workload that wants to be behind a Service.
fn published(stage: &Stage, name: &str, image: &str) -> String {
    let service = "spec:\n  kubernetes:\n    service:\n      name: web\n";
    stage.workload(name, image).replace("spec:\n", service)
}

/// Writes the controller's part of a status.
async fn decide(ns: &TestNamespace, name: &str, status: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload",
        "metadata": { "name": name }, "status": status,
    });
    let params = PatchParams::apply("washlet-controller").force();
    ns.api("Workload")?
        .patch_status(name, &params, &Patch::Apply(&object))
        .await
        .context("writing the controller's part")
        .map(drop)
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Asks at a port with a Host that no route has.
async fn ask(port: u16) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(format!("http://{}/", at(port)));
    let response = request.header("host", "whoever.it.is").send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

async fn answers(port: u16, part: &str) -> Result<()> {
    eventually("an answer at the service port", HEAL, async || {
        let answer = ask(port).await;
        let good = matches!(&answer, Ok((200, body)) if body.contains(part));
        Ok(if good {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        })
    })
    .await
}

#[tokio::test]
async fn workloads_of_one_service_answer_at_its_port_whatever_the_host() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = (
            stage.push(ns, "v1", "v1").await?,
            stage.push(ns, "v2", "v1").await?,
        );
        // Without a port yet it answers at its routes.
        ns.apply_yaml(&published(&stage, "blue", &v1)).await?;
        ready(ns, "blue").await?;
        let before = objects::condition(&ns.get("Workload", "blue").await?, "Ready");
        let port = ports::free_for_service()?;
        decide(ns, "blue", json!({ "servicePort": port })).await?;
        answers(port, "v1").await?;
        stage.answers("blue.test", "/", 200, HEAL).await?;
        let after = objects::condition(&ns.get("Workload", "blue").await?, "Ready");
        ensure!(
            before == after,
            "it was started anew: {before:?}, {after:?}"
        );

        // Another workload of the Service joins, and the first one leaves: nobody notices.
        let load = Load::start(at(port), "whoever.it.is", "/");
        load.more(50).await?;
        ns.apply_yaml(&published(&stage, "green", &v2)).await?;
        decide(ns, "green", json!({ "servicePort": port })).await?;
        ready(ns, "green").await?;
        answers(port, "v2").await?;
        ns.delete("Workload", "blue").await?;
        stage.answers("blue.test", "/", 404, HEAL).await?;
        load.more(100).await?;
        let tally = load.stop_without_failure().await?;
        for client in &tally.told {
            ensure!(
                client.last().is_some_and(|body| body.contains("v2")),
                "{client:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edit_is_rolled_at_the_port_and_the_last_workload_leaves_late() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = (
            stage.push(ns, "v1", "v1").await?,
            stage.push(ns, "v2", "v1").await?,
        );
        let port = ports::free_for_service()?;
        ns.apply_yaml(&published(&stage, "app", &v1)).await?;
        decide(ns, "app", json!({ "servicePort": port })).await?;
        answers(port, "v1").await?;
        let load = Load::start(at(port), "whoever.it.is", "/");
        load.more(50).await?;
        ns.apply_yaml(&published(&stage, "app", &v2)).await?;
        answers(port, "v2").await?;
        load.more(50).await?;
        load.stop_without_failure().await?;

        // Endpoints are slower than the agent: it goes on for five seconds.
        ns.delete("Workload", "app").await?;
        let deleted = Instant::now();
        let gone = eventually("the port is closed", HEAL, async || {
            Ok(match ask(port).await {
                Err(_) => Ok(deleted.elapsed()),
                Ok((status, _)) => Err(status),
            })
        })
        .await?;
        ensure!(
            (4.0..9.0).contains(&gone.as_secs_f64()),
            "closed after {gone:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn clients_of_the_last_workload_leave_before_it_does() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let (v1, v2) = (
            stage.push(ns, "v1", "v1").await?,
            stage.push(ns, "v2", "v1").await?,
        );
        // Two ports in place of two hosts: what leads to one leads to the other a second after the removal.
        let ports = [
            ("blue", &v1, ports::free_for_service()?),
            ("green", &v2, ports::free_for_service()?),
        ];
        for (name, image, port) in ports {
            ns.apply_yaml(&published(&stage, name, image)).await?;
            decide(ns, name, json!({ "servicePort": port })).await?;
            ready(ns, name).await?;
        }
        let [first, second] = ports.map(|(_, _, port)| port);
        answers(first, "v1").await?;
        answers(second, "v2").await?;
        let leads_to = Arc::new(AtomicU16::new(first));
        let address: Address = {
            let leads_to = leads_to.clone();
            Arc::new(move || at(leads_to.load(Ordering::Relaxed)))
        };
        let load = Load::follow(address, "whoever.it.is", "/");
        load.more(50).await?;
        // It asks for nothing.
        let mut idle = tokio::net::TcpStream::connect(at(first)).await?;
        ns.delete("Workload", "blue").await?;
        sleep(Duration::from_secs(1)).await;
        leads_to.store(second, Ordering::Relaxed);
        let mut told = String::new();
        timeout(HEAL, idle.read_to_string(&mut told)).await??;
        ensure!(told.is_empty(), "{told}");
        stage.answers("blue.test", "/", 404, HEAL).await?;
        load.more(50).await?;
        let tally = load.stop_without_failed_requests().await?;
        for client in &tally.told {
            ensure!(client.len() == 2 && client[1].contains("v2"), "{client:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_until_it_is_free() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let port = ports::free_for_service()?;
        let taken = TcpListener::bind(at(port))?;
        ns.apply_yaml(&published(&stage, "app", &image)).await?;
        decide(ns, "app", json!({ "servicePort": port })).await?;
        let message = fails(ns, "app", "PortConflict").await?;
        says(&message, &[&format!("127.0.0.1:{port}"), "tried again"])?;
        stage.answers("app.test", "/", 200, HEAL).await?;
        drop(taken);
        ready(ns, "app").await?;
        answers(port, "v1").await
    })
    .await
}

#[tokio::test]
async fn routes_that_another_host_has_are_withheld() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let port = ports::free_for_service()?;
        ns.apply_yaml(&published(&stage, "app", &image)).await?;
        ready(ns, "app").await?;
        let why = "the route belongs to workload elsewhere/older";
        let routed = json!({ "type": "Routed", "status": "False", "reason": "RouteConflict", "message": why });
        decide(ns, "app", json!({ "servicePort": port, "conditions": [routed] })).await?;
        let message = fails(ns, "app", "RouteConflict").await?;
        says(&message, &[why])?;
        stage.answers("app.test", "/", 404, HEAL).await?;
        // The Service leads to it by its own name, which nobody else has.
        answers(port, "v1").await?;
        decide(ns, "app", json!({ "servicePort": port })).await?;
        ready(ns, "app").await?;
        stage.answers("app.test", "/", 200, HEAL).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_annotation_starts_a_workload_anew() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let started = async || {
            let status = &ns.get("Workload", "app").await?.data["status"];
            anyhow::Ok(status["timings"]["started"].as_str().map(str::to_owned))
        };
        let first = started().await?;
        ensure!(first.is_some(), "no time of its start");
        let load = Load::start(stage.agent.http_addr(), "app.test", "/");
        let annotation = "kubectl.kubernetes.io/restartedAt=2026-01-01T00:00:00Z";
        ns.kubectl(&[
            "annotate",
            "workloads.runtime.wasmcloud.dev",
            "app",
            annotation,
        ])
        .await?;
        eventually("it was started anew", HEAL, async || {
            let now = started().await?;
            Ok(if now.is_some() && now != first {
                Ok(())
            } else {
                Err(now)
            })
        })
        .await?;
        load.more(20).await?;
        load.stop_without_failure().await.map(drop)
    })
    .await
}
