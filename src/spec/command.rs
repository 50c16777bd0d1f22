//! Commands: components that run by themselves (`wasi:cli/run`) rather than being called. A workload's service is one, and so
//! is a job.

use std::{fmt, sync::Arc, time::SystemTime};

/// What a component is to its workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It is called; or it is a job, if it can only be run and the workload has no service.
    #[default]
    Component,
    /// It runs for as long as the workload does.
    Service {
        /// How often it is started again at most; none means as often as the restart policy says.
        max_restarts: Option<u32>,
    },
}

/// Whether a command that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// However it ended.
    Always,
    /// Only if it failed.
    OnFailure,
    /// Not at all.
    Never,
}

/// How a workload's commands are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// What becomes of one that ended; none means `Always` for a service and `OnFailure` for a job.
    pub restart_policy: Option<RestartPolicy>,
    /// They wait: this host is prepared to run them, but another one does.
    pub held: bool,
    /// Those that have ended for good already, under an earlier host or in an earlier process; they are not run again.
    pub finished: Vec<Finished>,
}

/// A command that has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The component's name.
    pub component: Arc<str>,
    /// How and when.
    pub ended: Ended,
}

/// The end of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// When.
    pub at: SystemTime,
}

/// How a run of a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It returned, or exited with code 0.
    Completed,
    /// It returned an error (code 1), or exited with this code.
    Error(i32),
    /// It trapped; the kind of trap, and the function that it happened in.
    Trapped(String),
    /// It used up its fuel.
    OutOfFuel,
    /// Its time was over.
    DeadlineExceeded,
    /// It was refused memory beyond its limit, and trapped for lack of it; which limit.
    MemoryLimit(String),
    /// The host could not run it.
    HostError(String),
}

impl Exit {
    /// Whether it ended well.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// The code that the guest chose; for every other end but a good one 1, and never a number that stands for a signal.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Completed => 0,
            Self::Error(code) => *code,
            _ => 1,
        }
    }
}

/// As a clause: `the last run …`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("ended well"),
            Self::Error(code) => write!(f, "ended with exit code {code}"),
            Self::Trapped(kind) => write!(f, "trapped: {kind}"),
            Self::OutOfFuel => f.write_str("used up its fuel"),
            Self::DeadlineExceeded => f.write_str("took too long and was cut"),
            Self::MemoryLimit(limit) => write!(f, "trapped for lack of memory: {limit}"),
            Self::HostError(text) => write!(f, "was ended by the host: {text}"),
        }
    }
}
