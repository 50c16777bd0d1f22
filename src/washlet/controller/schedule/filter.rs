//! Which hosts come into question for a workload, and why the others do not.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use semver::Version;

use super::{
    Condition, Host, Labels, Need, Workload,
    bits::Bits,
    board::Board,
    message::{self, Shortage},
};

/// All that a workload asks of a host but memory. Workloads mostly come in few kinds of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Requirements<'a> {
    selector: &'a Labels,
    environment: Option<&'a str>,
    needs: &'a [Need<'a>],
}

/// The first of the requirements that a host does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal<'a> {
    Cordoned,
    NotReady(&'a str),
    Unproven,
    Lost,
    Environment(&'a str),
    Selector(&'a str, &'a str),
    Package(&'a str, &'a str),
    Interface(&'a Need<'a>, &'a str),
}

/// The answers to requirements that were asked for before.
pub(super) struct Shapes<'a> {
    hosts: &'a [Host<'a>],
    known: HashMap<Requirements<'a>, Shape<'a>>,
}

/// The answer to requirements.
pub(super) struct Shape<'a> {
    wanted: Requirements<'a>,
    feasible: Bits,
    /// By the memory that was wanted. As places are only taken, what did not fit once does not fit later in the same run.
    refused: HashMap<u64, Arc<str>>,
}

impl<'a> Requirements<'a> {
    pub fn of(workload: &'a Workload<'_>) -> Self {
        Self {
            selector: workload.selector,
            environment: workload.environment.filter(|word| !word.is_empty()),
            needs: &workload.needs,
        }
    }

    /// Why a host is out of the question, memory apart; none if it is not.
    pub fn refused_by(self, host: &'a Host<'_>) -> Option<Refusal<'a>> {
        match host.condition {
            Condition::Ready => {}
            Condition::Cordoned => return Some(Refusal::Cordoned),
            Condition::NotReady(why) => return Some(Refusal::NotReady(why)),
            Condition::Unproven => return Some(Refusal::Unproven),
            Condition::Lost { .. } => return Some(Refusal::Lost),
        }
        if let Some(wanted) = self.environment
            && host.environment != Some(wanted)
        {
            return Some(Refusal::Environment(wanted));
        }
        let missing = |(key, value): &(&'a String, &'a String)| label(host, key) != Some(value);
        if let Some((key, value)) = self.selector.iter().find(missing) {
            return Some(Refusal::Selector(key, value));
        }
        self.needs.iter().find_map(|need| lack(host, need))
    }
}

/// Labels that only an administrator gives a Node: no kubelet, and so no agent either.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// A label of the Node, or if it has none of the name, of the Host object, which its agent writes.
fn label<'h>(host: &Host<'h>, key: &str) -> Option<&'h str> {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let own = host.own_labels.filter(|_| !domain.ends_with(RESTRICTED));
    [host.node_labels, own]
        .into_iter()
        .flatten()
        .find_map(|labels| labels.get(key))
        .map(String::as_str)
}

/// The first part of a need that a host does not offer: the rule by which its agent would refuse the workload.
fn lack<'a>(host: &Host<'_>, need: &'a Need<'a>) -> Option<Refusal<'a>> {
    let mut offered = host
        .interfaces
        .iter()
        .filter(|id| id.namespace == need.namespace && id.package == need.package)
        .peekable();
    if offered.peek().is_none() {
        return Some(Refusal::Package(need.namespace, need.package));
    }
    let offered: Vec<_> = offered.collect();
    let missing = |interface: &&String| {
        let version: Option<&Version> = need.version.as_ref();
        !offered.iter().any(|id| id.meant_by(interface, version))
    };
    let interface = need.interfaces.iter().find(missing)?;
    Some(Refusal::Interface(need, interface))
}

impl<'a> Shapes<'a> {
    pub fn new(hosts: &'a [Host<'a>]) -> Self {
        Self {
            hosts,
            known: HashMap::new(),
        }
    }

    pub fn of(&mut self, workload: &'a Workload<'_>) -> &mut Shape<'a> {
        let wanted = Requirements::of(workload);
        match self.known.entry(wanted) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let meets = |host: &Host<'_>| wanted.refused_by(host).is_none();
                let mut hosts = self.hosts.iter();
                let feasible = Bits::those(self.hosts.len(), |_| hosts.next().is_some_and(meets));
                new.insert(Shape {
                    wanted,
                    feasible,
                    refused: HashMap::new(),
                })
            }
        }
    }
}

impl<'a> Shape<'a> {
    /// The hosts that meet the requirements, whatever memory they have.
    pub fn feasible(&self) -> &Bits {
        &self.feasible
    }

    /// Says why there is no place for a workload with so much memory.
    pub fn refuse(&mut self, memory: u64, hosts: &'a [Host<'a>], board: &Board<'_>) -> Arc<str> {
        let (wanted, feasible) = (self.wanted, &self.feasible);
        let text = self.refused.entry(memory).or_insert_with(|| {
            let shortage = Shortage {
                hosts: feasible.iter().count(),
                wanted: memory,
                free: board.most_free(feasible),
            };
            let refusals = hosts.iter().filter_map(|host| wanted.refused_by(host));
            message::nowhere(hosts.len(), refusals, shortage).into()
        });
        text.clone()
    }
}
