//! Traffic by Service: one port on all agents, EndpointSlices as Kubernetes means them, routes with one owner in the cluster.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, with_namespace};

use super::{DECIDED, Fleet, advertised, host_of, node, workload};
use crate::{
    load::Load,
    stage::{HEAL, ready, says},
};

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80 }, { "name": "also", "port": 8080 }] },
    })
}

/// A workload behind a Service that asks for no route of its own.
fn behind(service: &'static str, app: &'static str) -> impl Fn(&mut Value) {
    move |object| {
        object["metadata"]["labels"] = json!({ "app": app });
        object["spec"]["kubernetes"] = json!({ "service": { "name": service } });
        object["spec"]["hostInterfaces"][0]["config"] = json!({});
    }
}

/// The endpoints of a Service, as `address ready serving terminating`, and its port.
async fn endpoints(ns: &TestNamespace, service: &str) -> Result<(BTreeSet<String>, Option<u64>)> {
    let selector = format!("kubernetes.io/service-name={service}");
    let text = ns
        .kubectl(&["get", "endpointslices", "-l", &selector, "-o", "json"])
        .await?;
    let list: Value = serde_json::from_str(&text)?;
    let (mut endpoints, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for slice in list["items"].as_array().into_iter().flatten() {
        let names: Vec<_> = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| p["name"].clone())
            .collect();
        ensure!(names == ["http", "also"], "{names:?}");
        ports.extend(
            slice["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| p["port"].as_u64()),
        );
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            ensure!(endpoint["nodeName"].is_string(), "{endpoint}");
            let is = |name: &str| endpoint["conditions"][name].as_bool().unwrap_or_default();
            endpoints.insert(format!(
                "{} {} {} {}",
                endpoint["addresses"][0].as_str().unwrap_or_default(),
                is("ready"),
                is("serving"),
                is("terminating")
            ));
        }
    }
    ensure!(ports.len() < 2, "all lead to one port: {ports:?}");
    Ok((endpoints, ports.first().copied()))
}

async fn wait_endpoints(
    ns: &TestNamespace,
    service: &str,
    wanted: &[String],
    limit: Duration,
) -> Result<u16> {
    let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
    eventually(
        &format!("endpoints of {service}: {wanted:?}"),
        limit,
        async || {
            let (is, port) = endpoints(ns, service).await?;
            Ok(match port.and_then(|port| u16::try_from(port).ok()) {
                Some(port) if is == wanted => Ok(port),
                _ => Err(is),
            })
        },
    )
    .await
}

fn up(number: usize) -> String {
    format!("{} true true false", advertised(number))
}

#[tokio::test]
async fn a_services_endpoints_are_the_hosts_of_its_ready_workloads() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 2).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        ns.apply(service("web")).await?;
        for name in ["one", "two"] {
            ns.apply(workload(name, &image, behind("web", "web")))
                .await?;
            ready(ns, name).await?;
        }
        let all = [up(0), up(1)];
        let port = wait_endpoints(ns, "web", &all, DECIDED).await?;
        ensure!((20_000..30_000).contains(&port), "{port}");
        for agent in &fleet.agents {
            let url = format!("http://{}:{port}/any/path", agent.http_addr().ip());
            let answer = reqwest::get(url).await?;
            ensure!(answer.status() == 200, "{}", answer.status());
        }
        ns.wait_for_condition(
            ("Workload", "one"),
            ("ServicePublished", "True"),
            None,
            DECIDED,
        )
        .await?;

        // Whoever goes is told of as terminating, and then not at all.
        let object = ns.get("Workload", "two").await?;
        let left = host_of(&object).context("a host")?.to_owned();
        ns.delete("Workload", "two").await?;
        let (leaving, stays) = if left == node(ns, 0) {
            (0, up(1))
        } else {
            (1, up(0))
        };
        let leaving = format!("{} false true true", advertised(leaving));
        wait_endpoints(ns, "web", &[stays.clone(), leaving], DECIDED).await?;
        wait_endpoints(ns, "web", &[stays], DECIDED).await?;
        ns.delete("Workload", "one").await?;
        // Without workloads the slice has no endpoints, or is gone.
        eventually("no endpoint is left", DECIDED, async || {
            let (is, _) = endpoints(ns, "web").await?;
            Ok(if is.is_empty() { Ok(()) } else { Err(is) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_service_that_leads_nowhere_is_a_condition_and_heals() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 1).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        ns.apply(workload("app", &image, behind("web", "web")))
            .await?;
        let of = ("Workload", "app");
        let unpublished = async |reason: &str| {
            ns.wait_for_condition(of, ("ServicePublished", "False"), Some(reason), DECIDED)
                .await
        };
        says(
            &unpublished("ServiceNotFound").await?.message,
            &["web", "create it"],
        )?;
        // It does not crash, nor wait: it runs, and its Service is another matter.
        ready(ns, "app").await?;

        let mut selecting = service("web");
        selecting["spec"]["selector"] = json!({ "app": "pods" });
        ns.apply(selecting).await?;
        says(
            &unpublished("ServiceHasSelector").await?.message,
            &["web", "selector"],
        )?;

        ns.delete("Service", "web").await?;
        ns.apply(service("web")).await?;
        ns.wait_for_condition(of, ("ServicePublished", "True"), None, DECIDED)
            .await?;
        wait_endpoints(ns, "web", &[up(0)], DECIDED).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn replicas_on_one_agent_share_the_port_and_no_request_is_lost_when_one_goes() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 1).await?;
        let (v1, v2) = (
            fleet.push(ns, "v1", "v1").await?,
            fleet.push(ns, "v2", "v2").await?,
        );
        ns.apply(service("web")).await?;
        ns.apply(workload("blue", &v1, behind("web", "blue")))
            .await?;
        ready(ns, "blue").await?;
        let port = wait_endpoints(ns, "web", &[up(0)], DECIDED).await?;
        let address = (fleet.agents[0].http_addr().ip(), port).into();
        let load = Load::start(address, "any.example", "/");
        load.more(50).await?;
        ns.apply(workload("green", &v2, behind("web", "green")))
            .await?;
        ready(ns, "green").await?;
        load.more(100).await?;
        ns.delete("Workload", "blue").await?;
        ns.wait_gone("Workload", "blue", HEAL).await?;
        load.more(200).await?;
        let tally = load.stop().await?;
        ensure!(tally.failures.is_empty(), "{:?}", tally.failures);
        let last: BTreeSet<_> = tally.told.iter().filter_map(|told| told.last()).collect();
        ensure!(last.iter().all(|body| body.contains("v2")), "{last:?}");
        eprintln!(
            "blue to green behind one Service: {} requests, 0 failed",
            tally.answers
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_route_has_one_owner_in_the_whole_cluster() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 2).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        let on = |node: String| {
            move |object: &mut Value| {
                object["spec"]["hostId"] = json!(node);
                object["spec"]["hostInterfaces"][0]["config"] = json!({ "host": "shop.test" });
            }
        };
        let (first, second) = (super::node(ns, 0), super::node(ns, 1));
        ns.apply(workload("older", &image, on(first))).await?;
        ready(ns, "older").await?;
        // Ages are told apart by seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        ns.apply(workload("younger", &image, on(second.clone())))
            .await?;
        let conflict = ns
            .wait_for_condition(
                ("Workload", "younger"),
                ("Ready", "False"),
                Some("RouteConflict"),
                DECIDED,
            )
            .await?;
        says(
            &conflict.message,
            &["shop.test", &format!("{}/older", ns.name())],
        )?;
        let (status, _) = fleet.agent(&second)?.get("shop.test", "/").await?;
        ensure!(status == 404, "{status}");
        ns.delete("Workload", "older").await?;
        ready(ns, "younger").await?;
        let (status, _) = fleet.agent(&second)?.get("shop.test", "/").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}
