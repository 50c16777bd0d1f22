//! Things that a workload's owner should hear of although nothing failed: a call that was denied, for example.
//!
//! Any plugin may tell some, by the [`Notices`] that it is given when a workload is bound; whoever runs the host reads them from
//! [`Host::notices`](crate::host::Host::notices). The agent makes Kubernetes Events of them. They are told at the workload's own
//! pace, so tell each of them once, and a bounded number; readers that fall behind lose the oldest.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::spec::{self, WorkloadId};

/// Notices that wait for a slow reader, of all workloads of a host.
const WAITING: usize = 256;

/// Something that was noticed about a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// The workload's id.
    pub workload: WorkloadId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// A word for it in Kubernetes' CamelCase, such as `EgressDenied`.
    pub reason: &'static str,
    /// What happened and what to do about it, for a person.
    pub message: String,
}

/// Tells notices about one workload.
#[derive(Debug, Clone)]
pub struct Notices {
    workload: WorkloadId,
    namespace: Arc<str>,
    name: Arc<str>,
    sender: broadcast::Sender<Notice>,
}

impl Notices {
    /// Where the notices of a host come together.
    pub(crate) fn channel() -> broadcast::Sender<Notice> {
        broadcast::channel(WAITING).0
    }

    /// For one workload.
    pub(crate) fn new(workload: &spec::Workload, sender: &broadcast::Sender<Notice>) -> Self {
        Self {
            workload: workload.id.clone(),
            namespace: workload.namespace.as_str().into(),
            name: workload.name.as_str().into(),
            sender: sender.clone(),
        }
    }

    /// Tells something, without waiting; nobody may be there to hear it.
    pub fn tell(&self, reason: &'static str, message: String) {
        let _ = self.sender.send(Notice {
            workload: self.workload.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            reason,
            message,
        });
    }
}
