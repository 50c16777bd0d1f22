//! What is wrong with a Workload, all of it.

use std::{fmt, sync::Arc};

use crate::fault::{Class, Fault, Reason, Stage};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stage that it would fail.
    pub stage: Stage,
    /// The word for it.
    pub reason: Reason,
    /// The component that it is about, if one alone.
    pub component: Option<Arc<str>>,
    /// Path of the field, as `spec.components[1].image`.
    pub field: String,
    /// What is wrong with it and how to mend it, without a subject: it follows the path.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A Workload cannot be made into a desired state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.fault().message)]
pub struct ConvertError {
    problems: Vec<Problem>,
}

impl ConvertError {
    /// All that is wrong; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems of the earliest stage as one fault. Those of the specification stay until it is changed; those of what it
    /// names may pass by themselves.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let stage = self
            .problems
            .iter()
            .map(|p| p.stage)
            .min()
            .unwrap_or(Stage::Accept);
        let mut these = self.problems.iter().filter(|p| p.stage == stage);
        let reason = these
            .clone()
            .next()
            .map_or(Reason::InvalidSpec, |p| p.reason);
        let component = these.clone().next().and_then(|p| p.component.clone());
        let component = component.filter(|c| these.all(|p| p.component.as_ref() == Some(c)));
        let these = self.problems.iter().filter(|p| p.stage == stage);
        let message = these
            .map(|problem| match (&problem.component, &component) {
                (Some(name), None) => format!("component \"{name}\": {problem}"),
                _ => problem.to_string(),
            })
            .collect::<Vec<_>>()
            .join("; ");
        let class = if stage == Stage::Accept {
            Class::Terminal
        } else {
            Class::Retry
        };
        let fault = Fault::new(stage, reason, message).class(class);
        match &component {
            Some(name) => fault.in_component(name),
            None => fault,
        }
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// The component that is being converted.
    pub component: Option<Arc<str>>,
    found: Vec<Problem>,
}

impl Problems {
    /// The specification is wrong.
    pub fn invalid(&mut self, field: String, message: impl Into<String>) {
        self.add(Stage::Accept, Reason::InvalidSpec, field, message.into());
    }

    pub fn add(&mut self, stage: Stage, reason: Reason, field: String, message: String) {
        self.found.push(Problem {
            stage,
            reason,
            component: self.component.clone(),
            field,
            message,
        });
    }

    pub fn into_result(self) -> Result<(), ConvertError> {
        if self.found.is_empty() {
            Ok(())
        } else {
            Err(ConvertError {
                problems: self.found,
            })
        }
    }
}
