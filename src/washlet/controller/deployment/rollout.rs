//! The arithmetic of a rollout: how large each set shall be next. Pure; it is that of Kubernetes' own Deployment, step by step.
//!
//! In one thing it is stricter: a set counts with the Workloads that it has where those are more than it should have, so that a
//! set that shrinks slowly never makes the sum exceed `replicas` and surge.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::washlet::api::{WorkloadDeploymentSpec, annotation};

/// Surge and unavailability by default.
const SHARE: i64 = 25;
/// How soon to look whether the last former Workload has ended, which nobody tells.
const LOOK: Duration = Duration::from_secs(1);

/// Between what a rollout has to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    pub replicas: i32,
    /// How many there may be beyond that.
    pub surge: i32,
    /// How many of them may be unavailable.
    pub unavailable: i32,
    /// All former Workloads end before the first new one begins.
    pub recreate: bool,
}

/// A set as the arithmetic sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// How many Workloads it should have.
    pub size: i32,
    /// How many it has, without those that are being deleted.
    pub live: i32,
    /// How many it has, with those.
    pub existing: i32,
    pub available: i32,
    /// `replicas` of the deployment when the set was last scaled.
    pub desired: Option<i32>,
    /// The same with its surge.
    pub limit: Option<i32>,
}

/// What comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The size of each set.
    pub sizes: Vec<i32>,
    /// The size of a new set for the newest revision, if one is to be made.
    pub create: Option<i32>,
    pub again: Option<Duration>,
}

// === impl Limits ===

impl Limits {
    pub fn of(spec: &WorkloadDeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let recreate = spec.deploy_policy.as_deref() == Some("Recreate");
        let surge = resolved(spec.max_surge.as_ref(), replicas, true);
        let unavailable = resolved(spec.max_unavailable.as_ref(), replicas, false).min(replicas);
        let (surge, unavailable) = match (surge, unavailable) {
            _ if recreate => (0, 0),
            // A share may come to nothing; something has to give way for anything to move.
            (0, 0) => (0, 1.min(replicas)),
            both => both,
        };
        Self {
            replicas,
            surge,
            unavailable,
            recreate,
        }
    }

    /// Most Workloads at any time.
    pub fn most(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// Fewest available ones.
    pub fn fewest(&self) -> i32 {
        self.replicas - self.unavailable
    }

    /// What a set remembers of them, so that it is seen when they change.
    pub fn annotations(&self) -> [(&'static str, String); 2] {
        [
            (annotation::DESIRED_REPLICAS, self.replicas.to_string()),
            (annotation::MAX_REPLICAS, self.most().to_string()),
        ]
    }
}

/// A number, or a share of `replicas`. What is neither is refused by the API server, and is the default here.
fn resolved(value: Option<&IntOrString>, replicas: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok())
        }
        None => None,
    };
    let product = percent
        .unwrap_or(SHARE)
        .max(0)
        .saturating_mul(i64::from(replicas));
    let share = if up {
        product.saturating_add(99) / 100
    } else {
        product / 100
    };
    i32::try_from(share).unwrap_or(i32::MAX)
}

// === impl Plan ===

impl Plan {
    /// Everything stays as it is.
    pub fn keep(sets: &[Size]) -> Self {
        Self {
            sizes: sets.iter().map(|set| set.size).collect(),
            ..Self::default()
        }
    }

    fn resize(&mut self, index: usize, size: i32) {
        if let Some(entry) = self.sizes.get_mut(index) {
            *entry = size;
        }
    }
}

// === Rolling out ===

/// The next step towards the newest revision, whose set is `new`, if there is one. `sets` are the oldest first.
pub(super) fn roll(sets: &[Size], new: Option<usize>, limits: &Limits) -> Plan {
    if limits.recreate {
        return recreate(sets, new, limits);
    }
    let mut plan = Plan::keep(sets);
    let Some((index, newest)) = new.and_then(|index| Some((index, sets.get(index)?))) else {
        plan.create = Some(grown(sets, 0, limits));
        return plan;
    };
    let size = if newest.size > limits.replicas {
        limits.replicas
    } else {
        grown(sets, newest.size, limits)
    };
    // One step at a time: what the others may lose depends on what has become of this one.
    if size != newest.size {
        plan.resize(index, size);
    } else {
        shrink(sets, index, limits, &mut plan);
    }
    plan
}

/// The size that the newest set may grow to.
fn grown(sets: &[Size], size: i32, limits: &Limits) -> i32 {
    let total: i32 = sets.iter().map(|set| set.size.max(set.live)).sum();
    let room = limits.most().saturating_sub(total).max(0);
    size + room.min((limits.replicas - size).max(0))
}

/// Takes from the former sets what the newest one makes up for: first what is not available anyway, then the oldest.
fn shrink(sets: &[Size], new: usize, limits: &Limits, plan: &mut Plan) {
    // No more than it should have: what is more is about to go.
    let available = |set: &Size| set.available.min(set.size);
    let former = || {
        sets.iter()
            .enumerate()
            .filter(|(index, set)| *index != new && set.size > 0)
    };
    let Some(newest) = sets.get(new) else { return };
    let total: i32 = sets.iter().map(|set| set.size).sum();
    let missing = newest.size - available(newest);
    let mut spare = total - limits.fewest() - missing;
    if spare <= 0 {
        return;
    }
    for (index, set) in former() {
        let taken = (set.size - available(set)).min(spare);
        plan.resize(index, set.size - taken);
        spare -= taken;
    }
    let serving: i32 = sets.iter().map(available).sum();
    let mut spare = (serving - limits.fewest()).max(0);
    for (index, _) in former() {
        let size = plan.sizes.get(index).copied().unwrap_or_default();
        let taken = size.min(spare);
        plan.resize(index, size - taken);
        spare -= taken;
    }
}

fn recreate(sets: &[Size], new: Option<usize>, limits: &Limits) -> Plan {
    let mut plan = Plan::keep(sets);
    let former = || {
        sets.iter()
            .enumerate()
            .filter(|(index, _)| new != Some(*index))
    };
    for (index, _) in former() {
        plan.resize(index, 0);
    }
    if former().any(|(_, set)| set.size > 0 || set.existing > 0) {
        plan.again = Some(LOOK);
        return plan;
    }
    match new {
        Some(index) => plan.resize(index, limits.replicas),
        None => plan.create = Some(limits.replicas),
    }
    plan
}

// === Scaling ===

/// Whether `replicas` changed since the sets got their sizes.
pub(super) fn is_scaled(sets: &[Size], limits: &Limits) -> bool {
    let active = sets.iter().filter(|set| set.size > 0);
    active
        .filter_map(|set| set.desired)
        .any(|desired| desired != limits.replicas)
}

/// Brings the sets to a new `replicas`, without bringing the rollout forward: the only one that has Workloads, or all in
/// proportion.
pub(super) fn scale(sets: &[Size], new: Option<usize>, limits: &Limits) -> Plan {
    let mut plan = Plan::keep(sets);
    let active: Vec<usize> = (0..sets.len())
        .filter(|i| sets.get(*i).is_some_and(|set| set.size > 0))
        .collect();
    let newest = new.and_then(|index| sets.get(index));
    let is_saturated = newest.is_some_and(|newest| {
        let r = limits.replicas;
        newest.size == r && newest.desired == Some(r) && newest.available == r
    });
    match active.as_slice() {
        [] => {
            if let Some(index) = new.or(sets.len().checked_sub(1)) {
                plan.resize(index, limits.replicas);
            }
        }
        [only] => plan.resize(*only, limits.replicas),
        several if is_saturated => {
            for index in several.iter().filter(|index| new != Some(**index)) {
                plan.resize(*index, 0);
            }
        }
        several if !limits.recreate => proportionally(sets, several, limits, &mut plan),
        _ => {}
    }
    plan
}

/// Gives each set the share of the difference that it has of the whole, and the rest to the largest.
fn proportionally(sets: &[Size], active: &[usize], limits: &Limits, plan: &mut Plan) {
    let size = |index: &usize| sets.get(*index).map_or(0, |set| set.size);
    let total: i32 = active.iter().map(size).sum();
    let allowed = if limits.replicas > 0 {
        limits.most()
    } else {
        0
    };
    let to_add = allowed - total;
    if to_add == 0 {
        return;
    }
    // The largest first; of equal ones the newer one grows first, and the older one shrinks first.
    let mut order = active.to_vec();
    if to_add > 0 {
        order.reverse();
    }
    order.sort_by_key(|index| std::cmp::Reverse(size(index)));
    let mut added = 0;
    for index in &order {
        let Some(set) = sets.get(*index) else {
            continue;
        };
        let (share, left) = (share(set, total, limits), to_add - added);
        let part = if to_add > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        plan.resize(*index, set.size + part);
        added += part;
    }
    if let Some(first) = order.first() {
        let has = plan.sizes.get(*first).copied().unwrap_or_default();
        plan.resize(*first, (has + to_add - added).max(0));
    }
}

/// By how much a set would change if all kept their proportions.
fn share(set: &Size, total: i32, limits: &Limits) -> i32 {
    if limits.replicas == 0 {
        return -set.size;
    }
    let before = set.limit.filter(|limit| *limit > 0).unwrap_or(total).max(1);
    let exact = f64::from(set.size) * f64::from(limits.most()) / f64::from(before);
    // Both factors are numbers of Workloads, so this is far below where the cast would cut it.
    exact.round() as i32 - set.size
}
