//! The conditions of a workload.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    StatusInput,
    position::{At, Gate, Position},
    time,
};
use crate::washlet::api::{Condition, condition_type};

/// The agent's conditions, in order.
pub(super) fn conditions(input: &StatusInput<'_>, position: &Position<'_>) -> Vec<Condition> {
    let serving = input.serving();
    let mut conditions: Vec<Condition> = Gate::ALL
        .into_iter()
        .map(|gate| match gate {
            Gate::Ready => ready(position, serving),
            gate => passed_or_not(gate, position),
        })
        .collect();
    conditions.extend(progress(position, serving));
    let former = input
        .workload
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let now = time::seconds(input.now);
    for condition in &mut conditions {
        condition.last_transition_time = Some(Time(transition(condition, former, now)));
    }
    conditions
}

/// Any condition but Ready: `True` before the gate that the generation is at, `Unknown` behind it.
fn passed_or_not(gate: Gate, position: &Position<'_>) -> Condition {
    let (status, reason, message) = match position.gate {
        Some(at) if gate == at => match position.at {
            At::Failed(_) => ("False", position.reason(), position.message().to_owned()),
            _ => ("Unknown", position.reason(), position.message().to_owned()),
        },
        Some(at) if gate > at => ("Unknown", "Pending", format!("Waits for {}.", type_of(at))),
        _ => ("True", passed(gate).0, passed(gate).1.to_owned()),
    };
    condition(type_of(gate), status, reason, message, position.generation)
}

/// `Ready`, about the generation that answers, if one does.
fn ready(position: &Position<'_>, serving: Option<i64>) -> Condition {
    let (type_, message) = (condition_type::READY, position.message());
    match serving {
        Some(serving) if serving != position.generation => {
            let message = format!(
                "Generation {serving} answers; generation {} does not yet: {message}",
                position.generation
            );
            condition(type_, "True", "Serving", message, serving)
        }
        // The newest state could not be taken, or is being taken, but what answers is of the same generation.
        Some(serving) => condition(
            type_,
            "True",
            passed(Gate::Ready).0,
            passed(Gate::Ready).1.to_owned(),
            serving,
        ),
        None => condition(
            type_,
            "False",
            position.reason(),
            message.to_owned(),
            position.generation,
        ),
    }
}

/// `Reconciling` or `Stalled`, while a generation is not there yet.
fn progress(position: &Position<'_>, serving: Option<i64>) -> Option<Condition> {
    let type_ = if position.moves()? {
        condition_type::RECONCILING
    } else {
        condition_type::STALLED
    };
    let message = match serving {
        Some(serving) => format!(
            "Generation {serving} goes on answering. {}",
            position.message()
        ),
        None => position.message().to_owned(),
    };
    Some(condition(
        type_,
        "True",
        position.reason(),
        message,
        position.generation,
    ))
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    generation: i64,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: Some(generation),
        last_transition_time: None,
    }
}

/// When the condition got its status: as before if it had it, else now; never earlier than it ever was.
fn transition(condition: &Condition, former: &[Condition], now: Timestamp) -> Timestamp {
    let former = Condition::find(former, &condition.type_);
    match former.and_then(|f| Some((f, f.last_transition_time.as_ref()?.0))) {
        Some((former, time)) if former.status == condition.status => time,
        Some((_, time)) => time.max(now),
        None => now,
    }
}

const fn type_of(gate: Gate) -> &'static str {
    match gate {
        Gate::Accepted => condition_type::ACCEPTED,
        Gate::ConfigResolved => condition_type::CONFIG_RESOLVED,
        Gate::ImagesPulled => condition_type::IMAGES_PULLED,
        Gate::Linked => condition_type::LINKED,
        Gate::Ready => condition_type::READY,
    }
}

/// Reason and message of a gate that is passed.
const fn passed(gate: Gate) -> (&'static str, &'static str) {
    match gate {
        Gate::Accepted => ("Accepted", "The specification is valid."),
        Gate::ConfigResolved => ("Resolved", "All that the workload names was read."),
        Gate::ImagesPulled => ("Pulled", "The images of all components are on the host."),
        Gate::Linked => (
            "Linked",
            "The components are compiled, and the host has all that they import.",
        ),
        Gate::Ready => ("Serving", "The workload answers."),
    }
}
