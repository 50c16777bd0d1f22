//! Ports of workloads: who answers at each, whatever the Host header, and whether it is open.
//!
//! A port is open while somebody claims it. Opening it can fail, because something else has it: then it is tried again. Its
//! listener ends a moment after it was told to; a port that is claimed anew in that moment is opened again afterwards.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{door::Door, handler::Handler, listen::Opener, routes::Token, table::Targets};
use crate::spec::WorkloadId;

/// One port, as its connections see it.
pub(super) struct Port {
    pub number: u16,
    pub door: Door,
    targets: ArcSwap<Targets<Handler>>,
    unwanted: Notify,
}

/// All ports that are claimed.
#[derive(Default)]
pub(super) struct Ports {
    opener: Option<Opener>,
    claimed: HashMap<u16, Claimed>,
}

struct Claimed {
    port: Arc<Port>,
    state: State,
    tokens: BTreeSet<Token>,
}

enum State {
    /// It has a listener.
    Open,
    /// Its listener was told to end, and has not yet.
    Closing,
    /// It could not be opened; another try is due.
    Failed(Arc<str>),
}

/// A claim on a port.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub token: Token,
    pub workload: &'a WorkloadId,
    /// Whether it is the generation of its workload that has the routes.
    pub holds: bool,
    pub leaving: bool,
}

/// Who answers at a port: of each workload the generation that has its routes, else the newest. Those that leave only answer
/// when nobody else does.
pub(super) fn answering(candidates: Vec<Candidate<'_>>) -> Vec<Token> {
    let stays = candidates.iter().any(|c| !c.leaving);
    let mut chosen: BTreeMap<&WorkloadId, (bool, Token)> = BTreeMap::new();
    for candidate in candidates.iter().filter(|c| !(stays && c.leaving)) {
        let rank = (candidate.holds, candidate.token);
        let best = chosen.entry(candidate.workload).or_insert(rank);
        *best = rank.max(*best);
    }
    chosen.into_values().map(|(_, token)| token).collect()
}

impl Port {
    fn new(number: u16) -> Arc<Self> {
        Arc::new(Self {
            number,
            door: Door::default(),
            targets: ArcSwap::from_pointee(Targets::new(Vec::new())),
            unwanted: Notify::new(),
        })
    }

    /// Who answers the next request.
    pub fn next(&self) -> Option<Arc<Handler>> {
        self.targets.load().next()
    }

    /// Ready when nobody claims the port any more.
    pub async fn unwanted(&self) {
        self.unwanted.notified().await;
    }
}

impl Ports {
    pub fn open_with(&mut self, opener: Opener) {
        self.opener = Some(opener);
    }

    /// Adds a claim; the first one opens the port.
    pub fn join(&mut self, number: u16, token: Token) {
        let opener = &self.opener;
        let claimed = self.claimed.entry(number).or_insert_with(|| {
            let port = Port::new(number);
            Claimed {
                state: open(opener.as_ref(), &port),
                port,
                tokens: BTreeSet::new(),
            }
        });
        claimed.tokens.insert(token);
    }

    /// Ends a claim; the last one closes the port.
    pub fn leave(&mut self, number: u16, token: Token) {
        let Some(claimed) = self.claimed.get_mut(&number) else {
            return;
        };
        if !claimed.tokens.remove(&token) || !claimed.tokens.is_empty() {
            return;
        }
        match claimed.state {
            State::Open => {
                claimed.state = State::Closing;
                claimed.port.unwanted.notify_one();
            }
            State::Closing => {}
            State::Failed(_) => {
                self.claimed.remove(&number);
            }
        }
    }

    /// The listener of a port has ended, or another try to open it is due. Says whether that changed anything for its claims.
    pub fn revisit(&mut self, number: u16) -> bool {
        let Some(claimed) = self.claimed.get_mut(&number) else {
            return false;
        };
        if claimed.tokens.is_empty() {
            self.claimed.remove(&number);
            return false;
        }
        // A try can be due for a port that was given up and opened anew.
        if matches!(claimed.state, State::Open) {
            return false;
        }
        let was_failing = matches!(claimed.state, State::Failed(_));
        claimed.state = open(self.opener.as_ref(), &claimed.port);
        was_failing != matches!(claimed.state, State::Failed(_))
    }

    /// Lets these answer from now on.
    pub fn set(&self, number: u16, handlers: Vec<Arc<Handler>>) {
        if let Some(claimed) = self.claimed.get(&number) {
            claimed.port.targets.store(Arc::new(Targets::new(handlers)));
        }
    }

    /// Sends the clients of a port away from now on, or no more.
    pub fn part(&self, number: u16, parting: bool) {
        if let Some(claimed) = self.claimed.get(&number) {
            claimed.port.door.part(parting);
        }
    }

    /// Those of these ports whose clients are sent away.
    pub fn parting(&self, numbers: &[u16]) -> Vec<Arc<Port>> {
        let claimed = numbers.iter().filter_map(|n| self.claimed.get(n));
        claimed
            .map(|c| c.port.clone())
            .filter(|port| port.door.is_parting())
            .collect()
    }

    /// All ports that are claimed.
    pub fn numbers(&self) -> Vec<u16> {
        self.claimed.keys().copied().collect()
    }

    pub fn tokens(&self, number: u16) -> Vec<Token> {
        let claimed = self.claimed.get(&number);
        claimed
            .map(|c| c.tokens.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Why a port is not open, if it is not.
    pub fn fault(&self, number: u16) -> Option<Arc<str>> {
        match &self.claimed.get(&number)?.state {
            State::Failed(why) => Some(why.clone()),
            State::Open | State::Closing => None,
        }
    }
}

fn open(opener: Option<&Opener>, port: &Arc<Port>) -> State {
    let Some(opener) = opener else {
        return State::Failed("the HTTP server was not started".into());
    };
    match opener.open(port) {
        Ok(()) => State::Open,
        Err(error) => {
            let address = opener.address(port.number);
            opener.again(port.number);
            State::Failed(format!("cannot listen on {address}: {error}").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::wasi_http::routes::Token;

    #[test]
    fn each_workload_answers_once_and_who_leaves_comes_last() {
        let (a, b): (WorkloadId, WorkloadId) = ("a".into(), "b".into());
        let candidate = |token, workload, holds, leaving| Candidate {
            token: Token::numbered(token),
            workload,
            holds,
            leaving,
        };
        type Case<'a> = (Vec<Candidate<'a>>, &'a [u64], &'a str);
        let cases: Vec<Case<'_>> = vec![
            (vec![], &[], "nobody"),
            (
                vec![candidate(1, &a, true, false), candidate(2, &b, true, false)],
                &[1, 2],
                "two workloads share it",
            ),
            (
                vec![
                    candidate(1, &a, false, false),
                    candidate(2, &a, true, false),
                ],
                &[2],
                "the newer generation has the routes",
            ),
            (
                vec![
                    candidate(1, &a, true, false),
                    candidate(2, &a, false, false),
                ],
                &[1],
                "the newer generation waits for its routes",
            ),
            (
                vec![
                    candidate(1, &a, false, false),
                    candidate(2, &a, false, false),
                ],
                &[2],
                "no generation has routes",
            ),
            (
                vec![candidate(1, &a, true, true), candidate(2, &b, true, false)],
                &[2],
                "one leaves, the other stays",
            ),
            (
                vec![candidate(1, &a, true, true)],
                &[1],
                "the last one leaves",
            ),
        ];
        for (candidates, expected, case) in cases {
            let expected: Vec<Token> = expected.iter().map(|n| Token::numbered(*n)).collect();
            assert_eq!(answering(candidates), expected, "{case}");
        }
    }
}
