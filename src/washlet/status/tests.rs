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
        progress,
        serving: serving.map(|generation| Serving {
            generation,
            since: at(3) + Duration::from_millis(400),
        }),
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

#[test]
fn times_move_only_when_a_status_flips_and_never_back() {
    let mut workload = workload(1);
    let mut report = |progress: Progress, serving, now| {
        let observed = observed(1, progress, serving);
        let report = |workload: &api::Workload| {
            let observed = Some(&observed);
            status(&StatusInput {
                workload,
                node: "node-1",
                fault: None,
                observed,
                draining: false,
                now,
            })
        };
        let status = report(&workload);
        assert!(differs(workload.status.as_ref(), &status));
        workload.status = Some(status.clone());
        assert!(!differs(workload.status.as_ref(), &report(&workload)));
        let ready = Condition::find(&status.conditions, condition_type::READY).unwrap();
        (
            ready.status.clone(),
            ready.last_transition_time.clone().unwrap().0.to_string(),
        )
    };
    let pulling = report(
        Progress::Working(Stage::Fetch),
        None,
        at(1) + Duration::from_millis(999),
    );
    assert_eq!(
        pulling,
        ("False".to_owned(), "2026-01-01T00:00:01Z".to_owned())
    );
    let failed = report(
        failed(Stage::Fetch, Reason::ImageNotFound, Class::Retry),
        None,
        at(2),
    );
    assert_eq!(failed, pulling, "False is False, whatever the reason");
    let serving = report(Progress::Running, Some(1), at(3));
    assert_eq!(
        serving,
        ("True".to_owned(), "2026-01-01T00:00:03Z".to_owned())
    );
    // The clock was set back an hour.
    let draining = report(
        Progress::Draining,
        Some(1),
        at(0) - Duration::from_secs(3600),
    );
    assert_eq!(
        draining,
        ("False".to_owned(), "2026-01-01T00:00:03Z".to_owned())
    );
}

#[test]
fn an_agent_that_goes_away_says_so() {
    let (workload, observed) = (workload(1), observed(1, Progress::Running, Some(1)));
    let input = StatusInput {
        workload: &workload,
        node: "node-1",
        fault: None,
        observed: Some(&observed),
        draining: true,
        now: at(5),
    };
    let ready = status(&input).conditions.into_iter().nth(4).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Draining")
    );
}

/// What the next agent goes by.
#[test]
fn an_end_stays_written_until_the_command_is_run_again() {
    let done = || ran(Progress::Completed, RunState::Ended(ended(Exit::Completed)));
    let mut workload = workload(1);
    workload.status = Some(status(&input(&workload, Some(&done()))));
    let front = |workload: &api::Workload, observed: Option<&Observed>| {
        let status = status(&input(workload, observed));
        let front = status.components.into_iter().find(|c| c.name == "front");
        front.unwrap()
    };
    let written = front(&workload, Some(&done()));
    assert_eq!(
        written.state.terminated.as_ref().unwrap().reason,
        "Completed"
    );
    let mut anew = done();
    anew.components[0].run.as_mut().unwrap().restarts = 0;
    anew.components[0].run.as_mut().unwrap().last = None;
    let pulling = Progress::Working(Stage::Fetch);
    let on_the_way = [
        None,
        Some(observed(1, pulling.clone(), None)),
        Some(observed(
            1,
            failed(Stage::Fetch, Reason::Unauthorized, Class::Retry),
            None,
        )),
        Some(observed(1, Progress::Running, Some(1))),
        Some(observed(1, Progress::Draining, None)),
        Some(observed(1, Progress::Stopped, None)),
        Some(ran(Progress::Running, RunState::Held)),
        Some(anew),
    ];
    for observed in on_the_way {
        let now = front(&workload, observed.as_ref());
        let what = |c: &api::ComponentStatus| {
            (c.state.clone(), c.restart_count, c.last_termination.clone())
        };
        assert_eq!(what(&now), what(&written), "{observed:?}");
    }
    let runs = ran(Progress::Running, RunState::Running { since: at(30) });
    assert!(
        front(&workload, Some(&runs)).state.running.is_some(),
        "it is run again"
    );

    // It is asked to be.
    let restart = [(
        "kubectl.kubernetes.io/restartedAt".to_owned(),
        "2026-01-02T00:00:00Z".to_owned(),
    )];
    workload.metadata.annotations = Some(restart.into());
    let pulls = Some(observed(1, pulling, None));
    assert!(
        front(&workload, pulls.as_ref()).state.waiting.is_some(),
        "it was asked for"
    );
    workload.metadata.annotations = None;
    workload.metadata.generation = Some(2);
    assert!(
        front(&workload, None).state.waiting.is_some(),
        "another one"
    );
}

/// It would pass for the end of the newer one's, which would not be run then.
#[test]
fn the_end_of_an_older_generations_run_is_not_told_of_a_newer_one() {
    let done = ran(Progress::Completed, RunState::Ended(ended(Exit::Completed)));
    let missing = rejected(Stage::Configure, Reason::ReferenceNotFound);
    let status = fresh(2, Some(&missing), Some(&done));
    assert_eq!(status.observed_generation, Some(2));
    assert!(
        status.components[0].state.terminated.is_none(),
        "{status:?}"
    );
}

#[test]
fn what_others_own_is_left_alone() {
    let mut workload = workload(1);
    workload.spec.host_id = None;
    let observed = observed(1, Progress::Running, Some(1));
    let input = StatusInput {
        workload: &workload,
        node: "node-1",
        fault: None,
        observed: Some(&observed),
        draining: false,
        now: at(5),
    };
    let ours = status(&input);
    let body = apply_body(&workload, &ours);
    assert_eq!(
        body["metadata"],
        json!({ "name": "hello", "namespace": "shop", "resourceVersion": "17" })
    );
    assert_eq!(
        body["status"].get("hostId"),
        None,
        "the controller's, where the spec does not pin"
    );
    let types: Vec<&Value> = body["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert_eq!(
        types,
        [
            "Accepted",
            "ConfigResolved",
            "ImagesPulled",
            "Linked",
            "Ready"
        ]
    );

    let mut there = ours.clone();
    there.host_id = Some("node-1".to_owned());
    there.environment = Some("prod".to_owned());
    there.service_port = Some(20_000);
    there.conditions.insert(
        0,
        Condition {
            type_: "Scheduled".into(),
            status: "True".into(),
            ..Condition::default()
        },
    );
    assert!(!differs(Some(&there), &ours));
    let stalled = Condition {
        type_: "Stalled".into(),
        status: "True".into(),
        ..Condition::default()
    };
    there.conditions.push(stalled);
    assert!(differs(Some(&there), &ours), "ours, and no longer true");
    assert!(differs(None, &ours));
}
