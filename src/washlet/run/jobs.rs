//! When there is nothing left to run, and how it ended.

use std::collections::HashMap;

use crate::{
    host::observed::Observed,
    spec::{self, RestartPolicy},
};

/// Runs jobs once, unless their workload says otherwise: who looks at the exit code wants to see the first failure.
pub(super) fn once(workloads: &mut HashMap<spec::WorkloadId, spec::Workload>) {
    for workload in workloads.values_mut() {
        if workload.service().is_none() {
            let policy = &mut workload.commands.restart_policy;
            policy.get_or_insert(RestartPolicy::Never);
        }
    }
}

/// The exit code, once all that there is to run has ended for good: that of the first workload, by name, that failed.
pub(super) fn exit_code(observed: &[Observed], workloads: usize) -> Option<u8> {
    if observed.len() < workloads || observed.is_empty() || !observed.iter().all(|w| w.over) {
        return None;
    }
    let mut ends = Vec::new();
    for workload in observed {
        let runs = workload.components.iter().filter_map(|c| c.run.as_ref());
        let exits = runs.filter_map(|run| Some(&run.ended()?.exit));
        ends.extend(exits.map(|exit| (&workload.id, exit)));
    }
    ends.sort_by_key(|(id, _)| *id);
    let failed = ends.into_iter().find(|(_, exit)| !exit.is_success());
    Some(failed.map_or(0, |(_, exit)| u8::try_from(exit.code()).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        host::observed::{ComponentState, Progress, Run, RunState, Timings},
        spec::{Ended, Exit},
    };

    fn observed(id: &str, exits: &[Option<Exit>], over: bool) -> Observed {
        let component = |exit: &Option<Exit>| ComponentState {
            name: "app".into(),
            image: String::new(),
            digest: None,
            run: exit.clone().map(|exit| Run {
                component: "app".into(),
                state: RunState::Ended(Ended {
                    exit,
                    at: SystemTime::UNIX_EPOCH,
                }),
                restarts: 0,
                last: None,
            }),
        };
        Observed {
            id: id.into(),
            generation: 1,
            stamp: 0,
            progress: Progress::Running,
            serving: None,
            over,
            components: exits.iter().map(component).collect(),
            timings: Timings::default(),
        }
    }

    #[test]
    fn the_end_is_when_all_have_ended() {
        let done = || Some(Exit::Completed);
        let failed = |code| Some(Exit::Error(code));
        let over = |id, exits: &[Option<Exit>]| observed(id, exits, true);
        let cases = [
            (vec![over("a", &[done()])], 1, Some(0)),
            (vec![over("a", &[done(), failed(3)])], 1, Some(3)),
            (
                vec![over("b", &[failed(4)]), over("a", &[failed(3)])],
                2,
                Some(3),
            ),
            (
                vec![over("a", &[Some(Exit::Trapped(String::new()))])],
                1,
                Some(1),
            ),
            // One is there only for the others to call.
            (vec![over("a", &[failed(3), None])], 1, Some(3)),
            // One is not there yet; one is called, or runs again; there is nothing.
            (vec![over("a", &[done()])], 2, None),
            (vec![observed("a", &[done(), None], false)], 1, None),
            (Vec::new(), 0, None),
        ];
        for (observed, workloads, code) in cases {
            assert_eq!(exit_code(&observed, workloads), code, "{observed:?}");
        }
    }
}
