//! Claims by route and by workload.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{Claim, Token};
use crate::{plugin::wasi_http::route::Route, spec::WorkloadId};

/// Who wants what.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_route: HashMap<Route, Wanted>,
    by_workload: HashMap<WorkloadId, BTreeSet<Token>>,
}

/// Who wants a route.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub tokens: BTreeSet<Token>,
    /// How many claims each owner has.
    owners: BTreeMap<Arc<str>, usize>,
    /// How many of the claims are leaving.
    pub leaving: usize,
}

impl Wanted {
    /// Whether only replicas of one owner want it.
    pub fn is_of_one_owner(&self) -> bool {
        self.owners.len() == 1
    }
}

impl Index {
    pub fn add(&mut self, token: Token, claim: &Claim, leaving: bool) {
        for route in &claim.routes {
            let wanted = self.by_route.entry(route.clone()).or_default();
            if wanted.tokens.insert(token) {
                *wanted.owners.entry(claim.owner.clone()).or_default() += 1;
                wanted.leaving += usize::from(leaving);
            }
        }
        let generations = self.by_workload.entry(claim.workload.clone());
        generations.or_default().insert(token);
    }

    pub fn remove(&mut self, token: Token, claim: &Claim, leaving: bool) {
        for route in &claim.routes {
            let Some(wanted) = self.by_route.get_mut(route) else {
                continue;
            };
            if wanted.tokens.remove(&token) {
                wanted.leaving -= usize::from(leaving);
                if let Some(count) = wanted.owners.get_mut(&claim.owner) {
                    *count -= 1;
                    if *count == 0 {
                        wanted.owners.remove(&claim.owner);
                    }
                }
            }
            if wanted.tokens.is_empty() {
                self.by_route.remove(route);
            }
        }
        if let Some(generations) = self.by_workload.get_mut(&claim.workload) {
            generations.remove(&token);
            if generations.is_empty() {
                self.by_workload.remove(&claim.workload);
            }
        }
    }

    /// A claim that is there is leaving from now on.
    pub fn leave(&mut self, claim: &Claim) {
        let routes: HashSet<&Route> = claim.routes.iter().collect();
        for route in routes {
            if let Some(wanted) = self.by_route.get_mut(route) {
                wanted.leaving += 1;
            }
        }
    }

    /// Who wants a route, if anybody does.
    pub fn wanted(&self, route: &Route) -> Option<&Wanted> {
        self.by_route.get(route)
    }

    /// The claims on a route.
    pub fn on(&self, route: &Route) -> impl Iterator<Item = Token> {
        let wanted = self.by_route.get(route).into_iter();
        wanted.flat_map(|wanted| wanted.tokens.iter().copied())
    }

    /// The claims of a workload.
    pub fn of(&self, workload: &WorkloadId) -> impl Iterator<Item = Token> {
        let generations = self.by_workload.get(workload).into_iter();
        generations.flatten().copied()
    }

    /// All claims that are connected to `seeds` by routes or by workloads: each route and each workload is visited once.
    pub fn related<'a>(
        &self,
        seeds: BTreeSet<Token>,
        claim: impl Fn(Token) -> Option<&'a Claim>,
    ) -> BTreeSet<Token> {
        let mut next: Vec<Token> = seeds.iter().copied().collect();
        let mut found = seeds;
        let (mut routes, mut workloads) = (HashSet::new(), HashSet::new());
        while let Some(token) = next.pop() {
            let Some(claim) = claim(token) else { continue };
            let mut meet = |token| {
                if found.insert(token) {
                    next.push(token);
                }
            };
            for route in &claim.routes {
                if routes.insert(route) {
                    self.on(route).for_each(&mut meet);
                }
            }
            if workloads.insert(&claim.workload) {
                self.of(&claim.workload).for_each(&mut meet);
            }
        }
        found
    }
}
