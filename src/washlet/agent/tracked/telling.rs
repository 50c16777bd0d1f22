//! What is told about a workload as Events, once for each piece of news.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;

use super::{
    super::super::events::{Events, News, Tone},
    Tracked,
};
use crate::{fault::Reason, host::observed::Progress, spec};

/// What the last event said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Fault(Reason, String),
    Serving(i64),
    Completed(i64),
    Draining,
}

impl Tracked {
    /// What another agent has told need not be told again: that it answers.
    pub(super) fn take_as_told(&mut self) {
        let written = self.written_ready().flatten();
        if let Some((told @ Told::Serving(generation), ..)) = self.news()
            && written == Some(generation)
        {
            self.told = Some(told);
        }
    }

    /// Tells what is new since the last time.
    pub fn tell(&mut self, events: &Events) {
        let Some((told, tone, action, note)) = self.news() else {
            return;
        };
        if self.told.as_ref() == Some(&told) {
            return;
        }
        let reason = match &told {
            // As the kubelet calls it.
            Told::Fault(Reason::CrashLoopBackOff, _) => "BackOff",
            Told::Fault(reason, _) => reason.as_str(),
            Told::Completed(_) => "Completed",
            Told::Serving(_) => "Started",
            Told::Draining => "Killing",
        };
        self.told = Some(told);
        events.tell(News {
            regarding: self.regarding(),
            tone,
            reason,
            action,
            note,
        });
    }

    /// Tells of pull secrets that cannot be used, once for each set of them.
    pub fn tell_unusable(&mut self, desired: &spec::Workload, events: &Events) {
        let unusable: Vec<String> = desired
            .components
            .iter()
            .filter_map(|component| match &component.source {
                spec::Source::Image(image) => Some(image.unusable_secrets.iter().cloned()),
                _ => None,
            })
            .flatten()
            .collect();
        if unusable == self.unusable {
            return;
        }
        self.unusable = unusable;
        if !self.unusable.is_empty() {
            let note = format!(
                "image pull secrets that cannot be used: {}",
                self.unusable.join("; ")
            );
            let reason = "FailedToRetrieveImagePullSecret";
            events.tell(News {
                regarding: self.regarding(),
                tone: Tone::Warning,
                reason,
                action: "Pulling",
                note,
            });
        }
    }

    fn news(&self) -> Option<(Told, Tone, &'static str, String)> {
        if self.draining && !self.is_completed() {
            return Some((
                Told::Draining,
                Tone::Normal,
                "Draining",
                "the agent is shutting down".to_owned(),
            ));
        }
        if let Some(fault) = self.trouble() {
            let told = Told::Fault(fault.reason, fault.message.clone());
            return Some((told, Tone::Warning, "Starting", fault.message.clone()));
        }
        let observed = self.observed.as_ref()?;
        if observed.progress == Progress::Completed {
            let note = format!("generation {} has ended well", observed.generation);
            let told = Told::Completed(observed.generation);
            return Some((told, Tone::Normal, "Running", note));
        }
        let serving = observed
            .serving
            .as_ref()
            .filter(|_| observed.progress == Progress::Running)?;
        let took = observed
            .timings
            .assigned
            .zip(observed.timings.started)
            .and_then(|(a, s)| s.duration_since(a).ok());
        let took = took
            .map(|t| format!(" {:.1} ms after it was seen", t.as_secs_f64() * 1000.0))
            .unwrap_or_default();
        let note = format!("generation {} answers{took}", serving.generation);
        Some((
            Told::Serving(serving.generation),
            Tone::Normal,
            "Starting",
            note,
        ))
    }

    fn regarding(&self) -> ObjectReference {
        self.object.object_ref(&())
    }
}
