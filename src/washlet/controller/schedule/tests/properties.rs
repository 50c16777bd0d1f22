//! What holds for every cluster, tried on many that were drawn by lot.

use std::collections::{HashMap, HashSet};

use super::*;
use filter::Requirements;

const RUNS: u64 = 300;

/// SplitMix64: the same clusters in every run.
struct Lot(u64);

impl Lot {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn text(&mut self, prefix: &str, limit: u64) -> String {
        format!("{prefix}{}", self.below(limit))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1);
            items.swap(i, usize::try_from(j).unwrap());
        }
    }

    fn host(&mut self, id: &str, start: Instant) -> OwnedHost {
        let mut host = host(id);
        let since = start + std::time::Duration::from_secs(self.below(50));
        host.condition = match self.below(12) {
            0 => Condition::Cordoned,
            1 => Condition::NotReady("shutting down"),
            2 => Condition::Unproven,
            3 => Condition::Lost { since },
            _ => Condition::Ready,
        };
        host.environment = self.one_in(3).then(|| self.text("env", 2));
        host.node_labels.insert("zone".into(), self.text("z", 2));
        host.own_labels.insert("zone".into(), "never".into());
        if self.one_in(3) {
            host.own_labels.insert("pool".into(), self.text("p", 2));
        }
        if self.one_in(4) {
            host.interfaces = Arc::new([]);
        }
        host.memory = (!self.one_in(8)).then(|| self.below(1000));
        host.images = (0..self.below(4)).map(|_| self.text("d", 5)).collect();
        host
    }

    fn workload(&mut self, uid: &str, hosts: u64) -> OwnedWorkload {
        let mut wanting = workload(uid);
        wanting.created = i64::try_from(self.below(20)).unwrap();
        // One more than there are: it is gone.
        wanting.assigned = self.one_in(3).then(|| self.text("n", hosts + 1));
        wanting.pinned = self.one_in(10);
        wanting.memory = if self.one_in(3) { 0 } else { self.below(200) };
        if self.one_in(5) {
            wanting.selector.insert("zone".into(), self.text("z", 2));
        }
        if self.one_in(8) {
            wanting.selector.insert("pool".into(), self.text("p", 2));
        }
        wanting.environment = self.one_in(8).then(|| self.text("env", 2));
        if self.one_in(3) {
            wanting.needs = vec![need("http", &["handler"], None)];
        }
        wanting.owner = self.one_in(2).then(|| self.text("o", 3));
        wanting.app = self.one_in(2).then(|| self.text("a", 3));
        wanting.digests = (0..self.below(3)).map(|_| self.text("d", 5)).collect();
        wanting
    }

    fn world(&mut self, start: Instant) -> World {
        let hosts = self.below(130);
        let workloads = self.below(150);
        World {
            hosts: (0..hosts)
                .map(|i| self.host(&format!("n{i}"), start))
                .collect(),
            workloads: (0..workloads)
                .map(|i| self.workload(&format!("w{i}"), hosts))
                .collect(),
        }
    }
}

fn worlds() -> impl Iterator<Item = (World, usize, Lot)> {
    let start = Instant::now();
    (0..RUNS).map(move |seed| {
        let mut lot = Lot(seed);
        let world = lot.world(start);
        let moves = usize::try_from(lot.below(20)).unwrap();
        (world, moves, lot)
    })
}

fn index_of(snapshot: &Snapshot<'_>, id: &str) -> Option<usize> {
    snapshot.hosts.iter().position(|host| host.id == id)
}

/// Whether a workload lacks a place: whether it may be placed, and whether from a lost host.
fn lacks_place(snapshot: &Snapshot<'_>, workload: &Workload<'_>) -> Option<bool> {
    if workload.pinned {
        return None;
    }
    let Some(id) = workload.assigned else {
        return Some(false);
    };
    let lost = |host: usize| matches!(snapshot.hosts[host].condition, Condition::Lost { .. });
    index_of(snapshot, id).is_none_or(lost).then_some(true)
}

/// What the hosts hold, kept in the simplest way.
struct Ledger {
    used: Vec<u64>,
    count: Vec<usize>,
    members: Vec<Vec<usize>>,
}

impl Ledger {
    fn new(snapshot: &Snapshot<'_>) -> Self {
        let hosts = snapshot.hosts.len();
        let mut ledger = Self {
            used: vec![0; hosts],
            count: vec![0; hosts],
            members: vec![Vec::new(); hosts],
        };
        for (index, workload) in snapshot.workloads.iter().enumerate() {
            if let Some(host) = workload.assigned.and_then(|id| index_of(snapshot, id)) {
                ledger.put(snapshot, index, host);
            }
        }
        ledger
    }

    fn put(&mut self, snapshot: &Snapshot<'_>, workload: usize, host: usize) {
        self.used[host] += snapshot.workloads[workload].memory;
        self.count[host] += 1;
        self.members[host].push(workload);
    }

    fn fits(&self, snapshot: &Snapshot<'_>, workload: &Workload<'_>, host: usize) -> bool {
        let memory = snapshot.hosts[host].memory;
        let room = memory.is_none_or(|m| self.used[host].saturating_add(workload.memory) <= m);
        let refusal = Requirements::of(workload).refused_by(&snapshot.hosts[host]);
        (room || workload.memory == 0) && refusal.is_none()
    }

    /// The lower, the better.
    fn score(
        &self,
        snapshot: &Snapshot<'_>,
        workload: &Workload<'_>,
        host: usize,
    ) -> impl Ord + use<> {
        let group = workload.group;
        let is_sibling = |i: &&usize| group.is_some() && snapshot.workloads[**i].group == group;
        let siblings = self.members[host].iter().filter(is_sibling).count();
        let free = match snapshot.hosts[host].memory {
            None | Some(0) => 0,
            Some(memory) => memory.saturating_sub(self.used[host]) * 20 / memory,
        };
        let held = |digest: &&&str| snapshot.hosts[host].images.iter().any(|i| i == **digest);
        let held = workload.digests.iter().filter(held).count();
        (siblings, 20 - free, self.count[host], usize::MAX - held)
    }
}

#[test]
fn every_decision_is_allowed_and_none_is_better() {
    let mut placed = 0;
    let mut refused = 0;
    for (world, moves, _) in worlds() {
        let snapshot = world.snapshot();
        let plan = schedule(&snapshot, moves);
        let mut ledger = Ledger::new(&snapshot);
        for decision in &plan.decisions {
            let workload = &snapshot.workloads[decision.workload];
            let possible: Vec<usize> = (0..snapshot.hosts.len())
                .filter(|host| ledger.fits(&snapshot, workload, *host))
                .collect();
            let Verdict::Host(host) = decision.verdict else {
                assert!(possible.is_empty(), "{decision:?}: {possible:?}");
                refused += 1;
                continue;
            };
            assert!(possible.contains(&host), "{decision:?}: {possible:?}");
            let score = |host| ledger.score(&snapshot, workload, host);
            let best = possible.iter().map(|host| score(*host)).min();
            assert!(best == Some(score(host)), "{decision:?}");
            ledger.put(&snapshot, decision.workload, host);
            placed += 1;
        }
    }
    assert!(
        placed > 1000 && refused > 1000,
        "{placed} {refused}: both have to happen"
    );
}

#[test]
fn whoever_lacks_a_place_is_decided_once_and_nobody_else() {
    for (world, moves, _) in worlds() {
        let snapshot = world.snapshot();
        let plan = schedule(&snapshot, moves);
        let mut decided = HashSet::new();
        let mut moved = 0;
        for decision in &plan.decisions {
            assert!(decided.insert(decision.workload), "twice: {decision:?}");
            let stranded = lacks_place(&snapshot, &snapshot.workloads[decision.workload]);
            let stranded = stranded.expect("it lacks a place");
            moved += usize::from(stranded && matches!(decision.verdict, Verdict::Host(_)));
        }
        assert_eq!(moved, plan.moved);
        assert!(moved <= moves);
        let undecided = (0..snapshot.workloads.len()).filter(|index| {
            let stranded = lacks_place(&snapshot, &snapshot.workloads[*index]);
            assert!(
                stranded != Some(false) || decided.contains(index),
                "forgotten"
            );
            stranded == Some(true) && !decided.contains(index)
        });
        assert_eq!(undecided.count(), plan.waiting);
        assert!(
            plan.waiting == 0 || moved == moves,
            "none waits without need"
        );
    }
}

#[test]
fn the_answer_does_not_depend_on_the_order_of_the_question() {
    for (mut world, moves, mut lot) in worlds() {
        let told = world.run(moves);
        assert_eq!(told, world.run(moves), "the same twice");
        lot.shuffle(&mut world.hosts);
        lot.shuffle(&mut world.workloads);
        assert_eq!(told, world.run(moves), "shuffled");
    }
}

#[test]
fn equal_hosts_get_equal_shares() {
    for seed in 0..RUNS {
        let mut lot = Lot(seed);
        let hosts = 1 + lot.below(20);
        let workloads = lot.below(100);
        let groups = lot.below(3);
        let memory = lot.below(3) * 10;
        let mut world = World::default();
        for index in 0..hosts {
            world.hosts.push(host(&format!("n{index}")));
        }
        for index in 0..workloads {
            let mut wanting = workload(&format!("w{index}"));
            wanting.memory = memory << 20;
            wanting.owner = (groups > 0).then(|| format!("o{}", index % groups));
            world.workloads.push(wanting);
        }
        let snapshot = world.snapshot();
        let mut shares: HashMap<_, Vec<u64>> = HashMap::new();
        let mut unplaced = 0;
        for decision in schedule(&snapshot, 0).decisions {
            let group = snapshot.workloads[decision.workload].group;
            let Verdict::Host(host) = decision.verdict else {
                unplaced += 1;
                continue;
            };
            shares
                .entry(group)
                .or_insert_with(|| vec![0; snapshot.hosts.len()])[host] += 1;
        }
        let room = 1024_u64
            .checked_div(memory)
            .map_or(workloads, |each| hosts * each);
        assert_eq!(unplaced, workloads.saturating_sub(room), "all room is used");
        for (group, shares) in shares {
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(
                unplaced > 0 || most - least <= 1,
                "seed {seed}, {group:?}: {shares:?}"
            );
        }
    }
}

#[test]
fn a_second_run_on_what_the_first_decided_changes_nothing() {
    for (mut world, _, _) in worlds() {
        let plan = schedule(&world.snapshot(), usize::MAX);
        for decision in &plan.decisions {
            if let Verdict::Host(host) = decision.verdict {
                let id = world.hosts[host].id.clone();
                world.workloads[decision.workload].assigned = Some(id);
            }
        }
        let again = schedule(&world.snapshot(), usize::MAX);
        let placed = |d: &Decision| matches!(d.verdict, Verdict::Host(_));
        assert!(!again.decisions.iter().any(placed));
    }
}
