//! What becomes of a call that may not be made: it is counted, and the first to each destination is told.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use super::{outside::Totals, target::Target};
use crate::{
    plugin::{
        Notices,
        wasi_http::{counters::Counters, counters::count, handler::Label},
    },
    spec::Prohibited,
};

/// The word for it.
const REASON: &str = "EgressDenied";

/// Destinations of a component that are logged once each; beyond, denials are only counted.
const LOGGED: usize = 64;

/// Of these, the ones that are told as notices: fewer than the 25 that the events of a workload may come at once, so that a
/// component cannot use them all up by calling about.
const TOLD: usize = 10;

/// Longest destination that is told, in bytes; a name has at most 253.
const MAX_DESTINATION: usize = 300;

/// The denials of one component.
pub(super) struct Denials {
    pub counters: Arc<Counters>,
    pub totals: Arc<Totals>,
    pub label: Label,
    pub notices: Notices,
    known: Mutex<HashSet<String>>,
}

impl Denials {
    pub fn new(
        counters: Arc<Counters>,
        totals: Arc<Totals>,
        label: Label,
        notices: Notices,
    ) -> Self {
        Self {
            counters,
            totals,
            label,
            notices,
            known: Mutex::default(),
        }
    }

    /// Counts a denial.
    pub fn count(&self) {
        count(&self.counters.denied);
        self.totals.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// No rule allows a destination.
    pub fn denied(&self, target: &Target) {
        self.count();
        let Some((rule, told)) = self.is_new(rule(target)) else {
            return;
        };
        let Label {
            namespace,
            workload,
            component,
        } = &self.label;
        tracing::warn!(
            %namespace, %workload, %component, rule,
            "outgoing request denied; if it is wanted, add the rule to the component's allowedHosts"
        );
        if told {
            let message = format!(
                "component \"{component}\" may not call {rule}; if it should, add `{rule}` to its \
                 localResources.allowedHosts"
            );
            self.notices.tell(REASON, message);
        }
    }

    /// A destination is allowed, but leads only to addresses that are not.
    pub fn prohibited(&self, target: &Target, address: IpAddr, why: &Prohibited) {
        count(&self.counters.prohibited);
        self.totals.prohibited.fetch_add(1, Ordering::Relaxed);
        let Some((destination, told)) = self.is_new(rule(target)) else {
            return;
        };
        let opened = SocketAddr::new(address.to_canonical(), target.port);
        let why = match why {
            Prohibited::Range(range) => format!(
                "{address} is among the {range}, which no name and no `*` allows; if it should, add `{}://{opened}` to its \
                 localResources.allowedHosts",
                target.scheme()
            ),
            Prohibited::Network(network) => format!(
                "{address} is in the network `{network}`, which this host blocks for all components (--block-network)"
            ),
        };
        let Label {
            namespace,
            workload,
            component,
        } = &self.label;
        tracing::warn!(%namespace, %workload, %component, destination, %address, why, "outgoing connection denied");
        if told {
            let message = format!("component \"{component}\" may not call {destination}: {why}");
            self.notices.tell(REASON, message);
        }
    }

    /// The destination if it was not told before, and whether it is told to more than the log.
    fn is_new(&self, destination: String) -> Option<(String, bool)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.len() < LOGGED && known.insert(destination.clone());
        new.then(|| (destination, known.len() <= TOLD))
    }
}

/// The rule that would allow a destination.
fn rule(target: &Target) -> String {
    let mut rule = format!("{}://{}:{}", target.scheme(), target.host, target.port);
    rule.truncate(rule.floor_char_boundary(MAX_DESTINATION));
    rule
}
