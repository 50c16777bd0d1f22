//! Where on its way to Ready a generation is.

use super::{Progress, StatusInput};
use crate::fault::{Class, Fault, Stage};

/// The steps that have a condition each; a generation passes them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gate {
    Accepted,
    ConfigResolved,
    ImagesPulled,
    Linked,
    Ready,
}

impl Gate {
    pub const ALL: [Self; 5] = [
        Self::Accepted,
        Self::ConfigResolved,
        Self::ImagesPulled,
        Self::Linked,
        Self::Ready,
    ];

    fn of(stage: Stage) -> Self {
        match stage {
            Stage::Accept => Self::Accepted,
            Stage::Configure => Self::ConfigResolved,
            Stage::Fetch => Self::ImagesPulled,
            Stage::Compile | Stage::Link => Self::Linked,
            Stage::Start => Self::Ready,
        }
    }
}

/// Where a generation is.
#[derive(Debug)]
pub(super) struct Position<'a> {
    /// Which generation.
    pub generation: i64,
    /// The first gate that it has not passed; none if it has passed all.
    pub gate: Option<Gate>,
    /// What is going on at that gate.
    pub at: At<'a>,
}

/// What is going on at a gate.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// Nothing: all gates are passed, and the generation answers.
    Serving,
    /// Nothing: all is done that the workload is there for.
    Completed,
    /// Work is being done on it.
    Working(Stage),
    /// It cannot be passed.
    Failed(&'a Fault),
    /// The workload is stopping.
    Draining,
    /// The workload has stopped.
    Stopped,
}

impl<'a> Position<'a> {
    pub fn of(input: &StatusInput<'a>) -> Self {
        let newest = input.workload.metadata.generation.unwrap_or_default();
        if let Some(fault) = input.fault.filter(|_| !input.draining) {
            return Self {
                generation: newest,
                gate: Some(Gate::of(fault.stage)),
                at: At::Failed(fault),
            };
        }
        let Some(observed) = input.observed else {
            let at = if input.draining {
                At::Draining
            } else {
                At::Working(Stage::Accept)
            };
            return Self {
                generation: newest,
                gate: Some(Gate::Accepted),
                at,
            };
        };
        let (gate, at) = match &observed.progress {
            // What is done has nothing to drain.
            Progress::Completed => (Some(Gate::Ready), At::Completed),
            // It stays the last word of an agent that goes away: the workload will be served again.
            _ if input.draining => (Some(Self::left(input)), At::Draining),
            Progress::Draining => (Some(Self::left(input)), At::Draining),
            Progress::Stopped => (Some(Self::left(input)), At::Stopped),
            Progress::Running => (None, At::Serving),
            Progress::Working(stage) => (Some(Gate::of(*stage)), At::Working(*stage)),
            Progress::Failed { fault, .. } => (Some(Gate::of(fault.stage)), At::Failed(fault)),
        };
        Self {
            generation: observed.generation,
            gate,
            at,
        }
    }

    /// The first gate that a workload had not passed when it began to stop. Ready is never passed by one that stops.
    fn left(input: &StatusInput<'_>) -> Gate {
        let Some(observed) = input.observed else {
            return Gate::Accepted;
        };
        match (
            observed.serving.is_some() || observed.timings.linked.is_some(),
            observed.timings.fetched,
        ) {
            (true, _) => Gate::Ready,
            (false, Some(_)) => Gate::Linked,
            (false, None) => Gate::ImagesPulled,
        }
    }

    /// The word for what is going on.
    pub fn reason(&self) -> &'static str {
        match self.at {
            At::Serving => "Serving",
            At::Completed => "Completed",
            At::Working(Stage::Accept) => "Pending",
            At::Working(Stage::Configure) => "Resolving",
            At::Working(Stage::Fetch) => "Pulling",
            At::Working(Stage::Compile) => "Compiling",
            At::Working(Stage::Link) => "Linking",
            At::Working(Stage::Start) => "Starting",
            At::Failed(fault) => fault.reason.as_str(),
            At::Draining => "Draining",
            At::Stopped => "Stopped",
        }
    }

    /// The sentence for it.
    pub fn message(&self) -> &'a str {
        match self.at {
            At::Serving => "The workload answers.",
            At::Completed => "All that the workload is there for has been done.",
            At::Working(Stage::Accept) => "What the workload names is being read.",
            At::Working(Stage::Configure) => "ConfigMaps and Secrets are being read.",
            At::Working(Stage::Fetch) => "Images are being pulled.",
            At::Working(Stage::Compile) => "Components are being compiled.",
            At::Working(Stage::Link) => "Imports are being resolved.",
            At::Working(Stage::Start) => "The workload is being started.",
            At::Failed(fault) => &fault.message,
            At::Draining => "The workload is stopping; requests in flight may finish.",
            At::Stopped => "The workload has stopped.",
        }
    }

    /// Whether the generation may get further without being changed; none if there is nothing left to do.
    pub fn moves(&self) -> Option<bool> {
        match self.at {
            At::Serving | At::Completed | At::Draining | At::Stopped => None,
            At::Working(_) => Some(true),
            At::Failed(fault) => Some(fault.class != Class::Terminal),
        }
    }
}
