//! Two agents on one node: the second stands by, prepared, and goes on where the first one ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use tokio::task::JoinSet;
use washlet_e2e::{
    Agent, AgentOptions, TestNamespace, eventually,
    objects::{self, Condition},
    process::Signal,
    with_namespace,
};

use crate::{
    load::{Address, Load},
    stage::{HEAL, START, Stage, ready, says},
};

/// As long as the first agent may serve on after it was told to end, and a drain.
const END: Duration = Duration::from_secs(45);
/// A Lease that is not renewed is free after forty seconds.
const EXPIRED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_prepared_agent_goes_on_where_the_first_one_ends() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        for name in ["app", "other"] {
            ns.apply_yaml(&stage.workload(name, &image)).await?;
            ready(ns, name).await?;
        }
        let second = standby(&stage, ns).await?;
        ensure!(second.get("app.test", "/").await?.0 == 200);
        // It writes nothing.
        let before = conditions(ns).await?;
        follows(ns, &stage.agent).await?;
        let holder = || async { anyhow::Ok(spec_of(&lease(ns).await?, "holderIdentity")) };
        let first = holder().await?;
        announced(ns, true).await?;

        let load = Following::start(ns, "app.test").await?;
        // Clients that keep their connections, and move when they are asked to.
        let kept = Load::follow(load.address(), "app.test", "/");
        load.more(100).await?;
        stage.agent.process().signal(Signal::TERM)?;
        follows(ns, &second).await?;
        // Nobody is turned away who comes late.
        ensure!(stage.agent.get("app.test", "/").await?.0 == 200);
        ensure!(stage.agent.process().wait(END).await? == 0);
        load.more(100).await?;
        let tally = kept.stop_without_failed_requests().await?;
        ensure!(tally.connections > 4, "nobody moved: {tally:?}");
        load.stop_without_failure(&[stage.agent.http_addr(), second.http_addr()])
            .await?;

        ensure!(holder().await? != first, "{first:?} still holds the Lease");
        announced(ns, false).await?;
        let after = conditions(ns).await?;
        ensure!(
            before == after,
            "a condition flipped: {before:?}, {after:?}"
        );
        let uid = ns.get("Workload", "app").await?.metadata.uid;
        let events = ns.events_for(&uid.context("a uid")?).await?;
        ensure!(
            !events
                .iter()
                .any(|e| e.reason.as_deref() == Some("Killing")),
            "{events:?}"
        );
        // And the second one writes now.
        ns.apply_yaml(&stage.workload("late", &image)).await?;
        ready(ns, "late").await
    })
    .await
}

#[tokio::test]
async fn a_killed_agent_is_followed_when_its_lease_has_expired() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        for name in ["app", "other"] {
            ns.apply_yaml(&stage.workload(name, &image)).await?;
            ready(ns, name).await?;
        }
        let second = standby(&stage, ns).await?;
        let before = conditions(ns).await?;
        stage.agent.kill9();
        let moved = |host: &DynamicObject| leads_to(host, &second);
        ns.wait_for("Host", second.node(), moved, EXPIRED).await?;
        let after = conditions(ns).await?;
        ensure!(
            before == after,
            "a condition flipped: {before:?}, {after:?}"
        );
        ns.delete("Workload", "app").await?;
        eventually("the second one stops it", HEAL, async || {
            let (status, _) = second.get("app.test", "/").await?;
            Ok(if status == 404 { Ok(()) } else { Err(status) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_standby_that_ends_is_not_waited_for() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let mut second = standby(&stage, ns).await?;
        announced(ns, true).await?;
        let begun = Instant::now();
        ensure!(second.terminate().await? == 0);
        ensure!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
        announced(ns, false).await?;
        let condition = objects::condition(&ns.get("Workload", "app").await?, "Ready");
        ensure!(condition.is_some_and(|c| c.status == "True"));
        ends_alone(ns, &mut stage.agent).await
    })
    .await
}

#[tokio::test]
async fn both_can_be_told_to_end_at_once() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        let mut second = standby(&stage, ns).await?;
        announced(ns, true).await?;
        // It has announced itself a moment ago, and cannot come any more.
        second.kill9();
        ends_alone(ns, &mut stage.agent).await
    })
    .await
}

#[tokio::test]
async fn a_standby_is_ready_when_it_serves_what_the_first_one_does() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("app", &image)).await?;
        ready(ns, "app").await?;
        // It does not trust the registry.
        let second = Agent::start(ns, AgentOptions::default()).await?;
        let said = eventually("it says what it waits for", START, async || {
            let (status, said) = second.get_admin("/readyz").await?;
            let waits = status == 503 && said.contains("standing by");
            Ok(if waits { Ok(said) } else { Err((status, said)) })
        })
        .await?;
        says(&said, &["another agent serves", "do not run here yet: 1"])?;
        announced(ns, false).await?;
        ends_alone(ns, &mut stage.agent).await
    })
    .await
}

// === what these tests stand on ===

/// A second agent on the node of the first one, prepared. It has another address and the same port, as the second of two pods
/// has: the Host object's port is no part of its status, so the two are not written at once.
async fn standby(stage: &Stage, ns: &TestNamespace) -> Result<Agent> {
    let options = AgentOptions {
        certs_d: vec![stage.registry.certs_d()],
        args: vec![format!(
            "--http-listen=127.0.0.2:{}",
            stage.agent.http_addr().port()
        )],
        ..AgentOptions::default()
    };
    let mut second = Agent::start(ns, options).await?;
    second.wait_ready(START).await?;
    Ok(second)
}

/// Ends an agent that nobody is prepared to follow: it says that it drains, and gives the Lease back.
async fn ends_alone(ns: &TestNamespace, agent: &mut Agent) -> Result<()> {
    agent.process().signal(Signal::TERM)?;
    let draining = Some("Draining");
    ns.wait_for_condition(("Workload", "app"), ("Ready", "False"), draining, HEAL)
        .await?;
    ensure!(agent.process().wait(END).await? == 0);
    Ok(())
}

async fn lease(ns: &TestNamespace) -> Result<DynamicObject> {
    ns.get("Lease", ns.name()).await
}

fn spec_of(lease: &DynamicObject, field: &str) -> Option<String> {
    lease.data["spec"][field].as_str().map(str::to_owned)
}

/// Waits until somebody has announced itself on the Lease, or nobody has.
async fn announced(ns: &TestNamespace, wanted: bool) -> Result<()> {
    eventually("who stands by is announced", HEAL, async || {
        let annotations = lease(ns).await?.metadata.annotations.unwrap_or_default();
        let both = ["washlet.dev/standby", "washlet.dev/standby-renewed"];
        let found = both.map(|name| annotations.contains_key(name));
        Ok(if found == [wanted; 2] {
            Ok(())
        } else {
            Err(annotations)
        })
    })
    .await
}

/// The Ready conditions of all workloads and of the Host, with the times at which they flipped.
async fn conditions(ns: &TestNamespace) -> Result<Vec<Condition>> {
    let mut found = Vec::new();
    for (kind, name) in [
        ("Workload", "app"),
        ("Workload", "other"),
        ("Host", ns.name()),
    ] {
        let condition = objects::condition(&ns.get(kind, name).await?, "Ready");
        found.push(condition.with_context(|| format!("{kind} {name} has no Ready"))?);
    }
    Ok(found)
}

fn address_of(host: &DynamicObject) -> Option<SocketAddr> {
    let ip = host.data["status"]["addresses"][0].as_str()?.parse().ok()?;
    let port = u16::try_from(host.data["httpPort"].as_u64()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

fn leads_to(host: &DynamicObject, agent: &Agent) -> bool {
    address_of(host) == Some(agent.http_addr())
}

/// Waits until the Host object leads to an agent.
async fn follows(ns: &TestNamespace, agent: &Agent) -> Result<()> {
    let there = |host: &DynamicObject| leads_to(host, agent);
    ns.wait_for("Host", agent.node(), there, HEAL)
        .await
        .map(drop)
}

/// Who was asked, and what came of it.
type Asked = (SocketAddr, Result<u16, String>);

/// Steady load that goes where the Host object says, a second later.
struct Following {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    address: Arc<Mutex<SocketAddr>>,
    tasks: JoinSet<()>,
}

impl Following {
    async fn start(ns: &TestNamespace, host: &'static str) -> Result<Self> {
        let api = ns.api("Host")?;
        let (node, stop) = (ns.name().to_owned(), Arc::new(AtomicBool::new(false)));
        let first = address_of(&api.get(&node).await?).context("no address")?;
        let (address, asked) = (Arc::new(Mutex::new(first)), Arc::default());
        let mut tasks = JoinSet::new();
        let (stopped, followed) = (stop.clone(), address.clone());
        tasks.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let host = api.get(&node).await.ok();
                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Some(now) = host.as_ref().and_then(address_of) {
                    *followed.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
            }
        });
        for _ in 0..4 {
            let client = reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .pool_max_idle_per_host(0)
                .build()?;
            let (stop, address, asked): (_, _, Arc<Mutex<Vec<_>>>) =
                (stop.clone(), address.clone(), Arc::clone(&asked));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let at = *address.lock().unwrap_or_else(PoisonError::into_inner);
                    let request = client.get(format!("http://{at}/")).header("host", host);
                    let answer = request.send().await;
                    let answer = answer
                        .map(|a| a.status().as_u16())
                        .map_err(|e| format!("{e:?}"));
                    asked
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((at, answer));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Ok(Self {
            stop,
            asked,
            address,
            tasks,
        })
    }

    /// Where it goes now.
    fn address(&self) -> Address {
        let address = self.address.clone();
        Arc::new(move || *address.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self) -> usize {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    async fn more(&self, requests: usize) -> Result<()> {
        let goal = self.count() + requests;
        eventually("more requests", HEAL, async || {
            let count = self.count();
            Ok(if count >= goal { Ok(()) } else { Err(count) })
        })
        .await
    }

    /// Ends it, and fails unless all requests were answered well, some at each of these addresses.
    async fn stop_without_failure(mut self, addresses: &[SocketAddr]) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of the load")?;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<_> = asked
            .iter()
            .filter(|(_, answer)| *answer != Ok(200))
            .collect();
        ensure!(
            failed.is_empty(),
            "{} of {} failed: {failed:?}",
            failed.len(),
            asked.len()
        );
        for address in addresses {
            ensure!(
                asked.iter().any(|(at, _)| at == address),
                "nothing went to {address}"
            );
        }
        eprintln!("a handover: {} requests, 0 failed", asked.len());
        Ok(())
    }
}
