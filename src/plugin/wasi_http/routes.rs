//! Who has which route: a pure function of who claims what, kept up to date claim by claim.
//!
//! # Rules
//! - A claim asks for several routes and gets all of them or none.
//! - The older workload (by creation, ties by id) comes first; a younger one gets what is left.
//! - Workloads of one owner (replicas) share a route.
//! - Of the generations of one workload, the newest that can have all its routes has them; older ones then have none, and it is
//!   no fault of theirs.
//!
//! Not here: requests, and telling anybody. A change is returned as data.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::route::Route;
use crate::spec::WorkloadId;

/// Names a claim. A later claim has a greater token, by which the generations of a workload are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Token(u64);

/// What one generation of a workload wants.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub workload: WorkloadId,
    pub created: i64,
    pub owner: Arc<str>,
    /// `namespace/name`, for messages.
    pub name: Arc<str>,
    pub routes: Vec<Route>,
}

/// How a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has all its routes.
    Holds,
    /// It has none, because an older workload has one of them.
    Waits {
        /// The route that is taken.
        route: Route,
        /// Who has it, as `namespace/name`.
        holder: Arc<str>,
    },
    /// It has none, because a newer generation of its workload has all of its own.
    Superseded,
}

/// What a claim, or the end of one, has changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Routes that have other holders now; no holders at all means that the route is gone.
    pub routes: Vec<(Route, Vec<Token>)>,
    /// Claims that stand otherwise now, new ones included.
    pub standings: Vec<Token>,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    last: u64,
    claims: BTreeMap<Token, (Claim, Standing)>,
    by_route: HashMap<Route, BTreeSet<Token>>,
    by_workload: HashMap<WorkloadId, BTreeSet<Token>>,
    holders: HashMap<Route, Vec<Token>>,
}

impl Claims {
    /// Adds a claim.
    pub fn insert(&mut self, claim: Claim) -> (Token, Change) {
        self.last += 1;
        let token = Token(self.last);
        for route in &claim.routes {
            self.by_route
                .entry(route.clone())
                .or_default()
                .insert(token);
        }
        self.by_workload
            .entry(claim.workload.clone())
            .or_default()
            .insert(token);
        let routes = claim.routes.clone();
        self.claims.insert(token, (claim, Standing::Superseded));
        let mut change = self.settle([token].into(), routes);
        if !change.standings.contains(&token) {
            change.standings.push(token);
        }
        (token, change)
    }

    /// Ends a claim; nothing happens if it has ended.
    pub fn remove(&mut self, token: Token) -> Change {
        let Some((claim, _)) = self.claims.remove(&token) else {
            return Change::default();
        };
        let mut seeds = BTreeSet::new();
        for route in &claim.routes {
            seeds.extend(take(&mut self.by_route, route, token));
        }
        seeds.extend(take(&mut self.by_workload, &claim.workload, token));
        self.settle(seeds, claim.routes)
    }

    /// How a claim stands; none if it has ended.
    pub fn standing(&self, token: Token) -> Option<&Standing> {
        self.claims.get(&token).map(|(_, standing)| standing)
    }

    /// Decides anew about `seeds` and about all claims that have to do with them, and compares with what was.
    fn settle(&mut self, seeds: BTreeSet<Token>, mut touched: Vec<Route>) -> Change {
        let affected = self.related(seeds);
        let mut change = Change::default();
        for (token, standing) in self.decide(&affected) {
            let Some((claim, old)) = self.claims.get_mut(&token) else {
                continue;
            };
            touched.extend(claim.routes.iter().cloned());
            if *old != standing {
                *old = standing;
                change.standings.push(token);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for route in touched {
            let holders: Vec<Token> = self
                .by_route
                .get(&route)
                .into_iter()
                .flatten()
                .filter(|token| self.standing(**token) == Some(&Standing::Holds))
                .copied()
                .collect();
            if self.holders.get(&route).map_or(&[] as &[_], Vec::as_slice) == holders {
                continue;
            }
            if holders.is_empty() {
                self.holders.remove(&route);
            } else {
                self.holders.insert(route.clone(), holders.clone());
            }
            change.routes.push((route, holders));
        }
        change
    }

    /// All claims that are connected to `seeds` by routes or by workloads.
    fn related(&self, seeds: BTreeSet<Token>) -> BTreeSet<Token> {
        let mut found = seeds.clone();
        let mut next: Vec<Token> = seeds.into_iter().collect();
        while let Some((claim, _)) = next.pop().and_then(|token| self.claims.get(&token)) {
            let by_route = claim
                .routes
                .iter()
                .filter_map(|route| self.by_route.get(route))
                .flatten();
            let by_workload = self.by_workload.get(&claim.workload).into_iter().flatten();
            for token in by_route.chain(by_workload) {
                if found.insert(*token) {
                    next.push(*token);
                }
            }
        }
        found
    }

    /// Applies the rules to claims that have nothing to do with any other.
    fn decide(&self, affected: &BTreeSet<Token>) -> Vec<(Token, Standing)> {
        let mut workloads: BTreeMap<(i64, &WorkloadId), Vec<(Token, &Claim)>> = BTreeMap::new();
        for token in affected {
            if let Some((claim, _)) = self.claims.get(token) {
                workloads
                    .entry((claim.created, &claim.workload))
                    .or_default()
                    .push((*token, claim));
            }
        }
        let mut taken: HashMap<&Route, &Claim> = HashMap::new();
        let mut decided = Vec::with_capacity(affected.len());
        for mut generations in workloads.into_values() {
            generations.sort_unstable_by_key(|(token, _)| Reverse(*token));
            let mut newer_holds = false;
            for (token, claim) in generations {
                let conflict = claim.routes.iter().find_map(|route| {
                    taken
                        .get(route)
                        .filter(|holder| holder.owner != claim.owner)
                        .map(|holder| (route, holder))
                });
                let standing = match conflict {
                    _ if newer_holds => Standing::Superseded,
                    Some((route, holder)) => Standing::Waits {
                        route: route.clone(),
                        holder: holder.name.clone(),
                    },
                    None => {
                        newer_holds = true;
                        for route in &claim.routes {
                            taken.entry(route).or_insert(claim);
                        }
                        Standing::Holds
                    }
                };
                decided.push((token, standing));
            }
        }
        decided
    }
}

/// Removes a token from an index; what is left there.
fn take<K: Eq + std::hash::Hash>(
    index: &mut HashMap<K, BTreeSet<Token>>,
    key: &K,
    token: Token,
) -> BTreeSet<Token> {
    let Some(tokens) = index.get_mut(key) else {
        return BTreeSet::new();
    };
    tokens.remove(&token);
    if tokens.is_empty() {
        index.remove(key);
        return BTreeSet::new();
    }
    tokens.clone()
}
