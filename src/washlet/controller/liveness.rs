//! Which hosts are alive, judged by whether the renewals of their Leases move.
//!
//! Only this machine's monotonic clock counts, so that no two clocks are compared, with one exception: a controller that sees
//! a Lease for the first time takes an old renewal for doubtful, and waits for the next.
//!
//! # When nothing is moved
//! Many silent hosts at once mean that the API server or the network is in trouble rather than the hosts. Then evictions are
//! suspended, and for a while afterwards, as the hosts do not all come back in the same second. A controller that was itself
//! stopped for a time has missed renewals, and gives every host a new term.

mod evictions;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

pub(super) use evictions::Evictions;

/// Least time without a renewal after which a host is lost: an agent's Lease lasts as long.
const TERM: Duration = Duration::from_secs(40);
/// The longest that a Lease may last.
const LONGEST: Duration = Duration::from_secs(120);
/// What is added to a Lease's duration for the way of a renewal through the API server.
const SLACK: Duration = Duration::from_secs(5);
/// Longer than this between two calls, and the controller itself was stopped.
const BLIND: Duration = Duration::from_secs(15);

/// What a host's Lease says; all none for a host without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Renewal<'a> {
    /// Who holds it. An agent that shuts down clears this.
    pub holder: Option<&'a str>,
    /// When it was renewed, by the holder's clock: only compared with itself.
    pub renewed: Option<Timestamp>,
    /// How long it lasts.
    pub duration: Option<Duration>,
}

/// Whether a host is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its renewals move.
    Alive,
    /// It was never seen to move, and has not been silent for long enough to be lost.
    Unproven,
    /// It has not moved for too long.
    Lost { since: Instant },
}

/// All that was seen of the hosts.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    hosts: HashMap<Arc<str>, Pulse>,
    judged: Option<Instant>,
    /// When most hosts looked lost for the last time.
    shaken: Option<Instant>,
}

/// What was seen of one host.
#[derive(Debug)]
struct Pulse {
    holder: Option<Arc<str>>,
    renewed: Option<Timestamp>,
    /// When it moved for the last time, or was first seen.
    moved: Instant,
    proven: bool,
    /// How long it may be silent.
    term: Duration,
}

/// The verdict at one moment.
#[derive(Debug)]
pub(super) struct Judgement {
    states: HashMap<Arc<str>, State>,
    /// Why no workload is to be taken off a lost host now; none if it may.
    pub suspended: Option<String>,
}

impl Liveness {
    /// Takes note of a host's Lease. To be called for every host and every change of its Lease; repeating it does no harm.
    pub fn observe(&mut self, host: &str, renewal: Renewal<'_>, now: Instant, wall: Timestamp) {
        // However long a Lease says that it lasts: an agent must not claim to live on after its end.
        let term = renewal.duration.unwrap_or_default().clamp(TERM, LONGEST) + SLACK;
        let recent = renewal.renewed.is_some_and(|at| !older(at, wall, term * 2));
        let Some(pulse) = self.hosts.get_mut(host) else {
            let pulse = Pulse {
                holder: renewal.holder.map(Arc::from),
                renewed: renewal.renewed,
                moved: now,
                proven: recent,
                term,
            };
            self.hosts.insert(Arc::from(host), pulse);
            return;
        };
        pulse.term = term;
        if pulse.holder.as_deref() == renewal.holder && pulse.renewed == renewal.renewed {
            return;
        }
        // A Lease that was not known before has not moved: it may have been there all the time.
        let first = pulse.renewed.is_none();
        pulse.proven = renewal.renewed.is_some() && (!first || recent);
        pulse.holder = renewal.holder.map(Arc::from);
        pulse.renewed = renewal.renewed;
        pulse.moved = now;
    }

    /// Forgets the hosts that are no more, so that they count neither as alive nor as lost.
    pub fn retain(&mut self, mut exists: impl FnMut(&str) -> bool) {
        self.hosts.retain(|host, _| exists(host));
    }

    /// Judges all hosts. To be called every few seconds, whether anything happened or not: a longer
    /// gap is taken for a stop of the controller itself.
    pub fn judge(&mut self, now: Instant) -> Judgement {
        let judged = self.judged.replace(now);
        if judged.is_some_and(|at| now.duration_since(at) > BLIND) {
            self.begin_anew(now);
        }
        let states = self
            .hosts
            .iter()
            .map(|(host, pulse)| (host.clone(), pulse.state(now)));
        let states: HashMap<_, _> = states.collect();
        Judgement {
            states,
            suspended: self.suspended(now),
        }
    }

    /// Whoever would be lost gets a new term: nobody was looking.
    fn begin_anew(&mut self, now: Instant) {
        for pulse in self.hosts.values_mut() {
            if matches!(pulse.state(now), State::Lost { .. }) {
                pulse.proven = false;
            }
            pulse.moved = now;
        }
    }

    fn suspended(&mut self, now: Instant) -> Option<String> {
        // An agent that gave its Lease back left on purpose, and says nothing of the API server or the network.
        let held = || self.hosts.values().filter(|pulse| pulse.holder.is_some());
        let all = held().count();
        let is_lost = |pulse: &&Pulse| matches!(pulse.state(now), State::Lost { .. });
        let lost = self.hosts.values().filter(is_lost).count();
        if lost == 0 {
            return None;
        }
        // Those that were cut off together fall silent within one interval of renewal: the first that is lost is not to be
        // emptied before the others are.
        let silent = held().filter(|pulse| pulse.late(now)).count();
        if silent > 1 && silent * 2 > all {
            self.shaken = Some(now);
            return Some(format!(
                "{silent} of {all} hosts look lost; the API server or the network is suspected, nothing is moved"
            ));
        }
        let settled = self.shaken? + TERM + SLACK;
        (now < settled).then(|| {
            format!(
                "{lost} of {all} hosts look lost, after most did a moment ago; they get time to come back, nothing is moved"
            )
        })
    }
}

impl Pulse {
    fn state(&self, now: Instant) -> State {
        let end = self.moved + self.term;
        if now >= end {
            State::Lost { since: end }
        } else if self.proven {
            State::Alive
        } else {
            State::Unproven
        }
    }

    /// Whether it has missed several renewals.
    fn late(&self, now: Instant) -> bool {
        now.duration_since(self.moved) > self.term * 3 / 4
    }
}

impl Judgement {
    /// How a host is; one that was never heard of is unproven.
    pub fn of(&self, host: &str) -> State {
        self.states.get(host).copied().unwrap_or(State::Unproven)
    }
}

/// Whether a time of the wall clock is further back than `age`. A clock that runs ahead makes nothing old.
fn older(at: Timestamp, wall: Timestamp, age: Duration) -> bool {
    Duration::try_from(wall.duration_since(at)).is_ok_and(|passed| passed > age)
}
