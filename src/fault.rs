//! Why a workload does not run: one reason from a closed list, a message for a person, and when to try again.
//!
//! Every stage has its own typed error; all of them end as a [`Fault`], which is what status, events and the embedding API show.

use std::{fmt, sync::Arc, time::Duration};

use crate::spec::Exit;

/// The stage of a workload's start that a fault belongs to, in the order in which the stages happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The specification itself.
    Accept,
    /// ConfigMaps and Secrets that it names.
    Configure,
    /// Getting the components' bytes.
    Fetch,
    /// Bytes to machine code.
    Compile,
    /// Imports to what the host offers.
    Link,
    /// Routes and everything else that makes it answer.
    Start,
}

/// A machine-readable word for a fault; the same word is the reason of conditions and of Events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The specification is wrong in a way that the schema could not refuse.
    InvalidSpec,
    /// The specification asks for something that this version does not do.
    UnsupportedSpec,
    /// A Secret or ConfigMap that it names does not exist, or lacks what is needed.
    ReferenceNotFound,
    /// The agent may not read something.
    Forbidden,
    /// The image's name is not a reference.
    InvalidImageName,
    /// The pull failed in a way that has no better word.
    ErrImagePull,
    /// `imagePullPolicy: Never`, and the image is not here.
    ErrImageNeverPull,
    /// The registry refused every credential.
    Unauthorized,
    /// The registry has no such image.
    ImageNotFound,
    /// The registry does not answer, or answers with an error of its own.
    RegistryUnavailable,
    /// The artifact holds no WebAssembly, or more than one.
    UnsupportedMediaType,
    /// The bytes are not those that the digest names.
    DigestMismatch,
    /// The node's disk is full.
    FreeDiskSpaceFailed,
    /// The bytes are not a WebAssembly component.
    NotAComponent,
    /// Wasmtime could not compile it.
    CompileFailed,
    /// It imports something that nobody offers.
    ImportNotSatisfied,
    /// A plugin refused the workload's configuration for it.
    BindFailed,
    /// An older workload has the route.
    RouteConflict,
    /// Something else has the port.
    PortConflict,
    /// It ran out of memory.
    MemoryLimit,
    /// It ran out of time.
    DeadlineExceeded,
    /// It trapped.
    Trapped,
    /// The host itself failed; a bug.
    HostError,
    /// It is stopping.
    Draining,
    /// A service or a job has ended with an exit code of its own.
    Error,
    /// A service or a job used up its fuel.
    OutOfFuel,
    /// A service has ended well, and is not started again.
    Completed,
    /// A service or a job ended, and waits to be started again.
    CrashLoopBackOff,
}

impl Reason {
    /// The word itself, in Kubernetes' CamelCase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::UnsupportedSpec => "UnsupportedSpec",
            Self::ReferenceNotFound => "ReferenceNotFound",
            Self::Forbidden => "Forbidden",
            Self::InvalidImageName => "InvalidImageName",
            Self::ErrImagePull => "ErrImagePull",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::Unauthorized => "Unauthorized",
            Self::ImageNotFound => "ImageNotFound",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::DigestMismatch => "DigestMismatch",
            Self::FreeDiskSpaceFailed => "FreeDiskSpaceFailed",
            Self::NotAComponent => "NotAComponent",
            Self::CompileFailed => "CompileFailed",
            Self::ImportNotSatisfied => "ImportNotSatisfied",
            Self::BindFailed => "BindFailed",
            Self::RouteConflict => "RouteConflict",
            Self::PortConflict => "PortConflict",
            Self::MemoryLimit => "MemoryLimit",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Trapped => "Trapped",
            Self::HostError => "HostError",
            Self::Draining => "Draining",
            Self::Error => "Error",
            Self::OutOfFuel => "OutOfFuel",
            Self::Completed => "Completed",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
        }
    }
}

impl From<&Exit> for Reason {
    fn from(exit: &Exit) -> Self {
        match exit {
            Exit::Completed => Self::Completed,
            Exit::Error(_) => Self::Error,
            Exit::Trapped(_) => Self::Trapped,
            Exit::OutOfFuel => Self::OutOfFuel,
            Exit::DeadlineExceeded => Self::DeadlineExceeded,
            Exit::MemoryLimit(_) => Self::MemoryLimit,
            Exit::HostError(_) => Self::HostError,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a failed step is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not until the desired state changes.
    Terminal,
    /// Soon, and then less and less often.
    Retry,
    /// Not before this time has passed (a registry's `Retry-After`).
    Wait(Duration),
    /// When something in the host changes (a route is released); it says so by itself.
    Signal,
}

/// Why a workload, or a newer generation of it, does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Where it happened.
    pub stage: Stage,
    /// The word for it.
    pub reason: Reason,
    /// When to try again.
    pub class: Class,
    /// The component that it is about, if one alone.
    pub component: Option<Arc<str>>,
    /// What happened, to what, and how to mend it: a sentence for a person, without secrets, of at most
    /// [`Fault::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Fault {
    /// Longest message, in bytes. Kubernetes' own limit for a condition's message is 32 KiB; nobody reads that.
    pub const MAX_MESSAGE: usize = 1024;

    /// A fault that retrying cannot mend.
    pub fn new(stage: Stage, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            stage,
            reason,
            class: Class::Terminal,
            component: None,
            message: cut(message.into()),
        }
    }

    /// The same fault with another class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same fault, about one component, which its message names already.
    #[must_use]
    pub fn of_component(mut self, name: Arc<str>) -> Self {
        self.component = Some(name);
        self
    }

    /// The same fault, about one component, which its message is made to name.
    #[must_use]
    pub fn in_component(mut self, name: &Arc<str>) -> Self {
        self.message = cut(format!("component \"{name}\": {}", self.message));
        self.of_component(name.clone())
    }
}

/// Cuts a message at a character boundary.
fn cut(mut message: String) -> String {
    if message.len() > Fault::MAX_MESSAGE {
        let end = message.floor_char_boundary(Fault::MAX_MESSAGE - '…'.len_utf8());
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_capped_at_a_character() {
        let fault = Fault::new(Stage::Fetch, Reason::ErrImagePull, "ä".repeat(2000));
        assert!(fault.message.len() <= Fault::MAX_MESSAGE);
        assert!(fault.message.ends_with('…'));
    }
}
