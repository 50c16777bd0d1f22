//! What becomes of a status that is there already.

use super::*;

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
