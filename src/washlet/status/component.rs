//! The state of each component.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    StatusInput,
    position::{At, Position},
    time,
};
use crate::{
    host::observed::ComponentState,
    washlet::api::{self, ComponentStatus, Running, State, Terminated, Waiting},
};

/// One entry a component, in the order of the spec: as the host knows them, or, before it knows any, as the spec names them.
pub(super) fn components(input: &StatusInput<'_>, position: &Position<'_>) -> Vec<ComponentStatus> {
    let named = &input.workload.spec.components;
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
            .filter(|component| !component.name.is_empty())
            .map(|component| ComponentStatus {
                name: component.name.clone(),
                image: component.image.clone(),
                state: waiting(position, &component.name),
                ..ComponentStatus::default()
            })
            .collect(),
    }
}

fn of_host(
    input: &StatusInput<'_>,
    position: &Position<'_>,
    component: &ComponentState,
    named: &[api::Component],
) -> ComponentStatus {
    let written = named
        .iter()
        .find(|c| *c.name == *component.name)
        .map(|c| c.image.as_str());
    let image = written.unwrap_or_else(|| {
        component
            .image
            .strip_prefix("image ")
            .unwrap_or(&component.image)
    });
    ComponentStatus {
        name: component.name.to_string(),
        image: image.to_owned(),
        digest: component.digest.as_ref().map(ToString::to_string),
        state: state(input, position, &component.name),
        ..ComponentStatus::default()
    }
}

fn state(input: &StatusInput<'_>, position: &Position<'_>, name: &str) -> State {
    if let At::Stopped = position.at {
        let stopped = Terminated {
            reason: "Stopped".to_owned(),
            ..Terminated::default()
        };
        return State {
            terminated: Some(stopped),
            ..State::default()
        };
    }
    let since = input
        .observed
        .and_then(|o| o.serving.as_ref().filter(|s| s.generation == o.generation))
        .map(|s| s.since);
    let goes_on = input.serving().is_some() || matches!(position.at, At::Draining);
    since
        .filter(|_| goes_on)
        .map_or_else(|| waiting(position, name), running)
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
