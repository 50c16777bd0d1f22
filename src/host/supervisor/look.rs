//! What a supervisor shows of its workload.

use std::time::SystemTime;

use super::super::{
    observed::{ComponentState, Observed, Progress, Serving, Timings},
    prepare::Generation,
};
use crate::{
    fault::Stage,
    plugin::Run,
    spec::{self, Digest},
};

/// What is known of a workload before anything is done.
pub(super) fn first_look(workload: &spec::Workload) -> Observed {
    Observed {
        id: workload.id.clone(),
        generation: workload.generation,
        stamp: workload.stamp,
        progress: Progress::Working(Stage::Fetch),
        serving: None,
        over: false,
        components: components(workload, &[]),
        timings: Timings {
            assigned: Some(SystemTime::now()),
            ..Timings::default()
        },
    }
}

/// The components of a workload, with their digests as far as these are known.
pub(super) fn components(workload: &spec::Workload, digests: &[Digest]) -> Vec<ComponentState> {
    let named = workload.components.iter().enumerate();
    named
        .map(|(index, component)| ComponentState {
            name: component.name.clone(),
            image: component.source.describe(),
            digest: digests.get(index).cloned(),
            run: None,
        })
        .collect()
}

/// What a started generation says of itself.
pub(super) struct Said {
    generation: i64,
    progress: Progress,
    over: bool,
    runs: Vec<Run>,
}

impl Said {
    pub fn by(serving: &Generation) -> Self {
        let runs = serving.runs();
        let progress = match serving.fault() {
            _ if serving.completed() => Progress::Completed,
            Some(fault) => Progress::Failed {
                fault,
                attempts: 1,
                retry_at: runs.iter().filter_map(Run::until).min(),
            },
            None => Progress::Running,
        };
        Self {
            generation: serving.workload.generation,
            progress,
            over: serving.over(),
            runs,
        }
    }

    /// Shows it: whether it answers, and, if it is the `current` one, how far it is and how each of its components that runs by
    /// itself is doing.
    pub fn show(self, observed: &mut Observed, current: bool) {
        if self.progress == Progress::Running {
            let since = SystemTime::now();
            let serving = observed.serving.get_or_insert(Serving {
                generation: self.generation,
                since,
            });
            serving.generation = self.generation;
        } else {
            observed.serving = None;
        }
        if !current {
            return;
        }
        observed.progress = self.progress;
        observed.over = self.over;
        for run in self.runs {
            let mut components = observed.components.iter_mut();
            if let Some(component) = components.find(|c| c.name == run.component) {
                component.run = Some(run);
            }
        }
    }
}
