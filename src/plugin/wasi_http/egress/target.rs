//! Where a request goes, as its URL says.

use std::net::IpAddr;

use http::{Uri, uri::Scheme};

use crate::spec;

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub tls: bool,
    /// A name, or an address as it was written; IPv6 in brackets.
    pub host: String,
    /// The host, if it is an address in whatever spelling. Nobody else gets to interpret it.
    pub address: Option<IpAddr>,
    pub port: u16,
}

impl Target {
    /// The destination of a request; none if it has no host.
    pub fn of(uri: &Uri) -> Option<Self> {
        let host = uri.host().filter(|host| !host.is_empty())?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            None if tls => 443,
            None => 80,
        };
        Some(Self {
            tls,
            host: host.to_owned(),
            address: spec::address_of(host),
            port,
        })
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}
