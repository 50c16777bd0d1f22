//! How what runs by itself is doing: plain data, for whoever reports it.

use std::{sync::Arc, time::SystemTime};

use crate::spec::Ended;

/// A component that runs by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its name.
    pub component: Arc<str>,
    /// What it does now.
    pub state: RunState,
    /// How often it was started again.
    pub restarts: u32,
    /// How its former run ended, if there was one.
    pub last: Option<Ended>,
}

/// What it does now.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// It is not to run yet: its generation does not serve yet, another host runs it, or all instances are in use.
    Held,
    /// It runs.
    Running {
        /// Since when.
        since: SystemTime,
    },
    /// It has ended, and will be started again.
    BackingOff {
        /// When.
        until: SystemTime,
    },
    /// It has ended for good.
    Ended(Ended),
}

impl Run {
    /// How it ended, if it did for good.
    #[must_use]
    pub const fn ended(&self) -> Option<&Ended> {
        match &self.state {
            RunState::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// When it is started again, if it waits for that.
    #[must_use]
    pub const fn until(&self) -> Option<SystemTime> {
        match self.state {
            RunState::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    /// Whether something of it goes on: it runs, or will again.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        matches!(
            self.state,
            RunState::Running { .. } | RunState::BackingOff { .. }
        )
    }
}
