//! `wasi:sockets`, with a loopback for each workload and nothing else unless it is granted.
//!
//! TCP and UDP are this module's own: what stays within a workload never becomes a socket of the machine, so that no other
//! workload and no other process can reach it, and two workloads can listen on one port. What leaves the host is a socket of the
//! machine: for TCP one that has been connected, for UDP one that receives from those that it has sent to. Nothing is ever bound
//! to a port of the machine that a guest chose, nor listened on.
//!
//! The host functions of both versions of WASI are those of `wasmtime-wasi`'s bindings, with sockets of this module in the
//! place of that crate's. A component that imports no sockets has none of it, and an instance that makes none pays nothing.

mod awaited;
mod inbox;
mod lookup;
mod loopback;
mod p2;
mod p3;
mod pipe;
mod policy;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasData, Linker, ResourceTable};

use super::super::{
    ComponentFacts, MAX_APART, StoreState,
    apart::{self, at_each_place},
};
use crate::spec;
use loopback::Loopback;
use policy::Denials;

/// Sockets that a workload may have at a time, over all its instances.
const MAX_SOCKETS: usize = 512;

/// Connections of a workload that leave the host at a time, and sockets of UDP that do; each is a file of the agent.
const MAX_OUTSIDE: usize = 128;

/// Lookups of a workload at a time; each may hold a thread.
const MAX_LOOKUPS: usize = 8;

/// Addresses of which an instance remembers the names.
const MAX_NAMES: usize = 64;

/// What a component is in its workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It is called: it may connect and send, and not listen.
    #[default]
    Component,
    /// It runs for as long as the workload: it may listen on the workload's loopback.
    Service,
}

/// The network of one generation of a workload, shared by its components: its loopback, and what it may have open.
#[derive(Clone)]
pub struct Network {
    loopback: Arc<Loopback>,
    sockets: Arc<Semaphore>,
    outside: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// Networks that no component of the host may connect to.
    blocked: Arc<[spec::BlockedNetwork]>,
}

/// What one component may do with sockets.
pub(in crate::plugin) struct Grants {
    role: Role,
    network: Network,
    allowed_hosts: Vec<spec::AllowedHost>,
    allowed_names: Vec<spec::AllowedName>,
    loopback_ports: Vec<spec::LoopbackPort>,
    denials: Denials,
    count_denial: Box<dyn Fn() + Send + Sync>,
}

/// What an instance knows; empty until it looks something up.
#[derive(Default)]
pub(in crate::plugin) struct Instance {
    /// Oldest first.
    names: VecDeque<Known>,
}

/// A name by which an address was found.
struct Known {
    address: IpAddr,
    name: Arc<str>,
    /// By whom: what one part of a composition looks up is nothing to another one.
    by: Arc<Grants>,
}

/// What the host functions work on.
pub(in crate::plugin) struct View<'a> {
    pub grants: &'a Arc<Grants>,
    pub instance: &'a mut Instance,
    pub table: &'a mut ResourceTable,
}

/// Says to Wasmtime that the host functions work on a [`View`].
pub(in crate::plugin) struct Sockets;

impl HasData for Sockets {
    type Data<'a> = View<'a>;
}

impl Default for Network {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Network {
    /// A network of which nothing leads to these other networks, whatever a component was granted.
    #[must_use]
    pub fn new(blocked: Arc<[spec::BlockedNetwork]>) -> Self {
        Self {
            loopback: Arc::default(),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            outside: Arc::new(Semaphore::new(MAX_OUTSIDE)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            blocked,
        }
    }

    /// Room for one more socket, if there is any.
    fn socket(&self) -> Option<OwnedSemaphorePermit> {
        self.sockets.clone().try_acquire_owned().ok()
    }

    /// Room for one more connection to the outside, if there is any.
    fn outside(&self) -> Option<OwnedSemaphorePermit> {
        self.outside.clone().try_acquire_owned().ok()
    }
}

impl Grants {
    /// What a component of a workload may do. `count_denial` is called for all that it tries beyond.
    pub fn new(
        network: &Network,
        role: Role,
        workload: &spec::Workload,
        component: &spec::Component,
        count_denial: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        if role == Role::Service {
            network.loopback.expect_service();
        }
        Self {
            role,
            network: network.clone(),
            allowed_hosts: component.allowed_hosts.clone(),
            allowed_names: component.allowed_names.clone(),
            loopback_ports: component.loopback_ports.clone(),
            denials: Denials::new(workload, component),
            count_denial,
        }
    }

    /// The same without any.
    pub fn nothing(&self) -> Self {
        Self {
            role: Role::Component,
            network: self.network.clone(),
            allowed_hosts: Vec::new(),
            allowed_names: Vec::new(),
            loopback_ports: Vec::new(),
            denials: self.denials.again(),
            count_denial: Box::new(|| ()),
        }
    }
}

impl Instance {
    /// Remembers what a lookup of a component found.
    fn learn(&mut self, by: &Arc<Grants>, name: &str, addresses: &[IpAddr]) {
        let name: Arc<str> = name.into();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            if self.names_of(by, address).any(|known| *known == *name) {
                continue;
            }
            let mut own = self.names.iter().enumerate();
            let mut own = own.by_ref().filter(|(_, known)| Arc::ptr_eq(&known.by, by));
            let oldest = own.next().map(|(index, _)| index);
            if let Some(oldest) = oldest.filter(|_| own.count() + 1 >= MAX_NAMES) {
                self.names.remove(oldest);
            }
            self.names.push_back(Known {
                address,
                name: name.clone(),
                by: by.clone(),
            });
        }
    }

    /// The names by which a component found an address.
    fn names_of<'a>(&'a self, by: &'a Grants, address: IpAddr) -> impl Iterator<Item = &'a str> {
        let known = self.names.iter();
        known
            .filter(move |known| known.address == address && std::ptr::eq(&*known.by, by))
            .map(|known| &*known.name)
    }
}

/// Puts these sockets in the place of `wasmtime-wasi`'s, in a linker that has those.
///
/// # Errors
/// When Wasmtime refuses a definition.
pub(super) fn link(
    linker: &mut Linker<StoreState>,
    component: &ComponentFacts,
) -> wasmtime::Result<()> {
    let imports = |minor| component.imports_wasi("sockets", minor);
    linker.allow_shadowing(true);
    if imports(2) {
        p2::link(linker)?;
    }
    if component.flavor.is_concurrent() && imports(3) {
        p3::link(linker)?;
    }
    linker.allow_shadowing(false);
    let mut link = apart::Linking { linker, component };
    p2::link_apart(&mut link)?;
    p3::link_apart(&mut link)
}

/// The views of parts with grants of their own.
const OF_PARTS: [ViewOf; MAX_APART] = at_each_place!(of_part);

type ViewOf = for<'a> fn(&'a mut StoreState) -> View<'a>;

fn of_part<const PLACE: usize>(state: &mut StoreState) -> View<'_> {
    state.sockets_of::<PLACE>()
}
