//! What the host notices about workloads, as Kubernetes Events.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::super::{
    api,
    events::{Events, News, Tone},
    lease::Standing,
};
use crate::plugin::Notice;

/// Tells notices as Events until the host has ended; while another agent has the node, it has the say.
pub(super) async fn tell(
    mut notices: broadcast::Receiver<Notice>,
    standing: watch::Receiver<Standing>,
    events: Events,
) {
    loop {
        match notices.recv().await {
            Ok(notice) if *standing.borrow() == Standing::Holder => events.tell(news(notice)),
            Ok(_) => {}
            Err(RecvError::Lagged(lost)) => {
                tracing::debug!(lost, "notices were not told as events");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn news(notice: Notice) -> News {
    News {
        regarding: ObjectReference {
            api_version: Some(api::Workload::api_version(&()).into_owned()),
            kind: Some(api::Workload::kind(&()).into_owned()),
            namespace: Some(notice.namespace.to_string()),
            name: Some(notice.name.to_string()),
            uid: Some(notice.workload.to_string()),
            ..ObjectReference::default()
        },
        tone: Tone::Warning,
        reason: notice.reason,
        action: "Running",
        note: notice.message,
    }
}
