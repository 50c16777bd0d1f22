//! From a request's host and path to whoever answers: read by every request without a lock, changed one route at a time.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::route::{HostPattern, PathPrefix, Route};

/// Hosts are spread over this many maps, since a change copies one of them: with 10,000 hosts it copies 40 entries.
const SHARDS: usize = 256;

/// The lookup table. Reading takes no lock and never waits; each change is seen by the next read.
pub(super) struct Table<T> {
    shards: Box<[ArcSwap<Shard<T>>]>,
    any: ArcSwap<Paths<T>>,
    /// Suffixes in all shards; as long as there are none, a host is looked up once.
    suffixes: AtomicUsize,
}

struct Shard<T> {
    exact: HashMap<Arc<str>, Arc<Paths<T>>>,
    below: HashMap<Arc<str>, Arc<Paths<T>>>,
}

/// The routes of one host, longest path first.
struct Paths<T>(Vec<(PathPrefix, Arc<Targets<T>>)>);

/// Who answers a route; several share it by turns.
pub(super) struct Targets<T> {
    all: Vec<Arc<T>>,
    turn: AtomicUsize,
}

impl<T> Table<T> {
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            any: ArcSwap::default(),
            suffixes: AtomicUsize::new(0),
        }
    }

    /// Who answers: the exact host, else the longest suffix of it, else the route for any host; of these the longest path. A
    /// host that has routes, but none for the path, is looked for further on.
    ///
    /// `host` is in lower case, without a port or a final dot.
    pub fn find(&self, host: &str, path: &str) -> Option<Arc<T>> {
        if let Some(paths) = self.shard(host).load().exact.get(host)
            && let Some(target) = paths.find(path)
        {
            return Some(target);
        }
        if self.suffixes.load(Ordering::Relaxed) > 0 {
            for (dot, _) in host.match_indices('.') {
                let Some(suffix) = host.get(dot..).filter(|_| dot > 0) else {
                    continue;
                };
                if let Some(paths) = self.shard(suffix).load().below.get(suffix)
                    && let Some(target) = paths.find(path)
                {
                    return Some(target);
                }
            }
        }
        self.any.load().find(path)
    }

    /// Lets `targets` answer a route from now on; nobody, if there are none. Only one thread may do this at a time.
    pub fn set(&self, route: &Route, targets: Vec<Arc<T>>) {
        match &route.host {
            HostPattern::Any => self
                .any
                .store(Arc::new(self.any.load().with(&route.path, targets))),
            HostPattern::Exact(host) => {
                let slot = self.shard(host);
                let mut shard = Shard::clone(&slot.load());
                change(&mut shard.exact, host, &route.path, targets);
                slot.store(Arc::new(shard));
            }
            HostPattern::Below(suffix) => {
                let slot = self.shard(suffix);
                let old = slot.load();
                let mut shard = Shard::clone(&old);
                change(&mut shard.below, suffix, &route.path, targets);
                // A request that misses a change of the count misses a route that has just come.
                if shard.below.len() > old.below.len() {
                    self.suffixes.fetch_add(1, Ordering::Relaxed);
                } else if shard.below.len() < old.below.len() {
                    self.suffixes.fetch_sub(1, Ordering::Relaxed);
                }
                slot.store(Arc::new(shard));
            }
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the length, which is not zero"
    )]
    fn shard(&self, host: &str) -> &ArcSwap<Shard<T>> {
        // FNV-1a: spreads names well enough, and whoever chooses names can only make his own changes slower.
        let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }
}

fn change<T>(
    hosts: &mut HashMap<Arc<str>, Arc<Paths<T>>>,
    host: &Arc<str>,
    path: &PathPrefix,
    targets: Vec<Arc<T>>,
) {
    let paths = hosts
        .get(host)
        .map_or_else(Paths::default, |paths| Paths(paths.0.clone()))
        .with(path, targets);
    if paths.0.is_empty() {
        hosts.remove(host);
    } else {
        hosts.insert(host.clone(), Arc::new(paths));
    }
}

impl<T> Paths<T> {
    fn find(&self, path: &str) -> Option<Arc<T>> {
        self.0
            .iter()
            .find(|(prefix, _)| prefix.includes(path))
            .and_then(|(_, targets)| targets.next())
    }

    fn with(&self, path: &PathPrefix, targets: Vec<Arc<T>>) -> Self {
        let mut paths: Vec<_> = self
            .0
            .iter()
            .filter(|(prefix, _)| prefix != path)
            .cloned()
            .collect();
        if !targets.is_empty() {
            let at = paths.partition_point(|(prefix, _)| prefix.len() > path.len());
            paths.insert(at, (path.clone(), Arc::new(Targets::new(targets))));
        }
        Self(paths)
    }
}

impl<T> Targets<T> {
    pub fn new(all: Vec<Arc<T>>) -> Self {
        Self {
            all,
            turn: AtomicUsize::new(0),
        }
    }

    /// Whose turn it is; none if there is nobody.
    pub fn next(&self) -> Option<Arc<T>> {
        match self.all.as_slice() {
            // The usual case touches nothing that other threads write.
            [one] => Some(one.clone()),
            all => all
                .get(
                    self.turn
                        .fetch_add(1, Ordering::Relaxed)
                        .checked_rem(all.len())?,
                )
                .cloned(),
        }
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            below: HashMap::new(),
        }
    }
}

impl<T> Clone for Shard<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            below: self.below.clone(),
        }
    }
}
