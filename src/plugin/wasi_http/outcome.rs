//! How a guest ended: what is counted, and what the log says.

use std::fmt;

use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::{answer::Answer, counters::count, handler::Handler, instances::NoRoom};
use crate::{engine::InstanceLimits, fault::Reason};

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outcome {
    /// It has not.
    Running,
    /// It returned.
    Done,
    /// It trapped, or the host panicked on its behalf.
    Trapped,
    /// It trapped after it was refused memory.
    OutOfMemory,
    /// It used up its fuel.
    OutOfFuel,
    /// It was stopped at its deadline.
    OutOfTime,
    /// There was no room for an instance.
    Full,
    /// It was stopped, because its workload was or because nobody waits for its answer.
    Stopped,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Done,
        Self::Trapped,
        Self::OutOfMemory,
        Self::OutOfFuel,
        Self::OutOfTime,
        Self::Full,
        Self::Stopped,
    ];

    /// What to answer in place of a guest that ended like this before it had answered.
    pub const fn answer(self) -> Answer {
        match self {
            Self::Running | Self::Done => Answer::Unanswered,
            Self::Trapped => Answer::Trapped,
            Self::OutOfMemory => Answer::OutOfMemory,
            Self::OutOfFuel => Answer::OutOfFuel,
            Self::OutOfTime => Answer::OutOfTime,
            Self::Full => Answer::Full,
            Self::Stopped => Answer::Stopping,
        }
    }
}

impl Handler {
    /// Counts and logs how a guest ended; no result means that its time was over.
    pub fn judge(
        &self,
        result: Option<&wasmtime::Result<()>>,
        limits: Option<&InstanceLimits>,
    ) -> Outcome {
        let Self {
            counters,
            label,
            timeout,
            ..
        } = self;
        let failed = |counter, reason: &str, detail: &dyn fmt::Display, outcome| {
            label.log_failure(count(counter), reason, detail);
            outcome
        };
        match result {
            Some(Ok(())) => Outcome::Done,
            None => {
                let detail = format_args!("stopped after {} s", timeout.as_secs_f32());
                failed(
                    &counters.out_of_time,
                    Reason::DeadlineExceeded.as_str(),
                    &detail,
                    Outcome::OutOfTime,
                )
            }
            Some(Err(error)) if error.is::<PoolConcurrencyLimitError>() || error.is::<NoRoom>() => {
                failed(&counters.rejected, "NoFreeInstance", &error, Outcome::Full)
            }
            Some(Err(error)) if error.downcast_ref() == Some(&Trap::OutOfFuel) => {
                let detail = format_args!("{error:#}");
                failed(
                    &counters.out_of_fuel,
                    Reason::OutOfFuel.as_str(),
                    &detail,
                    Outcome::OutOfFuel,
                )
            }
            Some(Err(error)) if let Some(refusal) = limits.and_then(InstanceLimits::refusal) => {
                let detail = format_args!("{refusal}: {error:#}");
                failed(
                    &counters.out_of_memory,
                    Reason::MemoryLimit.as_str(),
                    &detail,
                    Outcome::OutOfMemory,
                )
            }
            Some(Err(error)) => {
                let detail = format_args!("{error:#}");
                failed(
                    &counters.trapped,
                    Reason::Trapped.as_str(),
                    &detail,
                    Outcome::Trapped,
                )
            }
        }
    }
}
