//! Services and jobs: they run, end, and are started again.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use washlet_e2e::{
    Agent, AgentOptions, TestNamespace, eventually, process::Signal, tasks::busiest, with_namespace,
};

use crate::{
    local::{Local, folder, path, wasm, yaml},
    stage::{HEAL, START, Stage, ready, says},
};

/// As long as an agent may take to end.
const END: Duration = Duration::from_secs(45);

/// A workload whose service, or whose only component, does what these variables say.
fn workload(stage: &Stage, image: &str, service: bool, environment: Value, more: Value) -> Value {
    let mut what = json!({
        "image": image,
        "imagePullSecret": { "name": "login" },
        "localResources": { "environment": { "config": environment } },
    });
    let mut spec = json!({ "hostId": stage.agent.node() });
    if service {
        spec["service"] = what;
    } else {
        what["name"] = "app".into();
        spec["components"] = json!([what]);
    }
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": { "name": "app" }, "spec": spec,
    })
}

/// The status of the only component.
fn component(workload: &DynamicObject) -> &Value {
    &workload.data["status"]["components"][0]
}

/// Waits until the only component is so.
async fn until(
    ns: &TestNamespace,
    limit: Duration,
    is: impl Fn(&Value) -> bool + Send + Sync,
) -> Result<Value> {
    let found = ns
        .wait_for(
            "Workload",
            "app",
            |w: &DynamicObject| is(component(w)),
            limit,
        )
        .await?;
    Ok(component(&found).clone())
}

async fn has_event(ns: &TestNamespace, reason: &str) -> Result<()> {
    let uid = ns.get("Workload", "app").await?.metadata.uid;
    let uid = uid.context("a uid")?;
    eventually(&format!("an Event {reason}"), HEAL, async || {
        let events = ns.events_for(&uid).await?;
        let reasons: Vec<_> = events.into_iter().filter_map(|e| e.reason).collect();
        Ok(if reasons.iter().any(|r| r == reason) {
            Ok(())
        } else {
            Err(reasons)
        })
    })
    .await
}

/// How often an agent's log has this line of a guest.
fn printed(agent: &Agent, line: &str) -> Result<usize> {
    Ok(agent.log()?.matches(line).count())
}

#[tokio::test]
async fn one_that_does_not_stop_has_what_others_leave() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let environment = json!({ "DO": "spin" });
        ns.apply(workload(&stage, &image, true, environment, json!({})))
            .await?;
        until(ns, START, |c| !c["state"]["running"].is_null()).await?;
        eventually("a thread of low priority for it", HEAL, async || {
            let found = busiest(stage.agent.id())?;
            let is_meek = found.name == "washlet-slow" && found.nice >= 10;
            Ok(if is_meek { Ok(()) } else { Err(found) })
        })
        .await?;
        // It is cut there, too.
        ns.delete("Workload", "app").await?;
        eventually("an end of it", HEAL, async || {
            let before = busiest(stage.agent.id())?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let after = busiest(stage.agent.id())?;
            Ok(if before == after { Ok(()) } else { Err(after) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_crash_loop_waits_as_the_kubelets_does() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let environment = json!({ "DO": "exit 3" });
        ns.apply(workload(&stage, &image, true, environment, json!({})))
            .await?;

        let restarts =
            |n: i64| move |c: &Value| c["restartCount"] == n && !c["state"]["waiting"].is_null();
        let first = until(ns, START, restarts(1)).await?;
        let at = Instant::now();
        ensure!(first["name"] == "service", "{first}");
        let waiting = &first["state"]["waiting"];
        ensure!(waiting["reason"] == "CrashLoopBackOff", "{first}");
        let message = waiting["message"].as_str().unwrap_or_default();
        says(message, &["ended with exit code 3", "started again at 20"])?;
        let last = &first["lastTermination"];
        ensure!(
            last["reason"] == "Error" && last["exitCode"] == 3,
            "{first}"
        );
        let reason = Some("CrashLoopBackOff");
        let ready = ns
            .wait_for_condition(("Workload", "app"), ("Ready", "False"), reason, HEAL)
            .await?;
        says(
            &ready.message,
            &["service \"service\" ended with exit code 3", "10 s"],
        )?;
        has_event(ns, "BackOff").await?;

        let table = ns.kubectl(&["get", "ww", "app"]).await?;
        let mut lines = table.lines().map(str::split_whitespace);
        let (heads, cells) = (lines.next(), lines.next());
        let columns: Vec<_> = heads
            .into_iter()
            .flatten()
            .zip(cells.into_iter().flatten())
            .collect();
        for column in [("IMAGE", image.as_str()), ("RESTARTS", "1")] {
            ensure!(columns.contains(&column), "{column:?} is not in:\n{table}");
        }

        // A status is written at most once a second.
        until(ns, START, restarts(2)).await?;
        let second = at.elapsed().as_secs_f64();
        ensure!(
            (8.0..14.0).contains(&second),
            "the second restart after {second} s"
        );
        until(ns, START, restarts(3)).await?;
        let third = at.elapsed().as_secs_f64() - second;
        ensure!(
            (18.0..24.0).contains(&third),
            "the third restart after {third} s"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_runs_once_and_is_completed_whatever_becomes_of_its_agent() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let environment = json!({ "PRINT": "the job ran" });
        ns.apply(workload(&stage, &image, false, environment, json!({})))
            .await?;
        let done = |c: &Value| {
            let terminated = &c["state"]["terminated"];
            terminated["reason"] == "Completed" && terminated["exitCode"] == 0
        };
        let ended = until(ns, START, done).await?;
        ensure!(ended["restartCount"] == 0, "{ended}");
        let ready = ("Ready", "False");
        ns.wait_for_condition(("Workload", "app"), ready, Some("Completed"), HEAL)
            .await?;
        has_event(ns, "Completed").await?;
        let line = ns.kubectl(&["get", "ww", "app"]).await?;
        says(&line, &["False", "Completed"])?;
        let wait = "--for=jsonpath={.status.components[0].state.terminated.reason}=Completed";
        ns.kubectl(&["wait", "ww/app", wait, "--timeout=5s"])
            .await?;
        ensure!(printed(&stage.agent, "the job ran")? == 1);

        stage.agent.restart().await?;
        stage.agent.wait_ready(START).await?;
        // It is in hand again, and what is next to it is served.
        let hello = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("hello", &hello)).await?;
        crate::stage::ready(ns, "hello").await?;
        ns.wait_for_condition(("Workload", "app"), ready, Some("Completed"), HEAL)
            .await?;
        ensure!(done(component(&ns.get("Workload", "app").await?)));
        ensure!(printed(&stage.agent, "the job ran")? == 1, "it ran again");
        let restart = "kubectl.kubernetes.io/restartedAt=2099-01-01T00:00:00Z";
        ns.kubectl(&["annotate", "ww/app", restart]).await?;
        eventually("it runs again when asked to", HEAL, async || {
            Ok(match printed(&stage.agent, "the job ran")? {
                2 => Ok(()),
                other => Err(other),
            })
        })
        .await?;
        let again = "--for=jsonpath={.status.components[0].state.terminated.restartedAt}=2099-01-01T00:00:00Z";
        ns.kubectl(&["wait", "ww/app", again, "--timeout=30s"])
            .await?;
        // Once for each time that it is asked to, whatever the clock says.
        stage.agent.restart().await?;
        stage.agent.wait_ready(START).await?;
        ns.apply_yaml(&stage.workload("other", &hello)).await?;
        crate::stage::ready(ns, "other").await?;
        ensure!(printed(&stage.agent, "the job ran")? == 2, "it ran again");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_that_fails_shows_its_exit_code() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let never = json!({ "restartPolicy": "Never" });
        let environment = json!({ "DO": "exit 3" });
        ns.apply(workload(&stage, &image, false, environment, never))
            .await?;
        let reason = Some("Error");
        ns.wait_for_condition(("Workload", "app"), ("Ready", "False"), reason, START)
            .await?;
        let described = ns.kubectl(&["describe", "ww", "app"]).await?;
        says(
            &described,
            &[
                "Terminated:",
                "Exit Code:    3",
                "Reason:       Error",
                "restartPolicy Never",
            ],
        )?;
        has_event(ns, "Error").await
    })
    .await
}

#[tokio::test]
async fn a_service_runs_until_its_workload_is_deleted() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let environment = json!({ "DO": "forever", "PRINT": "tick" });
        let more = json!({ "terminationGracePeriodSeconds": 3 });
        ns.apply(workload(&stage, &image, true, environment, more))
            .await?;
        ready(ns, "app").await?;
        let running = until(ns, HEAL, |c| !c["state"]["running"]["startedAt"].is_null()).await?;
        ensure!(running["restartCount"] == 0, "{running}");
        ticks(&stage.agent).await?;
        ns.delete("Workload", "app").await?;
        stops(&stage.agent).await
    })
    .await
}

#[tokio::test]
async fn a_changed_service_takes_the_place_of_the_former_one() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let saying = |text: &str| {
            let environment = json!({ "DO": "forever", "PRINT": text });
            workload(&stage, &image, true, environment, json!({}))
        };
        ns.apply(saying("tick")).await?;
        ready(ns, "app").await?;
        ticks(&stage.agent).await?;
        ns.apply(saying("tock")).await?;
        eventually("the new one runs", HEAL, async || {
            Ok(match printed(&stage.agent, "tock")? {
                0 => Err("it does not"),
                _ => Ok(()),
            })
        })
        .await?;
        stops(&stage.agent).await
    })
    .await
}

#[tokio::test]
async fn a_service_begins_on_the_next_agent_when_it_has_ended_on_the_former_one() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let environment = json!({ "DO": "forever", "PRINT": "tick" });
        ns.apply(workload(&stage, &image, true, environment, json!({})))
            .await?;
        ready(ns, "app").await?;
        ticks(&stage.agent).await?;
        let second = standby(&stage, ns).await?;
        ensure!(printed(&second, "tick")? == 0, "it runs twice");

        stage.agent.process().signal(Signal::TERM)?;
        ticks(&second).await?;
        let last = printed(&stage.agent, "tick")?;
        ticks(&second).await?;
        ensure!(printed(&stage.agent, "tick")? == last, "it runs twice");
        ensure!(stage.agent.process().wait(END).await? == 0);
        ready(ns, "app").await
    })
    .await
}

#[tokio::test]
async fn a_job_begins_on_the_next_agent_unless_it_is_done() -> Result<()> {
    with_namespace(async |ns| {
        let mut stage = Stage::new(ns).await?;
        let image = stage.push(ns, "service", "v1").await?;
        let job = |name: &str, environment: Value| {
            let mut job = workload(&stage, &image, false, environment, json!({}));
            job["metadata"]["name"] = name.into();
            job
        };
        ns.apply(job("app", json!({ "PRINT": "the job ran" })))
            .await?;
        let unfinished = json!({ "DO": "forever", "PRINT": "tick" });
        ns.apply(job("unfinished", unfinished)).await?;
        let completed = (("Ready", "False"), Some("Completed"));
        ns.wait_for_condition(("Workload", "app"), completed.0, completed.1, HEAL)
            .await?;
        ready(ns, "unfinished").await?;
        ticks(&stage.agent).await?;
        let ended = component(&ns.get("Workload", "app").await?).clone();

        let second = standby(&stage, ns).await?;
        ensure!(printed(&second, "tick")? == 0, "it runs twice");
        stage.agent.process().signal(Signal::TERM)?;
        ticks(&second).await?;
        ensure!(stage.agent.process().wait(END).await? == 0);
        ready(ns, "unfinished").await?;
        ensure!(printed(&second, "the job ran")? == 0, "it ran again");
        let now = ns.get("Workload", "app").await?;
        ensure!(*component(&now) == ended, "{ended}, {}", component(&now));
        ns.wait_for_condition(("Workload", "app"), completed.0, completed.1, HEAL)
            .await
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn washlet_run_ends_with_the_exit_code_of_its_job() -> Result<()> {
    for (to_do, code) in [("exit 3", 3), ("return", 0), ("trap", 1)] {
        let job = json!({
            "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": { "name": "job" },
            "spec": { "components": [{
                "name": "app", "image": format!("file:{}", wasm("service").display()),
                "localResources": { "environment": { "config": { "DO": to_do } } },
            }] },
        });
        let (ended, said) = run_to_its_end(job).await?;
        ensure!(ended == Some(code), "{to_do}: {ended:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn washlet_run_ends_if_its_job_cannot_begin() -> Result<()> {
    let job = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": { "name": "job" },
        "spec": { "components": [{ "name": "app", "image": format!("file:{}", wasm("needs-widgets").display()) }] },
    });
    let file = folder("run")?.join("job.yaml");
    fs::write(&file, yaml(&[job]))?;
    let mut local = Local::start(&[path(&file)?, "--no-watch"]).await?;
    ensure!(local.process.wait(END).await? == 1);
    local.says("default/job: ImportNotSatisfied: ").await
}

/// The exit code of `washlet run` of a workload that ends, and what it says.
async fn run_to_its_end(job: Value) -> Result<(Option<i32>, String)> {
    let file = folder("run")?.join("job.yaml");
    fs::write(&file, yaml(&[job]))?;
    let arguments = [
        "run",
        path(&file)?,
        "--no-watch",
        "--http-listen=127.0.0.1:0",
    ];
    crate::local::ends(&arguments).await
}

/// `greet-p3`, which is a command of WASI 0.3 and imports from `compose-back`; both with this environment.
fn greeting(environment: &Value, service: bool) -> Value {
    let part = |name: &str| {
        json!({
            "image": format!("file:{}", wasm(name).display()),
            "localResources": { "environment": { "config": environment } },
        })
    };
    let (mut greet, mut back) = (part("greet-p3"), part("compose-back"));
    back["name"] = "back".into();
    let mut spec = json!({ "components": [back] });
    if service {
        spec["service"] = greet;
    } else {
        greet["name"] = "greet".into();
        spec["components"] = json!([greet, spec["components"][0]]);
    }
    json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": { "name": "greet" }, "spec": spec,
    })
}

#[tokio::test]
async fn a_job_of_wasi_0_3_calls_another_component_and_ends() -> Result<()> {
    for (to_do, code) in [("exit 3", 3), ("return", 0), ("fail", 1)] {
        let environment = json!({ "DO": to_do, "NAME": "job" });
        let (ended, said) = run_to_its_end(greeting(&environment, false)).await?;
        ensure!(ended == Some(code), "{to_do}: {ended:?}: {said}");
        says(&said, &["hello job, from the back"])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_of_wasi_0_3_calls_another_component_each_time_that_it_runs() -> Result<()> {
    let environment = json!({ "NAME": "service" });
    let local = Local::of(&[greeting(&environment, true)]).await?;
    eventually("it has greeted twice", START, async || {
        let said = local.said()?;
        let greeted = said.matches("hello service, from the back").count();
        Ok(if greeted >= 2 { Ok(()) } else { Err(said) })
    })
    .await
}

/// A second agent on the node of the first one, prepared.
async fn standby(stage: &Stage, ns: &TestNamespace) -> Result<Agent> {
    let port = stage.agent.http_addr().port();
    let options = AgentOptions {
        certs_d: vec![stage.registry.certs_d()],
        args: vec![format!("--http-listen=127.0.0.2:{port}")],
        ..AgentOptions::default()
    };
    let mut second = Agent::start(ns, options).await?;
    second.wait_ready(START).await?;
    Ok(second)
}

/// Waits until a service that says `tick` does so.
async fn ticks(agent: &Agent) -> Result<()> {
    let before = printed(agent, "tick")?;
    eventually("it ticks", HEAL, async || {
        let now = printed(agent, "tick")?;
        Ok(if now > before + 2 { Ok(()) } else { Err(now) })
    })
    .await
}

/// Waits until such a service no longer does.
async fn stops(agent: &Agent) -> Result<()> {
    eventually("it stops", HEAL, async || {
        let before = printed(agent, "tick")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = printed(agent, "tick")?;
        Ok(if now == before { Ok(()) } else { Err(now) })
    })
    .await
}
