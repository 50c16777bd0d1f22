mod changes;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    fault::{Class, Reason, Stage},
    host::observed::{ComponentState, Run, RunState, Serving, Timings},
    spec::{Digest, Ended, Exit},
    washlet::api::{Condition, condition_type},
};

/// 2026-01-01T00:00:00Z and some.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds)
}

fn workload(generation: i64) -> api::Workload {
    serde_json::from_value(json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {
            "name": "hello", "namespace": "shop", "uid": "uid-1", "generation": generation, "resourceVersion": "17",
        },
        "spec": {
            "hostId": "node-1",
            "components": [{ "name": "front", "image": "shop/front" }, { "name": "back", "image": "shop/back:v2" }],
        },
    }))
    .unwrap()
}

fn observed(generation: i64, progress: Progress, serving: Option<i64>) -> Observed {
    let component = |name: &str, digest: Option<Digest>| ComponentState {
        name: name.into(),
        image: format!("image docker.io/shop/{name}"),
        digest,
        run: None,
    };
    let started = serving.is_some_and(|s| s == generation);
    let micros = |n| started.then(|| at(2) + Duration::from_nanos(n));
    Observed {
        id: "uid-1".into(),
        generation,
        stamp: 0,
        progress,
        serving: serving.map(|generation| Serving {
            generation,
            since: at(3) + Duration::from_millis(400),
        }),
        over: false,
        components: vec![
            component("front", Some(Digest::of(b"front"))),
            component("back", None),
        ],
        timings: Timings {
            assigned: Some(at(2)),
            fetched: micros(1_000_999),
            compiled: micros(2_000_000),
            linked: micros(2_500_000),
            started: micros(12_345_678),
        },
    }
}

fn ended(exit: Exit) -> Ended {
    Ended { exit, at: at(20) }
}

/// A workload whose component `front` runs by itself.
fn ran(progress: Progress, state: RunState) -> Observed {
    let serving = (progress == Progress::Running).then_some(1);
    let mut observed = observed(1, progress, serving);
    observed.components[0].run = Some(Run {
        component: "front".into(),
        state,
        restarts: 3,
        last: Some(ended(Exit::Trapped("unreachable".to_owned()))),
    });
    observed
}

fn failed(stage: Stage, reason: Reason, class: Class) -> Progress {
    let fault = Fault::new(
        stage,
        reason,
        "component front: what happened, and what to do",
    )
    .class(class);
    Progress::Failed {
        fault: fault.of_component(Arc::from("front")),
        attempts: 2,
        retry_at: Some(at(9)),
    }
}

fn rejected(stage: Stage, reason: Reason) -> Fault {
    let class = if stage == Stage::Accept {
        Class::Terminal
    } else {
        Class::Retry
    };
    Fault::new(
        stage,
        reason,
        "spec.components[1].image: what is wrong, and the remedy",
    )
    .class(class)
}

fn input<'a>(workload: &'a api::Workload, observed: Option<&'a Observed>) -> StatusInput<'a> {
    StatusInput {
        workload,
        node: "node-1",
        fault: None,
        observed,
        draining: false,
        now: at(5),
    }
}

/// The status of a fresh object.
fn fresh(
    generation: i64,
    fault: Option<&Fault>,
    observed: Option<&Observed>,
) -> api::WorkloadStatus {
    let workload = workload(generation);
    status(&StatusInput {
        workload: &workload,
        node: "node-1",
        fault,
        observed,
        draining: false,
        now: at(5),
    })
}

/// Name, generation, what came of converting it, what the host says.
type Case = (&'static str, i64, Option<Fault>, Option<Observed>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    use Progress::{Draining, Running, Stopped, Working};
    let invalid = || Some(rejected(Stage::Accept, Reason::InvalidSpec));
    let missing = || Some(rejected(Stage::Configure, Reason::ReferenceNotFound));
    let pull = || failed(Stage::Fetch, Reason::Unauthorized, Class::Retry);
    vec![
        ("nothing is known yet", 1, None, None),
        ("the spec is wrong", 1, invalid(), None),
        ("a reference is missing", 1, missing(), None),
        (
            "pulling",
            1,
            None,
            Some(observed(1, Working(Stage::Fetch), None)),
        ),
        (
            "compiling",
            1,
            None,
            Some(observed(1, Working(Stage::Compile), None)),
        ),
        ("the pull failed", 1, None, Some(observed(1, pull(), None))),
        (
            "an import is not satisfied",
            1,
            None,
            Some(observed(
                1,
                failed(Stage::Link, Reason::ImportNotSatisfied, Class::Terminal),
                None,
            )),
        ),
        (
            "another has the route",
            1,
            None,
            Some(observed(
                1,
                failed(Stage::Start, Reason::RouteConflict, Class::Signal),
                None,
            )),
        ),
        ("serving", 1, None, Some(observed(1, Running, Some(1)))),
        ("the route was lost", 1, None, {
            Some(observed(
                1,
                failed(Stage::Start, Reason::RouteConflict, Class::Signal),
                Some(1),
            ))
        }),
        (
            "generation 2 is pulled while 1 serves",
            2,
            None,
            Some(observed(2, Working(Stage::Fetch), Some(1))),
        ),
        (
            "generation 2 failed while 1 serves",
            2,
            None,
            Some(observed(2, pull(), Some(1))),
        ),
        (
            "a newer state of generation 1 failed",
            1,
            None,
            Some(observed(1, pull(), Some(1))),
        ),
        (
            "generation 2 is wrong while 1 serves",
            2,
            invalid(),
            Some(observed(1, Running, Some(1))),
        ),
        (
            "a reference went while its generation serves",
            1,
            missing(),
            Some(observed(1, Running, Some(1))),
        ),
        (
            "a service crashes again and again",
            1,
            None,
            Some(ran(
                failed(Stage::Start, Reason::CrashLoopBackOff, Class::Signal),
                RunState::BackingOff { until: at(30) },
            )),
        ),
        (
            "a service runs again",
            1,
            None,
            Some(ran(Running, RunState::Running { since: at(30) })),
        ),
        (
            "a command is left to another host",
            1,
            None,
            Some(ran(Running, RunState::Held)),
        ),
        (
            "a job is done",
            1,
            None,
            Some(ran(
                Progress::Completed,
                RunState::Ended(ended(Exit::Completed)),
            )),
        ),
        (
            "a job has failed for good",
            1,
            None,
            Some(ran(
                failed(Stage::Start, Reason::Error, Class::Terminal),
                RunState::Ended(ended(Exit::Error(3))),
            )),
        ),
        (
            "a job was done when its agent stopped",
            1,
            None,
            Some(ran(Stopped, RunState::Ended(ended(Exit::Completed)))),
        ),
        ("draining", 1, None, Some(observed(1, Draining, Some(1)))),
        ("stopped", 1, None, Some(observed(1, Stopped, None))),
    ]
}

/// The same of an agent that goes away.
fn leaving() -> Vec<(&'static str, Observed)> {
    use Progress::{Completed, Draining, Running, Stopped, Working};
    let done = || RunState::Ended(ended(Exit::Completed));
    vec![
        ("serving", observed(1, Running, Some(1))),
        ("pulling", observed(1, Working(Stage::Fetch), None)),
        ("draining", observed(1, Draining, Some(1))),
        ("stopped", observed(1, Stopped, None)),
        ("a job is done", ran(Completed, done())),
        ("a job was done, and is stopped", ran(Stopped, done())),
    ]
}

/// Each situation with the status that it gives, one line a condition and a component. `UPDATE=1 cargo test` rewrites the file; read the difference.
#[test]
fn situations() {
    let mut text = String::from(
        "# What each situation is reported as; written by src/washlet/status/tests.rs.\n",
    );
    for (name, generation, fault, observed) in cases() {
        text.push_str(&format!("\n{name}:\n"));
        text.push_str(&lines(&fresh(
            generation,
            fault.as_ref(),
            observed.as_ref(),
        )));
    }
    text.push_str("\n# While the agent goes away.\n");
    for (name, observed) in leaving() {
        text.push_str(&format!("\n{name}:\n"));
        text.push_str(&lines(&status(&StatusInput {
            draining: true,
            ..input(&workload(1), Some(&observed))
        })));
    }
    let serving = fresh(1, None, Some(&observed(1, Progress::Running, Some(1))));
    text.push_str("\n# The status of \"serving\" as it is written.\nstatus:\n");
    let yaml = serde_saphyr::to_string(&serving).unwrap();
    text.extend(yaml.lines().map(|line| format!("  {line}\n")));
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/washlet/testdata/status.expected.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "{} differs; UPDATE=1 and read",
        path.display()
    );
}

fn lines(status: &api::WorkloadStatus) -> String {
    let mut text = format!("  generation: {}\n", status.observed_generation.unwrap());
    for c in &status.conditions {
        let generation = c.observed_generation.unwrap();
        text.push_str(&format!(
            "  - {} {} {} of {generation}, {}\n",
            c.type_, c.status, c.reason, c.message
        ));
    }
    for c in &status.components {
        let state = match &c.state {
            api::State {
                waiting: Some(w), ..
            } => format!("waits, {}, {}", w.reason, w.message),
            api::State {
                running: Some(r), ..
            } => format!("runs since {}", r.started_at.as_ref().unwrap().0),
            other => format!("{}", serde_json::to_value(&other.terminated).unwrap()),
        };
        text.push_str(&format!("  - component {} ({}) {state}", c.name, c.image));
        if let Some(last) = &c.last_termination {
            let last = format!("{} ({})", last.reason, last.exit_code);
            text.push_str(&format!(
                ", restarted {} times, last {last}",
                c.restart_count
            ));
        }
        text.push('\n');
    }
    text
}

/// Every condition behind the first that is not True is Unknown, in every situation.
#[test]
fn conditions_are_passed_in_order() {
    let stages = [Stage::Fetch, Stage::Compile, Stage::Link, Stage::Start];
    let progresses = stages
        .into_iter()
        .flat_map(|s| {
            [
                Progress::Working(s),
                failed(s, Reason::Trapped, Class::Retry),
            ]
        })
        .chain([Progress::Running, Progress::Draining, Progress::Stopped]);
    for progress in progresses {
        for serving in [None, Some(1), Some(2)] {
            let status = fresh(2, None, Some(&observed(2, progress.clone(), serving)));
            let gates = &status.conditions[..4];
            let first = gates.iter().position(|c| !c.is_true()).unwrap_or(4);
            assert!(
                gates.iter().skip(first + 1).all(|c| c.status == "Unknown"),
                "{gates:?}"
            );
            let ready = &status.conditions[4];
            assert_eq!(ready.type_, condition_type::READY);
            if !ready.is_true() && first < 4 {
                assert_eq!(
                    (&ready.reason, &ready.message),
                    (&gates[first].reason, &gates[first].message)
                );
            }
            assert!(status.conditions.iter().skip(5).all(Condition::is_true));
            assert!(status.conditions.len() <= 6);
        }
    }
}
