//! The service and the jobs of a workload: what they are, whether they are started again, and which of them have ended for
//! good already.

use std::sync::Arc;

use super::{Converter, image::PullSecrets, traffic};
use crate::{
    spec::{self, Ended, Exit, Finished, RestartPolicy, Role},
    washlet::api::{self, ComponentStatus, Terminated},
};

/// The word with which a status says that a component ended because its workload was stopped.
pub(in crate::washlet) const STOPPED: &str = "Stopped";

impl Converter<'_> {
    /// The service, as one more component. Its fields have the names that they have in a component.
    pub(super) fn service(
        &mut self,
        service: &api::Service,
        shared: &PullSecrets,
        components: &[spec::Component],
        volumes: &[spec::Volume],
    ) -> spec::Component {
        let name = spec::service_name(components.iter().map(|c| &*c.name));
        let alike = api::Component {
            name: name.clone(),
            image: service.image.clone(),
            image_pull_secret: service.image_pull_secret.clone(),
            image_pull_policy: service.image_pull_policy.clone(),
            local_resources: service.local_resources.clone(),
            ..api::Component::default()
        };
        let max_restarts = service.max_restarts.map(|max| {
            u32::try_from(max).unwrap_or_else(|_| {
                let text = format!("{max} is less than 0");
                self.problems
                    .invalid("spec.service.maxRestarts".to_owned(), text);
                0
            })
        });
        self.problems.component = Some(Arc::from(name));
        let converted = spec::Component {
            role: Role::Service { max_restarts },
            ..self.component("spec.service", &alike, shared, volumes)
        };
        self.problems.component = None;
        converted
    }

    pub(super) fn commands(&mut self, workload: &api::Workload) -> spec::Commands {
        spec::Commands {
            restart_policy: self.restart_policy(workload.spec.restart_policy.as_deref()),
            held: false,
            finished: finished(workload),
        }
    }

    fn restart_policy(&mut self, word: Option<&str>) -> Option<RestartPolicy> {
        match word? {
            "" => None,
            "Always" => Some(RestartPolicy::Always),
            "OnFailure" => Some(RestartPolicy::OnFailure),
            "Never" => Some(RestartPolicy::Never),
            other => {
                let text = format!("`{other}` is none of Always, OnFailure and Never");
                self.problems.invalid("spec.restartPolicy".to_owned(), text);
                None
            }
        }
    }
}

/// The commands of this generation that have ended for good, by what an agent wrote: it may have been another one, or one that
/// has been restarted since. Asking for a restart makes them run again.
pub(super) fn finished(workload: &api::Workload) -> Vec<Finished> {
    let written = ended_for_good(workload).into_iter().flatten();
    let finished = written.map(|(component, ended)| Finished {
        component: component.name.as_str().into(),
        ended,
    });
    finished.collect()
}

/// What is written of one of them.
pub(in crate::washlet) fn written_end<'a>(
    workload: &'a api::Workload,
    component: &str,
) -> Option<&'a ComponentStatus> {
    let mut written = ended_for_good(workload)?.map(|(written, _)| written);
    written.find(|written| written.name == component)
}

fn ended_for_good(
    workload: &api::Workload,
) -> Option<impl Iterator<Item = (&ComponentStatus, Ended)>> {
    let status = workload.status.as_ref()?;
    if status.observed_generation != workload.metadata.generation {
        return None;
    }
    let asked = traffic::restarted_at(workload);
    Some(status.components.iter().filter_map(move |component| {
        let terminated = component.state.terminated.as_ref()?;
        let counts = terminated.restarted_at.as_deref() == asked;
        counts.then_some((component, ended(terminated)?))
    }))
}

/// What a status says of the end of a command.
fn ended(terminated: &Terminated) -> Option<Ended> {
    let message = || terminated.message.clone();
    let exit = match terminated.reason.as_str() {
        STOPPED => return None,
        "Completed" => Exit::Completed,
        "Error" => Exit::Error(terminated.exit_code),
        "OutOfFuel" => Exit::OutOfFuel,
        "DeadlineExceeded" => Exit::DeadlineExceeded,
        "HostError" => Exit::HostError(message()),
        "MemoryLimit" => Exit::MemoryLimit(message()),
        _ => Exit::Trapped(message()),
    };
    let at = terminated.finished_at.as_ref()?.0;
    Some(Ended {
        exit,
        at: at.into(),
    })
}

/// The sentence of a status about an end; [`ended`] reads it.
pub(in crate::washlet) fn end_message(exit: &Exit) -> String {
    match exit {
        Exit::Completed | Exit::Error(_) | Exit::OutOfFuel | Exit::DeadlineExceeded => {
            String::new()
        }
        Exit::Trapped(text) | Exit::MemoryLimit(text) | Exit::HostError(text) => text.clone(),
    }
}
