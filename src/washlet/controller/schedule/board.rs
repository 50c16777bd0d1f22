//! What every host holds while places are given out, and which host is best.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{Group, Snapshot, Workload, bits::Bits};

/// Room is compared in steps of this part of a host's memory: less is not worth another pull of an image.
const STEPS: u64 = 20;

/// What every host holds.
pub(super) struct Board<'a> {
    rooms: Vec<Room<'a>>,
    /// Of those groups only that have a member without a place.
    groups: HashMap<Group<'a>, Siblings>,
    /// Which hosts hold a digest; of those only that a workload without a place has.
    holders: HashMap<&'a str, Bits>,
}

/// What one host holds.
struct Room<'a> {
    id: &'a str,
    hash: u64,
    memory: Option<u64>,
    used: u64,
    workloads: u32,
    /// Derived from the others.
    rank: Rank,
}

/// How full a host is: its memory in [`STEPS`], then its workloads. A host that does not know its memory counts as full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64, u32);

/// How many members of a group every host holds.
struct Siblings {
    hosts: usize,
    /// Every host is in exactly one of the sets, and none of them is empty.
    by_count: BTreeMap<u32, Bits>,
}

impl<'a> Board<'a> {
    /// The board as the snapshot has it, made ready to place the workloads with the indices `unplaced`.
    pub fn new(snapshot: &Snapshot<'a>, unplaced: impl Iterator<Item = usize>) -> Self {
        let hosts = snapshot.hosts.len();
        let mut board = Self {
            rooms: snapshot.hosts.iter().map(Room::new).collect(),
            groups: HashMap::new(),
            holders: HashMap::new(),
        };
        for workload in unplaced.filter_map(|index| snapshot.workloads.get(index)) {
            if let Some(group) = workload.group {
                board
                    .groups
                    .entry(group)
                    .or_insert_with(|| Siblings::none(hosts));
            }
            for digest in &workload.digests {
                board
                    .holders
                    .entry(*digest)
                    .or_insert_with(|| Bits::none(hosts));
            }
        }
        for (index, host) in snapshot.hosts.iter().enumerate() {
            for digest in host.images {
                if let Some(holders) = board.holders.get_mut(digest.as_str()) {
                    holders.insert(index);
                }
            }
        }
        let indices: HashMap<&str, usize> = snapshot
            .hosts
            .iter()
            .enumerate()
            .map(|(i, h)| (h.id, i))
            .collect();
        for workload in &snapshot.workloads {
            if let Some(host) = workload.assigned.and_then(|id| indices.get(id)) {
                board.put(workload, *host);
            }
        }
        board
    }

    /// Gives a workload its place.
    pub fn put(&mut self, workload: &Workload<'a>, host: usize) {
        if let Some(room) = self.rooms.get_mut(host) {
            room.used = room.used.saturating_add(workload.memory);
            room.workloads = room.workloads.saturating_add(1);
            room.rank = room.rank();
        }
        if let Some(siblings) = workload.group.and_then(|group| self.groups.get_mut(&group)) {
            siblings.add(host);
        }
    }

    /// The best host of those that are feasible and have the memory.
    pub fn choose(&self, workload: &Workload<'a>, feasible: &Bits) -> Option<usize> {
        match workload.group.and_then(|group| self.groups.get(&group)) {
            None => self.roomiest(workload, feasible),
            Some(siblings) => siblings
                .by_count
                .values()
                .find_map(|hosts| self.roomiest(workload, &feasible.and(hosts))),
        }
    }

    fn roomiest(&self, workload: &Workload<'a>, among: &Bits) -> Option<usize> {
        let holders: Vec<&Bits> = workload
            .digests
            .iter()
            .filter_map(|digest| self.holders.get(digest))
            .collect();
        let seed = hash(workload.uid);
        let mut best = None;
        for index in among.iter() {
            let room = self.rooms.get(index)?;
            let worse = |(rank, ..): &(Rank, _, _, _, _)| room.rank > *rank;
            if best.as_ref().is_some_and(worse) || !room.fits(workload.memory) {
                continue;
            }
            let held = holders.iter().filter(|hosts| hosts.contains(index)).count();
            let key = (
                room.rank,
                Reverse(held),
                mix(seed ^ room.hash),
                room.id,
                index,
            );
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        best.map(|(.., index)| index)
    }

    /// The most memory that one of these hosts has left.
    pub fn most_free(&self, hosts: &Bits) -> u64 {
        let free = |index| self.rooms.get(index).map(Room::free);
        hosts.iter().filter_map(free).max().unwrap_or(0)
    }
}

impl<'a> Room<'a> {
    fn new(host: &super::Host<'a>) -> Self {
        let mut room = Self {
            id: host.id,
            hash: hash(host.id),
            memory: host.memory,
            used: 0,
            workloads: 0,
            rank: Rank(STEPS, 0),
        };
        room.rank = room.rank();
        room
    }

    fn rank(&self) -> Rank {
        let steps = |memory| u128::from(self.free()) * u128::from(STEPS) / u128::from(memory);
        let free = match self.memory {
            None | Some(0) => 0,
            Some(memory) => u64::try_from(steps(memory)).unwrap_or(STEPS),
        };
        Rank(STEPS - free.min(STEPS), self.workloads)
    }

    fn free(&self) -> u64 {
        self.memory.unwrap_or(u64::MAX).saturating_sub(self.used)
    }

    /// What asks for nothing fits even where more is promised than there is.
    fn fits(&self, memory: u64) -> bool {
        memory <= self.free()
    }
}

impl Siblings {
    fn none(hosts: usize) -> Self {
        Self {
            hosts,
            by_count: BTreeMap::from([(0, Bits::all(hosts))]),
        }
    }

    fn add(&mut self, host: usize) {
        let mut levels = self.by_count.iter_mut();
        let Some((&count, level)) = levels.find(|(_, level)| level.contains(host)) else {
            return;
        };
        level.remove(host);
        if level.is_empty() {
            self.by_count.remove(&count);
        }
        self.by_count
            .entry(count.saturating_add(1))
            .or_insert_with(|| Bits::none(self.hosts))
            .insert(host);
    }
}

/// FNV-1a: the same on every machine and in every version, unlike the standard library's.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Spreads what two hashes have in common over all bits, as the last step of SplitMix64 does.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
