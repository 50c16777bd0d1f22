use serde_json::json;

use super::*;
use crate::{
    host::observed::{ComponentState, Run, RunState, Serving, Timings},
    spec::{Ended, Exit},
};

fn workload() -> api::Workload {
    let object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload",
        "metadata": { "name": "job", "namespace": "shop", "uid": "uid", "generation": 1, "resourceVersion": "7" },
        "spec": { "hostId": "node", "components": [{ "name": "app", "image": "a:v1" }] },
    });
    serde_json::from_value(object).unwrap()
}

fn observed(progress: Progress, state: Option<RunState>) -> Observed {
    let serving = (progress == Progress::Running).then_some(Serving {
        generation: 1,
        since: SystemTime::UNIX_EPOCH,
    });
    let run = state.map(|state| Run {
        component: "app".into(),
        state,
        restarts: 0,
        last: None,
    });
    Observed {
        id: "uid".into(),
        generation: 1,
        stamp: 0,
        progress,
        serving,
        over: false,
        components: vec![ComponentState {
            name: "app".into(),
            image: "a:v1".to_owned(),
            digest: None,
            run,
        }],
        timings: Timings::default(),
    }
}

fn held() -> Observed {
    observed(Progress::Running, Some(RunState::Held))
}

fn completed() -> Observed {
    let ended = Ended {
        exit: Exit::Completed,
        at: SystemTime::UNIX_EPOCH,
    };
    observed(Progress::Completed, Some(RunState::Ended(ended)))
}

fn written(tracked: &mut Tracked, now: Instant) -> Option<Write> {
    tracked.begin_write("node", SystemTime::UNIX_EPOCH, now)
}

/// Whatever a watch has told by then: it may be late, and the agent before may have run it to its end.
#[test]
fn a_command_is_run_on_what_was_read_since_the_lease_is_held() {
    let now = Instant::now();
    let mut tracked = Tracked::new(Arc::new(workload()), now);
    assert!(!tracked.ask_in(1, now), "it is not known to have any");
    tracked.observe(Some(held()), now);
    assert!(tracked.may_run_commands());
    assert!(!tracked.may_run_in(1));
    assert!(tracked.ask_in(1, now));
    assert!(!tracked.ask_in(1, now), "it is being read");
    tracked.was_read(1, false);
    assert!(!tracked.may_run_in(1));
    assert!(tracked.ask_in(1, now), "again");
    tracked.was_read(1, true);
    assert!(tracked.may_run_in(1));
    assert!(!tracked.ask_in(1, now));

    // The Lease was another's in between.
    assert!(!tracked.may_run_in(2));
    assert!(tracked.ask_in(2, now));
    tracked.was_read(1, true);
    assert!(!tracked.may_run_in(2), "that was asked before");
    tracked.was_read(2, true);
    assert!(tracked.may_run_in(2));
}

#[test]
fn what_is_about_to_run_is_not_reported_as_held() {
    let now = Instant::now();
    let mut tracked = Tracked::new(Arc::new(workload()), now);
    let later = now + UNDER_WAY * 10;
    tracked.observe(Some(held()), later);
    assert!(tracked.ask_in(1, later));
    assert_eq!(tracked.plan(later), WritePlan::At(later + UNDER_WAY));
    let since = SystemTime::UNIX_EPOCH;
    let runs = observed(Progress::Running, Some(RunState::Running { since }));
    tracked.observe(Some(runs), later);
    assert_eq!(tracked.plan(later), WritePlan::Now);
}

#[test]
fn what_is_done_stays_so_while_its_agent_goes_away() {
    let now = Instant::now();
    let mut tracked = Tracked::new(Arc::new(workload()), now);
    tracked.observe(Some(completed()), now);
    let status = written(&mut tracked, now).unwrap().body["status"].clone();
    let mut object = workload();
    object.metadata.resource_version = Some("8".to_owned());
    object.status = serde_json::from_value(status).unwrap();
    tracked.written(&Written::Applied(Arc::new(object.clone())), now);
    tracked.update(Arc::new(object), now);
    tracked.drain(now);
    for progress in [Progress::Draining, Progress::Stopped] {
        let run = completed().components[0].run.clone().map(|run| run.state);
        tracked.observe(Some(observed(progress, run)), now);
        assert!(written(&mut tracked, now).is_none(), "it is written");
    }
}

/// After a restart of the agent it is done again in a moment.
#[test]
fn what_was_done_is_left_unreported_while_it_comes_back() {
    let now = Instant::now();
    let mut object = workload();
    let condition = |reason: &str| json!({ "type": "Ready", "status": "False", "reason": reason, "observedGeneration": 1 });
    for (reason, wait) in [("Completed", COMING_BACK), ("Pulling", UNDER_WAY)] {
        let status =
            json!({ "observedGeneration": 1, "conditions": [condition(reason)], "components": [] });
        object.status = serde_json::from_value(status).unwrap();
        let mut tracked = Tracked::new(Arc::new(object.clone()), now);
        tracked.observe(Some(observed(Progress::Working(Stage::Fetch), None)), now);
        assert_eq!(tracked.plan(now), WritePlan::At(now + wait), "{reason}");
    }
}

/// The host's memory may be lost while the agent goes on: what it is to do must say what is over.
#[test]
fn what_is_desired_says_what_has_ended_as_soon_as_that_is_written() {
    let now = Instant::now();
    let mut tracked = Tracked::new(Arc::new(workload()), now);
    tracked.observe(Some(completed()), now);
    let mut object = workload();
    object.metadata.resource_version = Some("8".to_owned());
    let status = written(&mut tracked, now).unwrap().body["status"].clone();
    object.status = serde_json::from_value(status).unwrap();
    assert!(tracked.update(Arc::new(object), now), "that is news");
    let (evaluation, _) = tracked.evaluate(&References::default(), now);
    let Evaluation::Desired(desired) = evaluation else {
        panic!("nothing is missing");
    };
    assert_eq!(desired.commands.finished[0].ended.exit, Exit::Completed);
}
