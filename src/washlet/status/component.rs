//! The state of each component.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    StatusInput,
    position::{At, Position},
    time,
};
use crate::{
    fault::Reason,
    host::observed::{ComponentState, Progress, Run, RunState},
    spec::{self, Ended},
    washlet::{
        api::{self, ComponentStatus, Running, State, Terminated, Waiting},
        convert::{STOPPED, end_message, restarted_at, stamp, written_end},
    },
};

/// One entry a component, in the order of the spec: as the host knows them, or, before it knows any, as the spec names them.
pub(super) fn components(input: &StatusInput<'_>, position: &Position<'_>) -> Vec<ComponentStatus> {
    let named = named(&input.workload.spec);
    match input.observed {
        Some(observed) => {
            // The host names an image with its defaults filled in; people look for what they wrote. The spec has that, unless
            // it is newer than what the host runs.
            let named = if observed.generation == position.generation {
                named.as_slice()
            } else {
                &[]
            };
            observed
                .components
                .iter()
                .map(|component| of_host(input, position, component, named))
                .collect()
        }
        None => named
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, image)| {
                let status = ComponentStatus {
                    name: name.clone(),
                    image: (*image).to_owned(),
                    state: waiting(position, name),
                    ..ComponentStatus::default()
                };
                match written_end(input.workload, name) {
                    Some(end) => with_end(status, end),
                    None => status,
                }
            })
            .collect(),
    }
}

/// The components as the spec names them, the service last, and their images as it writes them.
fn named(spec: &api::WorkloadSpec) -> Vec<(String, &str)> {
    let components = spec.components.iter();
    let mut named: Vec<(String, &str)> = components
        .map(|c| (c.name.clone(), c.image.as_str()))
        .collect();
    if let Some(service) = &spec.service {
        let name = spec::service_name(named.iter().map(|(name, _)| name.as_str()));
        named.push((name, service.image.as_str()));
    }
    named
}

fn of_host(
    input: &StatusInput<'_>,
    position: &Position<'_>,
    component: &ComponentState,
    named: &[(String, &str)],
) -> ComponentStatus {
    let written = named
        .iter()
        .find(|(name, _)| *name == *component.name)
        .map(|(_, image)| *image);
    let image = written.unwrap_or_else(|| {
        component
            .image
            .strip_prefix("image ")
            .unwrap_or(&component.image)
    });
    let run = component.run.as_ref();
    let status = ComponentStatus {
        name: component.name.to_string(),
        image: image.to_owned(),
        digest: component.digest.as_ref().map(ToString::to_string),
        ..ComponentStatus::default()
    };
    let written_end = written_end(input.workload, &component.name);
    if let Some(end) = written_end.filter(|e| stands(e, run, input.workload)) {
        return with_end(status, end);
    }
    ComponentStatus {
        state: state(input, position, component),
        restart_count: run.map_or(0, |run| i32::try_from(run.restarts).unwrap_or(i32::MAX)),
        last_termination: run
            .and_then(|run| run.last.as_ref())
            .map(|ended| terminated(ended, None)),
        ..status
    }
}

/// Whether what is written of a command that has ended for good is still so: this host has not run it since. The next agent
/// goes by it, so nothing that happens on the way to serving may take its place: the command would be run again.
fn stands(written: &ComponentStatus, run: Option<&Run>, workload: &api::Workload) -> bool {
    match run.map(|run| &run.state) {
        None | Some(RunState::Held) => true,
        Some(RunState::Ended(ended)) => {
            written.state.terminated == Some(terminated(ended, restarted_at(workload)))
        }
        Some(RunState::Running { .. } | RunState::BackingOff { .. }) => false,
    }
}

fn with_end(status: ComponentStatus, end: &ComponentStatus) -> ComponentStatus {
    ComponentStatus {
        state: end.state.clone(),
        restart_count: end.restart_count,
        last_termination: end.last_termination.clone(),
        ..status
    }
}

fn state(input: &StatusInput<'_>, position: &Position<'_>, component: &ComponentState) -> State {
    let run = component.run.as_ref();
    let observed = input.observed;
    if let Some(ended) = run.and_then(Run::ended) {
        // The end of an older generation's run must not pass for the newer one's: that one is still to be run. Nor must that of
        // a run before a restart was asked for.
        let now = (position.generation, stamp(input.workload));
        if observed.is_some_and(|o| (o.generation, o.stamp) != now) {
            return waiting(position, &component.name);
        }
        return State {
            terminated: Some(terminated(ended, restarted_at(input.workload))),
            ..State::default()
        };
    }
    if observed.is_some_and(|o| o.progress == Progress::Stopped) {
        let stopped = Terminated {
            reason: STOPPED.to_owned(),
            ..Terminated::default()
        };
        return State {
            terminated: Some(stopped),
            ..State::default()
        };
    }
    if let Some(run) = run {
        return of_run(run);
    }
    let since = observed
        .and_then(|o| o.serving.as_ref().filter(|s| s.generation == o.generation))
        .map(|s| s.since);
    let goes_on = input.serving().is_some() || matches!(position.at, At::Draining);
    since
        .filter(|_| goes_on)
        .map_or_else(|| waiting(position, &component.name), running)
}

/// A service or a job, which is doing as it is doing whatever the rest of the workload does.
fn of_run(run: &Run) -> State {
    let (reason, message) = match (&run.state, &run.last) {
        (RunState::Running { since }, _) => return running(*since),
        (RunState::BackingOff { until }, Some(last)) => (
            Reason::CrashLoopBackOff.as_str(),
            format!(
                "The last run {}. It is started again at {}.",
                last.exit,
                time::seconds(*until)
            ),
        ),
        _ => (
            "Held",
            "It runs once this host is the one to run it and has room for it.".to_owned(),
        ),
    };
    State {
        waiting: Some(Waiting {
            reason: reason.to_owned(),
            message,
        }),
        ..State::default()
    }
}

fn terminated(ended: &Ended, restarted_at: Option<&str>) -> Terminated {
    Terminated {
        reason: Reason::from(&ended.exit).as_str().to_owned(),
        exit_code: ended.exit.code(),
        message: end_message(&ended.exit),
        finished_at: Some(Time(time::seconds(ended.at))),
        restarted_at: restarted_at.map(str::to_owned),
    }
}

fn running(since: std::time::SystemTime) -> State {
    State {
        running: Some(Running {
            started_at: Some(Time(time::seconds(since))),
        }),
        ..State::default()
    }
}

/// A component waits for what its generation waits for, or, when another component is at fault, for that one.
fn waiting(position: &Position<'_>, name: &str) -> State {
    let (reason, message) = match position.at {
        At::Failed(fault)
            if fault
                .component
                .as_deref()
                .is_some_and(|at_fault| at_fault != name) =>
        {
            (
                "Pending",
                format!(
                    "Waits for component {}.",
                    fault.component.as_deref().unwrap_or_default()
                ),
            )
        }
        _ => (position.reason(), position.message().to_owned()),
    };
    State {
        waiting: Some(Waiting {
            reason: reason.to_owned(),
            message,
        }),
        ..State::default()
    }
}
