//! When there is nothing left to run, and how it ended.

use std::collections::HashMap;

use crate::{
    fault::Class,
    host::observed::{Observed, Progress},
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

/// The exit code, once all that there is to run has ended for good, or cannot begin: that of the first workload, by name, that
/// failed. One that cannot begin counts as one that failed with 1.
pub(super) fn exit_code(observed: &[Observed], workloads: usize) -> Option<u8> {
    let ended = |workload: &Observed| workload.over || cannot_begin(workload);
    if observed.len() < workloads || observed.is_empty() || !observed.iter().all(ended) {
        return None;
    }
    let mut failures = Vec::new();
    for workload in observed {
        let runs = workload.components.iter().filter_map(|c| c.run.as_ref());
        let exits = runs.filter_map(|run| Some(&run.ended()?.exit));
        let failed = exits.filter(|exit| !exit.is_success());
        let codes = failed.map(|exit| u8::try_from(exit.code()).unwrap_or(1));
        let codes = codes.chain(cannot_begin(workload).then_some(1));
        failures.extend(codes.map(|code| (&workload.id, code)));
    }
    failures.sort_by_key(|(id, _)| *id);
    Some(failures.first().map_or(0, |(_, code)| *code))
}

/// Whether it does not run, and the same would come of every other try.
fn cannot_begin(workload: &Observed) -> bool {
    let terminal = match &workload.progress {
        Progress::Failed { fault, .. } => fault.class == Class::Terminal,
        _ => false,
    };
    terminal && workload.serving.is_none() && !workload.over
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        fault::{Fault, Reason, Stage},
        host::observed::{ComponentState, Run, RunState, Serving, Timings},
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

    #[test]
    fn what_cannot_begin_is_waited_for_only_if_it_may_yet() {
        let stuck = |id, class| Observed {
            progress: Progress::Failed {
                fault: Fault::new(Stage::Link, Reason::ImportNotSatisfied, "").class(class),
                attempts: 1,
                retry_at: Some(SystemTime::UNIX_EPOCH),
            },
            ..observed(id, &[None], false)
        };
        let serves = Observed {
            serving: Some(Serving {
                generation: 1,
                since: SystemTime::UNIX_EPOCH,
            }),
            ..stuck("b", Class::Terminal)
        };
        let job = |exit| observed("a", &[Some(exit)], true);
        let terminal = || stuck("b", Class::Terminal);
        let cases = [
            (vec![terminal()], Some(1)),
            (vec![terminal(), job(Exit::Completed)], Some(1)),
            (vec![terminal(), job(Exit::Error(3))], Some(3)),
            (vec![terminal(), observed("a", &[None], false)], None),
            (vec![stuck("b", Class::Retry)], None),
            (vec![stuck("b", Class::Signal)], None),
            (vec![serves], None),
        ];
        for (observed, code) in cases {
            assert_eq!(exit_code(&observed, observed.len()), code, "{observed:?}");
        }
    }
}
