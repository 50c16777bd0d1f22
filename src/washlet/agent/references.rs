//! The Secrets, ConfigMaps and ServiceAccounts that workloads name: each read once for the whole node, and read again.
//!
//! The agent may only `get`, so changes are found by asking: after 1, 2 and then every 5 seconds for what somebody waits for,
//! every half minute for the rest. This module decides; reading is the caller's.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::super::convert::{Outcome, ReferenceKey};

/// Waits between reads of what somebody waits for.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LATER_WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Wait between reads of what is healthy, less up to a quarter so that reads spread.
const HEALTHY: Duration = Duration::from_secs(30);
/// A value read this shortly before it was asked for is fresh: a burst of workloads shares one read.
const FRESH: Duration = Duration::from_secs(1);

/// What is known of the referenced objects.
#[derive(Default)]
pub(super) struct References {
    entries: HashMap<ReferenceKey, Entry>,
    /// A moving seed, so that reads of many objects spread without a random generator.
    spread: u32,
}

struct Entry {
    /// The last answer; none before the first.
    outcome: Option<Outcome>,
    /// When the read that gave it was begun.
    read_at: Option<Instant>,
    /// UIDs of the workloads that name it.
    users: HashSet<String>,
    /// UIDs of those that do not run as they should, perhaps because of it.
    waiting: HashSet<String>,
    /// Reads since somebody began to wait.
    reads_waited: usize,
    /// Whether somebody asked for a fresh answer.
    asked: bool,
    next: Instant,
    /// When the read in flight was begun.
    reading: Option<Instant>,
}

impl References {
    /// States what a workload names. What is not fresh at `since` is due at once.
    pub fn want(&mut self, uid: &str, keys: &HashSet<ReferenceKey>, since: Instant) {
        self.forget_all_but(uid, keys);
        for key in keys {
            let entry = self
                .entries
                .entry(key.clone())
                .or_insert_with(|| Entry::new(since));
            entry.users.insert(uid.to_owned());
            if !entry.fresh(since) {
                entry.next = entry.next.min(since);
                entry.asked = true;
            } else if let Some(read) = entry.read_at.filter(|read| *read < since) {
                // What was read for somebody else may have changed before this one asked: looked at once more when the
                // burst is over.
                entry.next = entry.next.min(read + FRESH);
            }
        }
    }

    /// A workload is gone.
    pub fn forget(&mut self, uid: &str) {
        self.forget_all_but(uid, &HashSet::new());
    }

    fn forget_all_but(&mut self, uid: &str, keys: &HashSet<ReferenceKey>) {
        self.entries.retain(|key, entry| {
            if !keys.contains(key) {
                entry.users.remove(uid);
                entry.waiting.remove(uid);
            }
            !entry.users.is_empty()
        });
    }

    /// States whether a workload waits for what it names to change.
    pub fn waits(&mut self, uid: &str, waits: bool, now: Instant) {
        for entry in self.entries.values_mut().filter(|e| e.users.contains(uid)) {
            if !waits {
                entry.waiting.remove(uid);
            } else if entry.waiting.insert(uid.to_owned()) && entry.waiting.len() == 1 {
                entry.reads_waited = 0;
                entry.next = entry.next.min(now + FIRST_WAIT);
            }
        }
    }

    /// The answer, if it is fresh for somebody who asked at `since`.
    pub fn get(&self, key: &ReferenceKey, since: Instant) -> Option<&Outcome> {
        self.entries
            .get(key)
            .filter(|entry| entry.fresh(since))?
            .outcome
            .as_ref()
    }

    /// UIDs of those who name an object.
    pub fn users(&self, key: &ReferenceKey) -> Vec<String> {
        self.entries
            .get(key)
            .map(|e| e.users.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// What is to be read now; it counts as being read from here on.
    pub fn due(&mut self, now: Instant) -> Vec<ReferenceKey> {
        let due = self
            .entries
            .iter_mut()
            .filter(|(_, e)| e.reading.is_none() && e.next <= now);
        due.map(|(key, entry)| {
            entry.reading = Some(now);
            key.clone()
        })
        .collect()
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter(|e| e.reading.is_none())
            .map(|e| e.next)
            .min()
    }

    /// A read ended; none means that the API server gave no answer, and the last one stands. Says whether anything is new
    /// for the users.
    pub fn learned(&mut self, key: &ReferenceKey, outcome: Option<Outcome>, now: Instant) -> bool {
        self.spread = self
            .spread
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let quarter = HEALTHY / 4 * (self.spread >> 24) / 256;
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let begun = entry.reading.take().unwrap_or(now);
        let answered = outcome.is_some();
        let mut news = false;
        if let Some(outcome) = outcome {
            news = entry.asked || entry.outcome.as_ref() != Some(&outcome);
            entry.asked = false;
            entry.outcome = Some(outcome);
            entry.read_at = Some(begun);
        }
        // What is missing but nobody misses (a pull secret of a public image) can wait too.
        let healthy = answered && entry.waiting.is_empty();
        entry.next = now
            + if healthy {
                entry.reads_waited = 0;
                HEALTHY - quarter
            } else {
                let wait = LATER_WAITS
                    .get(entry.reads_waited)
                    .or(LATER_WAITS.last())
                    .copied();
                entry.reads_waited += 1;
                wait.unwrap_or(HEALTHY)
            };
        news
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            outcome: None,
            read_at: None,
            users: HashSet::new(),
            waiting: HashSet::new(),
            reads_waited: 0,
            asked: true,
            next: now,
            reading: None,
        }
    }

    fn fresh(&self, since: Instant) -> bool {
        self.read_at.is_some_and(|read| read + FRESH >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::washlet::convert::{ReferenceKind, Referenced};

    fn key(name: &str) -> ReferenceKey {
        ReferenceKey {
            kind: ReferenceKind::ConfigMap,
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn found() -> Outcome {
        let map = k8s_openapi::api::core::v1::ConfigMap::default();
        Outcome::Found(Referenced::from(map))
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn two_workloads_share_one_read() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x")]), now);
        refs.want("b", &HashSet::from([key("x")]), now);
        assert_eq!(refs.due(now), [key("x")]);
        assert_eq!(refs.due(now + secs(60)), [], "one read at a time");
        assert!(refs.get(&key("x"), now).is_none());
        assert!(refs.learned(&key("x"), Some(found()), now));
        assert_eq!(refs.get(&key("x"), now), Some(&found()));
        assert_eq!(refs.users(&key("x")).len(), 2);
    }

    #[test]
    fn a_new_generation_gets_a_fresh_answer() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x")]), now);
        refs.due(now);
        refs.learned(&key("x"), Some(found()), now);
        let later = now + secs(10);
        refs.want("a", &HashSet::from([key("x")]), later);
        assert!(
            refs.get(&key("x"), later).is_none(),
            "what was read before does not count"
        );
        assert_eq!(refs.due(later), [key("x")]);
        assert!(
            refs.learned(&key("x"), Some(found()), later),
            "told though it is the same"
        );
    }

    #[test]
    fn what_was_read_for_another_is_confirmed_after_the_burst() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x")]), now);
        refs.due(now);
        refs.learned(&key("x"), Some(found()), now);
        let soon = now + FRESH / 2;
        refs.want("b", &HashSet::from([key("x")]), soon);
        assert_eq!(refs.get(&key("x"), soon), Some(&found()));
        assert_eq!(refs.due(soon), [], "one read for both");
        let later = now + FRESH;
        assert_eq!(refs.due(later), [key("x")]);
        assert!(refs.learned(&key("x"), Some(Outcome::Missing), later));
        refs.want("b", &HashSet::from([key("x")]), soon);
        assert_eq!(refs.due(later + FRESH / 2), [], "once is enough");
    }

    #[test]
    fn healthy_objects_are_read_seldom_and_awaited_ones_often() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x")]), now);
        refs.due(now);
        refs.learned(&key("x"), Some(found()), now);
        let next = refs.next().expect("a next read");
        assert!(
            next > now + secs(20) && next <= now + secs(30),
            "{:?}",
            next - now
        );
        refs.waits("a", true, now);
        assert_eq!(refs.next(), Some(now + secs(1)));
        for wait in [2, 5, 5] {
            let at = refs.next().expect("a next read");
            assert_eq!(refs.due(at), [key("x")]);
            assert!(!refs.learned(&key("x"), Some(found()), at), "nothing new");
            assert_eq!(refs.next(), Some(at + secs(wait)));
        }
        refs.waits("a", false, now);
        let at = refs.next().expect("a next read");
        refs.due(at);
        refs.learned(&key("x"), Some(found()), at);
        assert!(refs.next() > Some(at + secs(20)), "calm again");
    }

    #[test]
    fn no_answer_keeps_the_last_one() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x")]), now);
        refs.due(now);
        refs.learned(&key("x"), Some(found()), now);
        let at = now + secs(30);
        refs.due(at);
        assert!(!refs.learned(&key("x"), None, at));
        assert_eq!(refs.get(&key("x"), now), Some(&found()));
        assert_eq!(refs.next(), Some(at + secs(2)), "asked again soon");
    }

    #[test]
    fn what_nobody_names_is_forgotten() {
        let (mut refs, now) = (References::default(), Instant::now());
        refs.want("a", &HashSet::from([key("x"), key("y")]), now);
        refs.want("a", &HashSet::from([key("y")]), now);
        assert_eq!(refs.due(now), [key("y")]);
        refs.forget("a");
        assert_eq!(refs.next(), None);
    }
}
