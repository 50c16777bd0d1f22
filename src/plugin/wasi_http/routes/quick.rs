//! Changes that matter to nobody else, decided without looking at the other claims: above all replicas of one owner on routes
//! that nobody else wants. None of these functions gives an answer where the rules have to be applied.
//!
//! They rest on two facts. A claim that does not hold its routes has no influence on any other. And who leaves has a route only
//! while nobody who stays has it, alone.

use super::{Change, Claims, Standing, Token};
use crate::plugin::wasi_http::route::Route;

impl Claims {
    /// A claim was added.
    pub(super) fn quick_insert(&mut self, token: Token) -> Option<Change> {
        let (claim, _) = self.claims.get(&token)?;
        let generations: Vec<Token> = self.index.of(&claim.workload).collect();
        for generation in &generations {
            if self.is_leaving(*generation) || !self.is_undisputed(*generation, true)? {
                return None;
            }
        }
        // The newest has all that it wants, and the older ones have nothing.
        let mut moves = Vec::new();
        for generation in generations {
            let (_, standing) = self.claims.get_mut(&generation)?;
            let now = if generation == token {
                Standing::Holds
            } else {
                Standing::Superseded
            };
            let held = *standing == Standing::Holds;
            if *standing != now {
                *standing = now;
                moves.push((generation, !held));
            }
        }
        Some(self.moved(&moves))
    }

    /// A claim begins to leave; it is not listed so yet.
    pub(super) fn quick_leave(&mut self, token: Token) -> Option<Change> {
        let (claim, standing) = self.claims.get(&token)?;
        let held = *standing == Standing::Holds;
        if held {
            let alone = self.index.of(&claim.workload).nth(1).is_none();
            let others = |route| self.holders.get(route).is_some_and(|all| all.len() > 1);
            let replaced = !claim.routes.is_empty() && claim.routes.iter().all(others);
            if !alone || !replaced || !self.is_undisputed(token, false)? {
                return None;
            }
        } else {
            // Somebody who stays has what it wants.
            let stays = |route: &Route| self.holders.get(route)?.first().copied();
            let mut holders = claim.routes.iter().filter_map(stays);
            if !holders.any(|holder| !self.is_leaving(holder)) {
                return None;
            }
        }
        let (_, standing) = self.claims.get_mut(&token)?;
        let changed = std::mem::replace(standing, Standing::Superseded) != Standing::Superseded;
        if held {
            return Some(self.moved(&[(token, false)]));
        }
        Some(Change {
            routes: Vec::new(),
            standings: changed.then_some(token).into_iter().collect(),
        })
    }

    /// A claim is to end; it is still there.
    pub(super) fn quick_remove(&mut self, token: Token) -> Option<Change> {
        let (claim, standing) = self.claims.get(&token)?;
        if *standing != Standing::Holds {
            return Some(Change::default());
        }
        let wanted = |route| self.index.wanted(route);
        let nobody_gains = if self.is_leaving(token) {
            let only = |route| wanted(route).is_some_and(|wanted| wanted.leaving == 1);
            claim.routes.iter().all(only)
        } else {
            let kept = |route| {
                let others = self.holders.get(route).is_some_and(|all| all.len() > 1);
                others || wanted(route).is_some_and(|wanted| wanted.leaving == 0)
            };
            self.index.of(&claim.workload).nth(1).is_none()
                && self.is_undisputed(token, false)?
                && claim.routes.iter().all(kept)
        };
        nobody_gains.then(|| Change {
            standings: Vec::new(),
            ..self.moved(&[(token, false)])
        })
    }

    /// Whether only replicas of a claim's owner want its routes; if `stays`, none of which is leaving.
    fn is_undisputed(&self, token: Token, stays: bool) -> Option<bool> {
        let (claim, _) = self.claims.get(&token)?;
        Some(claim.routes.iter().all(|route| {
            self.index
                .wanted(route)
                .is_some_and(|w| w.is_of_one_owner() && !(stays && w.leaving > 0))
        }))
    }

    /// Gives these claims their routes, or takes these from them; all others keep theirs.
    fn moved(&mut self, moves: &[(Token, bool)]) -> Change {
        let mut touched = Vec::new();
        for (token, holds) in moves {
            let Some((claim, _)) = self.claims.get(token) else {
                continue;
            };
            for route in &claim.routes {
                let all = self.holders.entry(route.clone()).or_default();
                match (all.binary_search(token), *holds) {
                    (Err(at), true) => all.insert(at, *token),
                    (Ok(at), false) => drop(all.remove(at)),
                    _ => {}
                }
                touched.push(route.clone());
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let routes = touched.into_iter().map(|route| {
            let all = self.holders.get(&route).cloned().unwrap_or_default();
            if all.is_empty() {
                self.holders.remove(&route);
            }
            (route, all)
        });
        Change {
            routes: routes.collect(),
            standings: moves.iter().map(|(token, _)| *token).collect(),
        }
    }
}
