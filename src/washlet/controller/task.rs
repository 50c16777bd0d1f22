//! What is to be looked at anew: each thing once, however often it changed, and never while a write on its behalf is under way.
//! Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::world::Id;

/// Waits after failed writes, by their number.
const RETRY: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Task {
    /// Which workloads need a host.
    Placement,
    /// The replica sets of a deployment.
    Deployment(Id),
    /// The workloads of a replica set.
    ReplicaSet(Id),
    /// The status of a workload.
    Workload(Id),
    /// The EndpointSlices of a Service.
    Service(Id),
}

/// Tasks that are due, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<Task>,
    /// Entries that are not in `at` any more are out of date.
    later: BinaryHeap<Reverse<(Instant, Task)>>,
    /// When a task is looked at next, if nothing marks it before.
    at: HashMap<Task, Instant>,
    /// Writes under way.
    busy: HashMap<Task, usize>,
    failures: HashMap<Task, usize>,
    /// Tasks that failed, and are not looked at before that.
    held: HashMap<Task, Instant>,
}

impl Queue {
    /// Looks at it soon.
    pub fn mark(&mut self, task: Task) {
        self.due.insert(task);
    }

    /// Looks at it then, at the latest.
    pub fn mark_at(&mut self, task: Task, at: Instant) {
        if self.at.get(&task).is_none_or(|known| at < *known) {
            self.at.insert(task.clone(), at);
            self.later.push(Reverse((at, task)));
        }
    }

    /// The next task that may be looked at.
    pub fn next(&mut self, now: Instant) -> Option<Task> {
        while let Some(Reverse((at, _))) = self.later.peek()
            && *at <= now
            && let Some(Reverse((at, task))) = self.later.pop()
        {
            if self.at.get(&task) == Some(&at) {
                self.at.remove(&task);
                self.due.insert(task);
            }
        }
        self.held.retain(|_, until| *until > now);
        let free = |task: &&Task| !self.busy.contains_key(*task) && !self.held.contains_key(*task);
        let task = self.due.iter().find(free)?.clone();
        self.due.remove(&task);
        Some(task)
    }

    /// When there is something to do, if nothing else happens.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse((at, _))| *at)
    }

    /// A write on behalf of a task began.
    pub fn began(&mut self, task: &Task) {
        *self.busy.entry(task.clone()).or_default() += 1;
    }

    /// A write ended. A task whose write failed is looked at again, later each time.
    pub fn ended(&mut self, task: &Task, failed: bool, now: Instant) {
        if let Some(count) = self.busy.get_mut(task) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(task);
            }
        }
        if !failed {
            self.failures.remove(task);
            return;
        }
        let failures = self.failures.entry(task.clone()).or_default();
        let wait = RETRY
            .get(*failures)
            .or(RETRY.last())
            .copied()
            .unwrap_or_default();
        *failures += 1;
        self.held.insert(task.clone(), now + wait);
        self.mark_at(task.clone(), now + wait);
    }

    /// There is nothing to do about a task now: its failures are over.
    pub fn settled(&mut self, task: &Task) {
        self.failures.remove(task);
    }

    /// Forgets what is remembered of a task whose object is gone.
    pub fn forget(&mut self, task: &Task) {
        self.due.remove(task);
        self.at.remove(task);
        self.failures.remove(task);
        self.held.remove(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Task {
        Task::Workload(Id::new("ns", name))
    }

    #[test]
    fn a_task_with_a_write_under_way_waits_for_its_end() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.mark(of("a"));
        queue.mark(of("a"));
        assert_eq!(queue.next(now), Some(of("a")));
        assert_eq!(queue.next(now), None, "once");
        queue.began(&of("a"));
        queue.began(&of("a"));
        queue.mark(of("a"));
        queue.mark(of("b"));
        assert_eq!(queue.next(now), Some(of("b")), "another one does not wait");
        queue.ended(&of("a"), false, now);
        assert_eq!(queue.next(now), None);
        queue.ended(&of("a"), false, now);
        assert_eq!(queue.next(now), Some(of("a")));
    }

    #[test]
    fn a_task_is_looked_at_once_at_the_earliest_of_its_times() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for seconds in [5, 3, 9] {
            queue.mark_at(of("a"), at(seconds));
        }
        assert_eq!(queue.next(at(2)), None);
        assert_eq!(queue.next(at(3)), Some(of("a")));
        assert_eq!(queue.next(at(10)), None);
    }

    #[test]
    fn failures_are_tried_again_later_each_time() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        for wait in RETRY {
            queue.began(&of("a"));
            queue.ended(&of("a"), true, now);
            queue.mark(of("a"));
            assert_eq!(queue.next(now), None, "not before");
            now += wait;
            assert_eq!(queue.next(now), Some(of("a")));
        }
        queue.began(&of("a"));
        queue.ended(&of("a"), false, now);
        queue.mark(of("a"));
        assert_eq!(queue.next(now), Some(of("a")));
    }
}
