//! Who has which route: a pure function of who claims what, kept up to date claim by claim.
//!
//! # Rules
//! - A claim asks for several routes and gets all of them or none.
//! - The older workload comes first; a younger one gets what is left. Of those of one second, for objects have no finer clock, it
//!   is the first by `namespace/name`, as with the routes of the Gateway API: everybody can see who that is.
//! - Workloads of one owner (replicas) share a route.
//! - Of the generations of one workload, the newest that can have all its routes has them; older ones then have none, and it is
//!   no fault of theirs.
//! - One that is leaving has what nobody else wants.
//!
//! Not here: requests, and telling anybody. A change is returned as data.

mod index;
mod quick;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use self::index::Index;
use super::route::Route;
use crate::spec::WorkloadId;

/// Names a claim. A later claim has a greater token, by which the generations of a workload are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token(u64);

#[cfg(test)]
impl Token {
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// What one generation of a workload wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub workload: WorkloadId,
    pub created: i64,
    pub owner: Arc<str>,
    /// `namespace/name`, for messages and ties.
    pub name: Arc<str>,
    pub routes: Vec<Route>,
}

/// How a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has all its routes.
    Holds,
    /// It has none, because an older workload has one of them.
    Waits {
        /// The route that is taken.
        route: Route,
        /// Who has it, as `namespace/name`.
        holder: Arc<str>,
    },
    /// It has none, because a newer generation of its workload has all of its own; or it is leaving, and somebody has taken
    /// its place.
    Superseded,
}

/// What a claim, or the end of one, has changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Routes that have other holders now; no holders at all means that the route is gone.
    pub routes: Vec<(Route, Vec<Token>)>,
    /// Claims that stand otherwise now, new ones included.
    pub standings: Vec<Token>,
}

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    last: u64,
    claims: BTreeMap<Token, (Claim, Standing)>,
    leaving: BTreeSet<Token>,
    index: Index,
    /// Who has each route, in the order of the tokens.
    holders: HashMap<Route, Vec<Token>>,
}

impl Claims {
    /// Adds a claim.
    pub fn insert(&mut self, claim: Claim) -> (Token, Change) {
        self.last += 1;
        let token = Token(self.last);
        self.index.add(token, &claim, false);
        let routes = claim.routes.clone();
        self.claims.insert(token, (claim, Standing::Superseded));
        let mut change = match self.quick_insert(token) {
            Some(change) => change,
            None => self.settle([token].into(), routes),
        };
        if !change.standings.contains(&token) {
            change.standings.push(token);
        }
        (token, change)
    }

    /// Gives a claim other routes; nothing happens if it has ended.
    pub fn update(&mut self, token: Token, routes: Vec<Route>) -> Change {
        let leaving = self.is_leaving(token);
        let Some((claim, _)) = self.claims.get_mut(&token) else {
            return Change::default();
        };
        self.index.remove(token, claim, leaving);
        let mut touched = routes.clone();
        let former = std::mem::replace(&mut claim.routes, routes);
        self.index.add(token, claim, leaving);
        let mut seeds = BTreeSet::from([token]);
        for route in &former {
            seeds.extend(self.index.on(route));
        }
        touched.extend(former);
        self.settle(seeds, touched)
    }

    /// Lets everybody else come before this claim, until it ends.
    pub fn leave(&mut self, token: Token) -> Change {
        if self.is_leaving(token) {
            return Change::default();
        }
        let change = self.quick_leave(token);
        let Some((claim, _)) = self.claims.get(&token) else {
            return Change::default();
        };
        self.leaving.insert(token);
        self.index.leave(claim);
        let routes = claim.routes.clone();
        change.unwrap_or_else(|| self.settle([token].into(), routes))
    }

    /// Whether a claim is leaving.
    pub fn is_leaving(&self, token: Token) -> bool {
        self.leaving.contains(&token)
    }

    /// Ends a claim; nothing happens if it has ended.
    pub fn remove(&mut self, token: Token) -> Change {
        let change = self.quick_remove(token);
        let Some((claim, _)) = self.claims.remove(&token) else {
            return Change::default();
        };
        let leaving = self.leaving.remove(&token);
        self.index.remove(token, &claim, leaving);
        if let Some(change) = change {
            return change;
        }
        let mut seeds: BTreeSet<Token> = self.index.of(&claim.workload).collect();
        for route in &claim.routes {
            seeds.extend(self.index.on(route));
        }
        self.settle(seeds, claim.routes)
    }

    /// How a claim stands; none if it has ended.
    pub fn standing(&self, token: Token) -> Option<&Standing> {
        self.claims.get(&token).map(|(_, standing)| standing)
    }

    /// Decides anew about `seeds` and about all claims that have to do with them, and compares with what was.
    fn settle(&mut self, seeds: BTreeSet<Token>, mut touched: Vec<Route>) -> Change {
        let claim = |token| self.claims.get(&token).map(|(claim, _)| claim);
        let affected = self.index.related(seeds, claim);
        let mut change = Change::default();
        for (token, standing) in self.decide(&affected) {
            let Some((claim, old)) = self.claims.get_mut(&token) else {
                continue;
            };
            if *old != standing {
                touched.extend(claim.routes.iter().cloned());
                *old = standing;
                change.standings.push(token);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for route in touched {
            let holds = |token: &Token| self.standing(*token) == Some(&Standing::Holds);
            let holders: Vec<Token> = self.index.on(&route).filter(holds).collect();
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

    /// Applies the rules to claims that have nothing to do with any other.
    fn decide(&self, affected: &BTreeSet<Token>) -> Vec<(Token, Standing)> {
        let mut workloads: BTreeMap<_, Vec<(Token, &Claim)>> = BTreeMap::new();
        let mut leaving = Vec::new();
        for token in affected {
            if let Some((claim, _)) = self.claims.get(token) {
                if self.is_leaving(*token) {
                    leaving.push((*token, claim));
                    continue;
                }
                workloads
                    .entry((claim.created, &claim.name, &claim.workload))
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
        for (token, claim) in leaving {
            let free = !claim.routes.iter().any(|route| taken.contains_key(route));
            if free {
                taken.extend(claim.routes.iter().map(|route| (route, claim)));
            }
            let standing = if free {
                Standing::Holds
            } else {
                Standing::Superseded
            };
            decided.push((token, standing));
        }
        decided
    }
}
