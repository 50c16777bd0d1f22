//! The Secrets, ConfigMaps and ServiceAccounts that workloads name: each read once for the whole node, and read again.
//!
//! The agent may only `get`, so changes are found by asking: after 1, 2 and then every 5 seconds for what somebody waits for,
//! every half minute for the rest. This module decides; reading is the caller's.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
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

/// What is known of the referenced objects. Every question costs what the asking workload names, however many others there are.
#[derive(Default)]
pub(super) struct References {
    entries: HashMap<Arc<ReferenceKey>, Entry>,
    /// What each workload names, by UID.
    named: HashMap<Arc<str>, Vec<Arc<ReferenceKey>>>,
    /// When each entry that is not being read is due.
    schedule: BTreeSet<(Instant, Arc<ReferenceKey>)>,
    /// A moving seed, so that reads of many objects spread without a random generator.
    spread: u32,
    /// Entries looked at so far.
    #[cfg(test)]
    touched: usize,
}

struct Entry {
    key: Arc<ReferenceKey>,
    /// The last answer; none before the first.
    outcome: Option<Outcome>,
    /// When the read that gave it was begun.
    read_at: Option<Instant>,
    /// UIDs of the workloads that name it.
    users: HashSet<Arc<str>>,
    /// UIDs of those that do not run as they should, perhaps because of it.
    waiting: HashSet<Arc<str>>,
    /// Reads since somebody began to wait.
    reads_waited: usize,
    /// UIDs of those who asked for a fresh answer.
    asked: HashSet<Arc<str>>,
    next: Instant,
    /// When the read in flight was begun.
    reading: Option<Instant>,
}

impl References {
    /// States what a workload names. What is not fresh at `since` is due at once.
    pub fn want(&mut self, uid: &str, keys: &HashSet<ReferenceKey>, since: Instant) {
        let former = self.named.remove_entry(uid);
        if keys.is_empty() && former.is_none() {
            return;
        }
        let (uid, former) = former.unwrap_or_else(|| (uid.into(), Vec::new()));
        for key in former.iter().filter(|key| !keys.contains(key.as_ref())) {
            self.leave(key, &uid);
        }
        let mut named = Vec::with_capacity(keys.len());
        for key in keys {
            if !self.entries.contains_key(key) {
                self.add(key.clone(), since);
            }
            let key = self.change(key, |entry| {
                entry.wanted(&uid, since);
                entry.key.clone()
            });
            named.extend(key);
        }
        if !named.is_empty() {
            self.named.insert(uid, named);
        }
    }

    /// A workload is gone.
    pub fn forget(&mut self, uid: &str) {
        for key in self.named.remove(uid).unwrap_or_default() {
            self.leave(&key, uid);
        }
    }

    fn add(&mut self, key: ReferenceKey, since: Instant) {
        let key = Arc::new(key);
        self.schedule.insert((since, key.clone()));
        self.entries
            .insert(key.clone(), Entry::new(key.clone(), since));
    }

    /// A workload does not name an object any more; without users it is forgotten.
    fn leave(&mut self, key: &Arc<ReferenceKey>, uid: &str) {
        let unused = self.change(key, |entry| {
            for of in [&mut entry.users, &mut entry.waiting, &mut entry.asked] {
                of.remove(uid);
            }
            entry.users.is_empty()
        });
        if unused == Some(true)
            && let Some(entry) = self.entries.remove(key)
            && let Some(due) = entry.due()
        {
            self.schedule.remove(&(due, entry.key));
        }
    }

    /// Changes an entry, and with it when it is due.
    fn change<T>(&mut self, key: &ReferenceKey, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        #[cfg(test)]
        {
            self.touched += 1;
        }
        let entry = self.entries.get_mut(key)?;
        let before = entry.due();
        let result = change(entry);
        let after = entry.due();
        if before != after {
            if let Some(before) = before {
                self.schedule.remove(&(before, entry.key.clone()));
            }
            if let Some(after) = after {
                self.schedule.insert((after, entry.key.clone()));
            }
        }
        Some(result)
    }

    /// States whether a workload waits for what it names to change.
    pub fn waits(&mut self, uid: &str, waits: bool, now: Instant) {
        let Some((uid, named)) = self.named.get_key_value(uid) else {
            return;
        };
        let (uid, named) = (uid.clone(), named.clone());
        for key in named {
            self.change(&key, |entry| entry.waited(&uid, waits, now));
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

    /// What is to be read now; it counts as being read from here on.
    pub fn due(&mut self, now: Instant) -> Vec<ReferenceKey> {
        let mut due = Vec::new();
        while let Some((_, key)) = self.schedule.first().filter(|(at, _)| *at <= now) {
            let key = key.clone();
            self.change(&key, |entry| entry.reading = Some(now));
            due.push(key.as_ref().clone());
        }
        due
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// A read ended; none means that the API server gave no answer, and the last one stands. Gives the UIDs of those for whom
    /// anything is new: all who name the object, if it has changed, else those who asked for a fresh answer.
    pub fn learned(
        &mut self,
        key: &ReferenceKey,
        outcome: Option<Outcome>,
        now: Instant,
    ) -> Vec<Arc<str>> {
        self.spread = self
            .spread
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let quarter = HEALTHY / 4 * (self.spread >> 24) / 256;
        let learned = self.change(key, |entry| entry.learned(outcome, quarter, now));
        learned.unwrap_or_default()
    }
}

impl Entry {
    fn new(key: Arc<ReferenceKey>, now: Instant) -> Self {
        Self {
            key,
            outcome: None,
            read_at: None,
            users: HashSet::new(),
            waiting: HashSet::new(),
            reads_waited: 0,
            asked: HashSet::new(),
            next: now,
            reading: None,
        }
    }

    /// When it is to be read; none while it is.
    fn due(&self) -> Option<Instant> {
        self.reading.is_none().then_some(self.next)
    }

    fn fresh(&self, since: Instant) -> bool {
        self.read_at.is_some_and(|read| read + FRESH >= since)
    }

    fn wanted(&mut self, uid: &Arc<str>, since: Instant) {
        self.users.insert(uid.clone());
        if !self.fresh(since) {
            self.next = self.next.min(since);
            self.asked.insert(uid.clone());
        } else if let Some(read) = self.read_at.filter(|read| *read < since) {
            // What was read for somebody else may have changed before this one asked: looked at once more when the burst is
            // over.
            self.next = self.next.min(read + FRESH);
        }
    }

    fn waited(&mut self, uid: &Arc<str>, waits: bool, now: Instant) {
        if !waits {
            self.waiting.remove(uid);
        } else if self.waiting.insert(uid.clone()) && self.waiting.len() == 1 {
            self.reads_waited = 0;
            self.next = self.next.min(now + FIRST_WAIT);
        }
    }

    fn learned(
        &mut self,
        outcome: Option<Outcome>,
        quarter: Duration,
        now: Instant,
    ) -> Vec<Arc<str>> {
        let begun = self.reading.take().unwrap_or(now);
        let answered = outcome.is_some();
        let mut news = Vec::new();
        if let Some(outcome) = outcome {
            let asked = std::mem::take(&mut self.asked);
            if self.outcome.as_ref() == Some(&outcome) {
                news.extend(asked);
            } else {
                news.extend(self.users.iter().cloned());
                self.outcome = Some(outcome);
            }
            self.read_at = Some(begun);
        }
        // What is missing but nobody misses (a pull secret of a public image) can wait too.
        let healthy = answered && self.waiting.is_empty();
        self.next = now
            + if healthy {
                self.reads_waited = 0;
                HEALTHY - quarter
            } else {
                let wait = LATER_WAITS
                    .get(self.reads_waited)
                    .or(LATER_WAITS.last())
                    .copied();
                self.reads_waited += 1;
                wait.unwrap_or(HEALTHY)
            };
        news
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
        assert_eq!(refs.learned(&key("x"), Some(found()), now).len(), 2);
        assert_eq!(refs.get(&key("x"), now), Some(&found()));
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
        assert_eq!(
            refs.learned(&key("x"), Some(found()), later),
            ["a".into()],
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
        let changed = refs.learned(&key("x"), Some(Outcome::Missing), later);
        assert_eq!(changed.len(), 2, "both feel it");
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
            let news = refs.learned(&key("x"), Some(found()), at);
            assert!(news.is_empty(), "nothing new");
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
        assert!(refs.learned(&key("x"), None, at).is_empty());
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

    #[test]
    fn only_those_who_asked_are_told_what_is_not_new() {
        let (mut refs, now) = (References::default(), Instant::now());
        let wants = HashSet::from([key("x")]);
        refs.want("a", &wants, now);
        refs.due(now);
        refs.learned(&key("x"), Some(found()), now);
        let later = now + secs(10);
        refs.want("b", &wants, later);
        assert_eq!(refs.due(later), [key("x")]);
        assert_eq!(
            refs.learned(&key("x"), Some(found()), later),
            ["b".into()],
            "one more workload is no news for the others"
        );
    }

    #[test]
    fn a_workload_costs_what_it_names_however_many_others_there_are() {
        const OTHERS: usize = 1000;
        let (mut refs, now) = (References::default(), Instant::now());
        let uids: Vec<String> = (0..OTHERS).map(|n| format!("uid-{n}")).collect();
        for uid in &uids {
            refs.want(uid, &HashSet::from([key(uid)]), now);
        }
        assert_eq!(refs.due(now).len(), OTHERS);
        for uid in &uids {
            refs.learned(&key(uid), Some(found()), now);
        }
        let before = refs.touched;
        assert!(before <= 3 * OTHERS, "{before}");

        refs.want("new", &HashSet::from([key("x"), key("y")]), now);
        refs.waits("new", true, now);
        assert_eq!(refs.due(now).len(), 2);
        refs.learned(&key("x"), Some(found()), now);
        refs.want("new", &HashSet::from([key("x")]), now);
        refs.waits("new", false, now);
        assert_eq!(refs.next().map(|at| at > now), Some(true));
        refs.forget("new");
        assert!(refs.touched - before <= 12, "{}", refs.touched - before);
        assert_eq!(refs.entries.len(), OTHERS);
        assert_eq!(refs.schedule.len(), OTHERS);
    }
}
