//! What a supervisor does next: a pure function of what should be, what is, and the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    fault::{Class, Fault, Stage},
    source::Freshness,
};

/// What a supervisor knows when it decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// Whether the workload should be at all.
    pub wanted: bool,
    /// Whether what answers is already what should.
    pub current: bool,
    /// How far the wanted generation is prepared.
    pub prepared: Prepared,
    /// The last failure to prepare it, if there was one.
    pub failure: Option<&'a Failure>,
}

/// How far a generation is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepared {
    /// Nothing is done.
    Nothing,
    /// All bytes are here.
    Fetched,
    /// All components are compiled.
    Compiled,
    /// All imports are resolved, all plugins bound.
    Linked,
    /// It is started, but does not answer yet: somebody else holds what it needs.
    Contending,
}

/// A failed try.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub fault: Fault,
    /// Failures in a row, this one included.
    pub attempts: u32,
    /// When it is worth another try; none means not before something changes.
    pub retry_at: Option<Instant>,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Fetch(Freshness),
    Compile,
    Link,
    Start,
    /// Nothing to do before this time, or before something changes.
    Wait(Option<Instant>),
    /// Stop what answers, and end.
    Stop,
}

/// Decides the next step.
pub(super) fn step(view: View<'_>, now: Instant) -> Step {
    if !view.wanted {
        return Step::Stop;
    }
    if view.current {
        return Step::Wait(None);
    }
    let freshness = match view.failure {
        Some(failure) => match failure.retry_at {
            Some(at) if at <= now => revalidate(failure.fault.stage),
            at => return Step::Wait(at),
        },
        None => Freshness::Policy,
    };
    match view.prepared {
        Prepared::Nothing => Step::Fetch(freshness),
        Prepared::Fetched => Step::Compile,
        Prepared::Compiled => Step::Link,
        Prepared::Linked => Step::Start,
        Prepared::Contending => Step::Wait(None),
    }
}

/// Bytes that could be fetched but not used are asked for again, as a tag may have been moved to better ones.
fn revalidate(failed: Stage) -> Freshness {
    match failed {
        Stage::Compile | Stage::Link => Freshness::Revalidate,
        _ => Freshness::Policy,
    }
}

/// Tries at the quick pace; about five minutes.
const QUICK_TRIES: u32 = 60;

/// How long to wait after the `attempts`-th failure in a row: 1, 2, 4, then 5 s, so that a repair is noticed within seconds,
/// and 20 s once it has failed for five minutes. A try costs one small request, and the puller bounds requests per registry,
/// so this needs none of the kubelet's five-minute waits. None: only a changed desired state helps.
pub(super) fn delay(fault: &Fault, attempts: u32, mutable_source: bool) -> Option<Duration> {
    let curve = Duration::from_secs(match attempts {
        0 | 1 => 1,
        2 => 2,
        3 => 4,
        n if n <= QUICK_TRIES => 5,
        _ => 20,
    });
    match fault.class {
        Class::Retry => Some(curve),
        Class::Wait(at_least) => Some(curve.max(at_least)),
        Class::Terminal => {
            let of_bytes = matches!(fault.stage, Stage::Fetch | Stage::Compile | Stage::Link);
            (of_bytes && mutable_source).then_some(curve)
        }
        Class::Signal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Reason;

    fn view(prepared: Prepared) -> View<'static> {
        View {
            wanted: true,
            current: false,
            prepared,
            failure: None,
        }
    }

    #[test]
    fn each_stage_leads_to_the_next() {
        let now = Instant::now();
        let cases = [
            (Prepared::Nothing, Step::Fetch(Freshness::Policy)),
            (Prepared::Fetched, Step::Compile),
            (Prepared::Compiled, Step::Link),
            (Prepared::Linked, Step::Start),
            (Prepared::Contending, Step::Wait(None)),
        ];
        for (prepared, next) in cases {
            assert_eq!(step(view(prepared), now), next);
        }
        assert_eq!(
            step(
                View {
                    current: true,
                    ..view(Prepared::Nothing)
                },
                now
            ),
            Step::Wait(None)
        );
        assert_eq!(
            step(
                View {
                    wanted: false,
                    ..view(Prepared::Linked)
                },
                now
            ),
            Step::Stop
        );
    }

    #[test]
    fn a_failure_waits_and_then_starts_over() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let failed = |stage, retry_at| Failure {
            fault: Fault::new(stage, Reason::CompileFailed, "no"),
            attempts: 1,
            retry_at,
        };
        let compile = failed(Stage::Compile, Some(later));
        let v = View {
            failure: Some(&compile),
            ..view(Prepared::Nothing)
        };
        assert_eq!(step(v, now), Step::Wait(Some(later)));
        assert_eq!(step(v, later), Step::Fetch(Freshness::Revalidate));
        let fetch = failed(Stage::Fetch, Some(now));
        assert_eq!(
            step(
                View {
                    failure: Some(&fetch),
                    ..v
                },
                now
            ),
            Step::Fetch(Freshness::Policy)
        );
        let terminal = failed(Stage::Start, None);
        assert_eq!(
            step(
                View {
                    failure: Some(&terminal),
                    ..v
                },
                later
            ),
            Step::Wait(None)
        );
    }

    #[test]
    fn delays_follow_class_and_source() {
        let fault = |stage, class| Fault::new(stage, Reason::ErrImagePull, "no").class(class);
        let secs = |s| Some(Duration::from_secs(s));
        let retry = fault(Stage::Fetch, Class::Retry);
        let pace: Vec<_> = [1, 2, 3, 4, 60, 61, 9999]
            .map(|n| delay(&retry, n, false))
            .into();
        assert_eq!(
            pace,
            [
                secs(1),
                secs(2),
                secs(4),
                secs(5),
                secs(5),
                secs(20),
                secs(20)
            ]
        );
        assert_eq!(
            delay(
                &fault(Stage::Fetch, Class::Wait(Duration::from_secs(60))),
                1,
                true
            ),
            secs(60)
        );
        assert_eq!(
            delay(&fault(Stage::Compile, Class::Terminal), 1, true),
            secs(1),
            "a tag may move"
        );
        assert_eq!(
            delay(&fault(Stage::Compile, Class::Terminal), 1, false),
            None,
            "bytes do not change"
        );
        assert_eq!(delay(&fault(Stage::Start, Class::Terminal), 1, true), None);
    }
}
