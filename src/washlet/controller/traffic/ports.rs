//! One port for each Service that workloads name.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use super::super::{super::api::SERVICE_PORTS, world::Id};

/// The ports that are given out, by Service.
#[derive(Debug, Default)]
pub(in super::super) struct Ports {
    of: BTreeMap<Id, u16>,
    taken: HashMap<u16, Id>,
}

impl Ports {
    /// The ports that agents open for Services.
    pub const RANGE: RangeInclusive<u16> = SERVICE_PORTS;

    /// Takes up a port that was given out earlier; nothing happens if another Service has it, or this one has another.
    pub fn restore(&mut self, service: &Id, port: u16) {
        if Self::RANGE.contains(&port)
            && !self.taken.contains_key(&port)
            && !self.of.contains_key(service)
        {
            self.of.insert(service.clone(), port);
            self.taken.insert(port, service.clone());
        }
    }

    /// The port of a Service, given to it now if it has none. None when all are taken.
    ///
    /// The same name gets the same port wherever that is free, so that a Service that goes and comes back finds it again.
    pub fn of(&mut self, service: &Id) -> Option<u16> {
        if let Some(port) = self.of.get(service) {
            return Some(*port);
        }
        let (first, count) = (*Self::RANGE.start(), Self::RANGE.len());
        let begin = usize::try_from(hash(service) % u64::try_from(count).ok()?).ok()?;
        let port = (0..count)
            .filter_map(|step| u16::try_from((begin + step) % count).ok())
            .map(|offset| first + offset)
            .find(|port| !self.taken.contains_key(port))?;
        self.restore(service, port);
        Some(port)
    }

    /// The port of a Service, if it has one.
    pub fn known(&self, service: &Id) -> Option<u16> {
        self.of.get(service).copied()
    }

    /// Takes a port back.
    pub fn release(&mut self, service: &Id) {
        if let Some(port) = self.of.remove(service) {
            self.taken.remove(&port);
        }
    }
}

/// FNV-1a.
fn hash(service: &Id) -> u64 {
    let bytes = service
        .namespace
        .bytes()
        .chain([b'/'])
        .chain(service.name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
