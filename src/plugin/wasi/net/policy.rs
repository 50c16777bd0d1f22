//! Where a component's sockets may lead. Every address that a guest binds or connects to is judged here, and nowhere else.
//!
//! | address | leads to |
//! |---|---|
//! | 127.0.0.0/8, `::1` | the workload's own loopback |
//! | [`HOST_LOOPBACK`] | the host's 127.0.0.1, at a port of `allowedHostLoopbackPorts` |
//! | any other | itself, if `allowedHosts` allows it |
//!
//! `allowedHosts` is asked with the scheme `tcp` or `udp`, so that an entry without a scheme counts and one for `https` does
//! not. An entry with a name counts for the addresses that a permitted lookup of this instance gave for the name; such an
//! address must not be in a range that no name opens.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use wasmtime_wasi::sockets::ErrorCode;

use super::{Grants, Instance, Role};
use crate::spec::{self, Protocol};

/// What `host.wasmcloud.internal` resolves to, as in wasmCloud. It is loopback, so that a way past this module would end in
/// the workload's own.
pub(super) const HOST_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

/// Denials that are logged once each; beyond, they are only counted.
const LOGGED: usize = 64;

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Loopback,
    Outside(SocketAddr),
}

/// Who the denials are of, and what of them has been logged.
pub(super) struct Denials {
    pub namespace: String,
    pub workload: String,
    pub component: Arc<str>,
    logged: Mutex<HashSet<String>>,
}

impl Denials {
    pub fn new(workload: &spec::Workload, component: &spec::Component) -> Self {
        Self {
            namespace: workload.namespace.clone(),
            workload: workload.name.clone(),
            component: component.name.clone(),
            logged: Mutex::default(),
        }
    }

    /// Of the same component, with nothing logged yet.
    pub fn again(&self) -> Self {
        Self {
            namespace: self.namespace.clone(),
            workload: self.workload.clone(),
            component: self.component.clone(),
            logged: Mutex::default(),
        }
    }

    /// Logs a denial, if it is new.
    fn log(&self, what: String, remedy: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED || !logged.insert(what.clone()) {
            return;
        }
        drop(logged);
        let Self {
            namespace,
            workload,
            component,
            ..
        } = self;
        tracing::warn!(%namespace, %workload, %component, denied = what, "socket denied; {remedy}");
    }
}

impl Grants {
    /// Whether a socket may be bound to an address, which is then one of the workload's loopback.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(super) fn bind(&self, protocol: Protocol, address: SocketAddr) -> Result<(), ErrorCode> {
        let own = address.ip().is_loopback() || address.ip().is_unspecified();
        match self.role {
            Role::Service if own => Ok(()),
            // Answers to what it sends need a port to come to.
            Role::Component if own && protocol == Protocol::Udp && address.port() == 0 => Ok(()),
            Role::Service => Err(self.deny(
                format!("bind {}://{address}", protocol.as_str()),
                "a service listens on the workload's own loopback: bind 127.0.0.1 or 0.0.0.0",
            )),
            Role::Component => Err(self.deny(
                format!("bind {}://{address}", protocol.as_str()),
                "only the service of a workload may listen, or bind to a port of its choice",
            )),
        }
    }

    /// Where a connection, or a datagram, to an address leads.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(super) fn connect(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        instance: &Instance,
    ) -> Result<Route, ErrorCode> {
        let ip = address.ip().to_canonical();
        let port = address.port();
        if ip == IpAddr::V4(HOST_LOOPBACK) {
            let granted = self
                .loopback_ports
                .iter()
                .any(|p| p.port.get() == port && p.protocol == protocol);
            if granted {
                let host = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                return Ok(Route::Outside(host));
            }
            return Err(self.deny(
                format!("{}/{}", port, protocol.as_str()),
                "if the host's loopback is wanted, add the port to the component's allowedHostLoopbackPorts",
            ));
        }
        if ip.is_loopback() {
            return Ok(Route::Loopback);
        }
        let allowed = |host: &str| {
            let target = (protocol.as_str(), host, port);
            self.allowed_hosts
                .iter()
                .any(|entry| entry.allows(target.0, target.1, target.2))
                && spec::prohibited(&self.allowed_hosts, &self.network.blocked, target, ip)
                    .is_none()
        };
        let literal = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        if allowed(&literal) || instance.names_of(self, ip).any(allowed) {
            return Ok(Route::Outside(SocketAddr::new(ip, port)));
        }
        Err(self.deny(
            format!("{}://{}", protocol.as_str(), SocketAddr::new(ip, port)),
            "if it is wanted, add the rule, or the name that was looked up, to the component's allowedHosts",
        ))
    }

    /// Whether a name may be looked up.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(super) fn lookup(&self, name: &str) -> Result<(), ErrorCode> {
        if self.allowed_names.iter().any(|entry| entry.allows(name)) {
            return Ok(());
        }
        Err(self.deny(
            format!("lookup {name}"),
            "if it is wanted, add the name to the component's allowedIpNameLookups",
        ))
    }

    fn deny(&self, what: String, remedy: &str) -> ErrorCode {
        (self.count_denial)();
        self.denials.log(what, remedy);
        ErrorCode::AccessDenied
    }
}
