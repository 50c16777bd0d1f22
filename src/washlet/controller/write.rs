//! What the controller decides to write, as data: decisions are made by pure functions, and one place carries them out.

use serde_json::Value;

/// A kind of object that the controller reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Workload,
    ReplicaSet,
    Deployment,
    /// Read and never written, save by the model that the tests decide upon.
    #[cfg(test)]
    Artifact,
    EndpointSlice,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub key: Key,
    pub action: Action,
}

/// What is done to an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Creates it; that it is there already is no failure.
    Create(Value),
    /// Deletes it, if it is still the one with this UID.
    Delete { uid: String },
    /// Merges fields into it. The patch carries `metadata.uid` and `metadata.resourceVersion`, so that it cannot land on another
    /// object or on a newer state than the one that was decided upon.
    Merge(Value),
    /// Makes it so, whether it is there or not, by server-side apply.
    Apply(Value),
    /// Applies a part of its status. The body carries `metadata.resourceVersion`.
    Status { part: Part, body: Value },
}

/// Whose part of a status it is: the field manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The controller's own.
    Controller,
    /// The agent's, written in its stead where no living agent has the workload.
    Agent,
}

impl Part {
    /// The name of the field manager.
    pub fn manager(self) -> &'static str {
        match self {
            Self::Controller => "washlet-controller",
            Self::Agent => "washlet-agent",
        }
    }
}
