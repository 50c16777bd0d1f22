//! What the controller writes into the status of a workload: its own part, and, where no living agent has the workload, the one
//! condition that says so. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    super::api::{self, Condition, condition_type},
    traffic::Unpublished,
    world::Id,
    write::{Action, Key, Kind, Part, Write},
};

/// All that is decided about one workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Facts {
    pub placement: Placement,
    /// Where another workload has a route that this one wants: the whole message.
    pub conflict: Option<String>,
    /// What became of the Service that it names; none if it names none.
    pub service: Option<Result<u16, Unpublished>>,
    /// Where the Service's traffic reaches it.
    pub endpoints: Vec<api::Endpoint>,
    /// What is to be said of it in place of an agent.
    pub absent: Option<Absent>,
}

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Placement {
    /// Not decided yet.
    #[default]
    Pending,
    /// On the host that its specification names; nothing for the controller to say.
    Pinned,
    /// On this host.
    On {
        host: String,
        environment: Option<String>,
    },
    /// On no host, because none fits.
    Nowhere { why: String },
}

/// Why no agent reports about a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absent {
    /// No host fits.
    Unschedulable { why: String },
    /// The agent of its host gives no sign of life.
    HostLost { host: String },
}

/// The next write that makes a workload's status say what is decided; none if it says so already.
///
/// An absence is told first: a workload that is given to another host must not look Ready by what the old one said.
pub(super) fn write(workload: &api::Workload, facts: &Facts, now: Timestamp) -> Option<Write> {
    let absent = facts.absent.as_ref();
    absent
        .and_then(|absent| stand_in(workload, absent, now))
        .or_else(|| own_part(workload, facts, now))
}

fn own_part(workload: &api::Workload, facts: &Facts, now: Timestamp) -> Option<Write> {
    let none = api::WorkloadStatus::default();
    let is = workload.status.as_ref().unwrap_or(&none);
    let generation = workload.metadata.generation;
    let mut conditions = Vec::new();
    let mut add = |type_: &str, status: &str, reason: &str, message: String| {
        conditions.push(condition(
            is,
            generation,
            now,
            type_,
            (status, reason, message),
        ));
    };
    let (mut host, mut environment) = (None, None);
    match &facts.placement {
        // Nothing is taken back while nothing is decided.
        Placement::Pending => return None,
        Placement::Pinned => {}
        Placement::On {
            host: on,
            environment: of,
        } => {
            add(
                condition_type::SCHEDULED,
                "True",
                "Scheduled",
                format!("assigned to host {on}"),
            );
            (host, environment) = (Some(on.clone()), of.clone());
        }
        Placement::Nowhere { why } => {
            add(
                condition_type::SCHEDULED,
                "False",
                "Unschedulable",
                why.clone(),
            );
        }
    }
    if let Some(conflict) = &facts.conflict {
        add(
            condition_type::ROUTED,
            "False",
            "RouteConflict",
            conflict.clone(),
        );
    }
    match &facts.service {
        None => {}
        Some(Ok(port)) => add(
            condition_type::SERVICE_PUBLISHED,
            "True",
            "Published",
            format!("endpoints are published, on port {port} of the hosts"),
        ),
        Some(Err(unpublished)) => add(
            condition_type::SERVICE_PUBLISHED,
            "False",
            unpublished.reason,
            unpublished.message.clone(),
        ),
    }
    let port = facts
        .service
        .as_ref()
        .and_then(|service| service.as_ref().ok())
        .map(|port| i32::from(*port));
    let wanted = api::WorkloadStatus {
        conditions,
        host_id: host,
        environment,
        service_port: port,
        endpoints: facts.endpoints.clone(),
        ..api::WorkloadStatus::default()
    };
    differs(is, &wanted, &facts.placement)
        .then(|| status_write(workload, Part::Controller, &wanted))
}

/// Whether the controller's part of `is` is another than `wanted`.
fn differs(is: &api::WorkloadStatus, wanted: &api::WorkloadStatus, placement: &Placement) -> bool {
    let own = [
        condition_type::SCHEDULED,
        condition_type::ROUTED,
        condition_type::SERVICE_PUBLISHED,
    ];
    let of = |status: &api::WorkloadStatus, type_: &str| {
        Condition::find(&status.conditions, type_).cloned()
    };
    // Where the specification pins it, the host is the agent's to report.
    let pinned = *placement == Placement::Pinned;
    own.iter().any(|type_| of(is, type_) != of(wanted, type_))
        || (!pinned && (is.host_id != wanted.host_id || is.environment != wanted.environment))
        || is.service_port != wanted.service_port
        || is.endpoints != wanted.endpoints
}

/// The agent's part, in its stead: that it is not known whether the workload answers, or that it cannot.
fn stand_in(workload: &api::Workload, absent: &Absent, now: Timestamp) -> Option<Write> {
    let none = api::WorkloadStatus::default();
    let is = workload.status.as_ref().unwrap_or(&none);
    let (status, reason, message) = absent.ready();
    let ready = condition(
        is,
        workload.metadata.generation,
        now,
        condition_type::READY,
        (status, reason, message),
    );
    if absent.is_told(workload) {
        return None;
    }
    let wanted = api::WorkloadStatus {
        conditions: vec![ready],
        ..api::WorkloadStatus::default()
    };
    Some(status_write(workload, Part::Agent, &wanted))
}

impl Absent {
    fn ready(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Unschedulable { why } => ("False", "Unschedulable", why.clone()),
            Self::HostLost { host } => (
                "Unknown",
                "HostLost",
                format!(
                    "the agent of host {host} gives no sign of life; whether the workload answers is not known"
                ),
            ),
        }
    }

    /// Whether the workload's status says so already.
    pub fn is_told(&self, workload: &api::Workload) -> bool {
        let (status, reason, message) = self.ready();
        let conditions = workload.status.as_ref().map(|s| s.conditions.as_slice());
        Condition::find(conditions.unwrap_or_default(), condition_type::READY)
            .is_some_and(|is| is.status == status && is.reason == reason && is.message == message)
    }
}

/// A condition whose time moves only when its status does.
fn condition(
    is: &api::WorkloadStatus,
    generation: Option<i64>,
    now: Timestamp,
    type_: &str,
    (status, reason, message): (&str, &str, String),
) -> Condition {
    let before = Condition::find(&is.conditions, type_).filter(|before| before.status == status);
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: before
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(Time(now))),
        observed_generation: generation,
    }
}

fn status_write(workload: &api::Workload, part: Part, status: &api::WorkloadStatus) -> Write {
    let id = Id::of(workload);
    let meta = &workload.metadata;
    Write {
        key: Key {
            kind: Kind::Workload,
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
        },
        action: Action::Status {
            part,
            body: body(meta.resource_version.as_deref(), &id, status),
        },
    }
}

fn body(version: Option<&str>, id: &Id, status: &api::WorkloadStatus) -> Value {
    let mut body = json!({
        "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
        "kind": "Workload",
        "metadata": { "name": id.name, "namespace": id.namespace, "resourceVersion": version },
        "status": status,
    });
    // The types of a status say "no components" and "no conditions" by leaving them out, as an apply needs it.
    if version.is_none()
        && let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut)
    {
        meta.remove("resourceVersion");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(status: &Value) -> api::Workload {
        serde_json::from_value(json!({
            "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload",
            "metadata": { "name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3 },
            "spec": {},
            "status": status,
        }))
        .unwrap()
    }

    fn on(host: &str) -> Facts {
        Facts {
            placement: Placement::On {
                host: host.to_owned(),
                environment: None,
            },
            ..Facts::default()
        }
    }

    fn part(write: Option<Write>) -> (Part, Value) {
        match write.map(|write| write.action) {
            Some(Action::Status { part, body }) => (part, body),
            other => panic!("{other:?}"),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn an_assignment_is_written_once() {
        let (of, body) = part(write(&workload(&json!({})), &on("a"), at(100)));
        assert_eq!(of, Part::Controller);
        assert_eq!(body["status"]["hostId"], "a");
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["status"]["conditions"][0]["observedGeneration"], 3);
        let told = workload(&body["status"]);
        assert_eq!(write(&told, &on("a"), at(200)), None, "told already");
        let (_, moved) = part(write(&told, &on("b"), at(200)));
        let scheduled = &moved["status"]["conditions"][0];
        assert_eq!(
            scheduled["lastTransitionTime"], "1970-01-01T00:01:40Z",
            "True before and after"
        );
    }

    #[test]
    fn a_lost_host_is_told_first_in_the_agents_place_and_only_once() {
        let ready = json!({ "hostId": "a", "conditions": [{ "type": "Ready", "status": "True", "reason": "Serving" }] });
        let lost = Facts {
            absent: Some(Absent::HostLost {
                host: "a".to_owned(),
            }),
            ..on("b")
        };
        let (of, body) = part(write(&workload(&ready), &lost, at(5)));
        assert_eq!(of, Part::Agent);
        let conditions = body["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1, "no stale condition is left");
        assert_eq!(
            (&conditions[0]["status"], &conditions[0]["reason"]),
            (&json!("Unknown"), &json!("HostLost"))
        );
        assert!(
            body["status"].get("hostId").is_none(),
            "which is the controller's"
        );
        let (of, _) = part(write(&workload(&body["status"]), &lost, at(6)));
        assert_eq!(of, Part::Controller);
    }

    #[test]
    fn what_fits_nowhere_says_why_in_both_conditions() {
        let why = "0/3 hosts".to_owned();
        let nowhere = Facts {
            placement: Placement::Nowhere { why: why.clone() },
            absent: Some(Absent::Unschedulable { why }),
            ..Facts::default()
        };
        let (first, body) = part(write(&workload(&json!({})), &nowhere, at(5)));
        assert_eq!(
            (first, &body["status"]["conditions"][0]["message"]),
            (Part::Agent, &json!("0/3 hosts"))
        );
        let (second, body) = part(write(&workload(&body["status"]), &nowhere, at(5)));
        assert_eq!(
            (second, &body["status"]["conditions"][0]["type"]),
            (Part::Controller, &json!("Scheduled"))
        );
    }

    #[test]
    fn a_pinned_workload_without_a_service_is_left_alone() {
        let pinned = Facts {
            placement: Placement::Pinned,
            ..Facts::default()
        };
        let status =
            json!({ "hostId": "a", "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(write(&workload(&status), &pinned, at(5)), None);
        let left =
            json!({ "hostId": "a", "conditions": [{ "type": "Scheduled", "status": "True" }] });
        assert!(
            write(&workload(&left), &pinned, at(5)).is_some(),
            "it was assigned before"
        );
    }
}
