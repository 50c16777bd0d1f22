//! Whether and when a command that ended is started again: a pure function of the policy, of what happened before, of how it
//! ended, and of the time. The curve is the kubelet's.

use std::time::Duration;

use tokio::time::Instant;

use crate::spec::{Exit, RestartPolicy};

/// Wait before the second restart in a row; the first one comes at once, and each further wait is twice as long.
const FIRST: Duration = Duration::from_secs(10);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// A run of this length ends the row: what comes after it is a first restart again.
const STEADY: Duration = Duration::from_secs(600);

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub policy: RestartPolicy,
    /// Restarts at most, over the whole life of the generation; none means any number.
    pub max_restarts: Option<u32>,
}

/// What happened before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Restarts in all.
    pub restarts: u32,
    /// Restarts since the last run that was long enough.
    in_a_row: u32,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started again after this wait, counted from its end.
    Restart(Duration),
    /// It stays as it is, for good.
    Stay,
}

impl Rule {
    /// Decides about a command that ended, `ran` after it had begun, and adds to its history.
    pub fn next(self, history: &mut History, exit: &Exit, ran: Duration) -> Next {
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !exit.is_success(),
            RestartPolicy::Never => false,
        };
        if !again || self.max_restarts.is_some_and(|max| history.restarts >= max) {
            return Next::Stay;
        }
        if ran >= STEADY {
            history.in_a_row = 0;
        }
        let wait = wait(history.in_a_row);
        history.in_a_row = history.in_a_row.saturating_add(1);
        history.restarts = history.restarts.saturating_add(1);
        Next::Restart(wait)
    }
}

/// The wait after this many restarts in a row: 0, 10, 20, 40, 80, 160, 300, 300 s …
fn wait(in_a_row: u32) -> Duration {
    match in_a_row.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(LONGEST),
    }
}

/// How long a command ran.
pub(super) fn ran(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use RestartPolicy::{Always, Never, OnFailure};

    const SHORT: Duration = Duration::from_secs(1);

    fn waits(rule: Rule, exit: &Exit, runs: &[Duration]) -> Vec<Option<u64>> {
        let mut history = History::default();
        let mut wait = |ran: &Duration| match rule.next(&mut history, exit, *ran) {
            Next::Restart(wait) => Some(wait.as_secs()),
            Next::Stay => None,
        };
        runs.iter().map(&mut wait).collect()
    }

    #[test]
    fn the_waits_are_the_kubelets() {
        let curve = [0, 10, 20, 40, 80, 160, 300, 300, 300].map(Some);
        let cases = [
            (Always, Exit::Completed),
            (Always, Exit::Error(3)),
            (OnFailure, Exit::Trapped("kind".to_owned())),
            (OnFailure, Exit::HostError("why".to_owned())),
        ];
        for (policy, exit) in cases {
            let rule = Rule {
                policy,
                max_restarts: None,
            };
            assert_eq!(waits(rule, &exit, &[SHORT; 9]), curve, "{policy:?} {exit}");
        }
        assert_eq!(wait(u32::MAX), LONGEST);
    }

    #[test]
    fn ten_minutes_end_the_row() {
        let rule = Rule {
            policy: Always,
            max_restarts: None,
        };
        let almost = STEADY - Duration::from_millis(1);
        let runs = [SHORT, SHORT, almost, STEADY, SHORT, SHORT];
        assert_eq!(
            waits(rule, &Exit::Error(1), &runs),
            [0, 10, 20, 0, 10, 20].map(Some)
        );
    }

    #[test]
    fn what_may_not_be_restarted_stays() {
        let rule = |policy, max_restarts| Rule {
            policy,
            max_restarts,
        };
        let cases = [
            (rule(Never, None), Exit::Error(1), vec![None]),
            (rule(Never, Some(9)), Exit::Completed, vec![None]),
            (rule(OnFailure, None), Exit::Completed, vec![None]),
            (rule(Always, Some(0)), Exit::Error(1), vec![None]),
            (
                rule(Always, Some(2)),
                Exit::Error(1),
                vec![Some(0), Some(10), None, None],
            ),
        ];
        for (rule, exit, expected) in cases {
            let runs = vec![SHORT; expected.len()];
            assert_eq!(waits(rule, &exit, &runs), expected, "{rule:?} {exit}");
        }
    }

    #[test]
    fn a_long_run_gives_no_restarts_back() {
        let rule = Rule {
            policy: Always,
            max_restarts: Some(1),
        };
        assert_eq!(
            waits(rule, &Exit::Error(1), &[STEADY, STEADY]),
            [Some(0), None]
        );
    }
}
