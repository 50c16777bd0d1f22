//! Which hosts a component may call: the grammar of `allowedHosts`, and whether a destination is allowed.
//!
//! | entry | allows |
//! |---|---|
//! | `*` | everything but blocked addresses |
//! | `HOST[:PORT]` | any scheme |
//! | `SCHEME://HOST[:PORT][/]` | that scheme; `*` is any |
//!
//! `HOST` is a name, `*.SUFFIX` (any name below it, but not itself), an address (IPv6 in brackets), a network in CIDR notation,
//! or `*`. `PORT` is a number, a range `FROM..TO` (without `TO`), or `*`; **without one every port is allowed**, as in
//! wasmCloud (Spin would allow the scheme's own port only). There are no paths: this is about hosts.
//!
//! Some addresses are in [ranges](blocked()) that lead to the node itself or to the metadata service that has its credentials:
//! loopback and link-local ones above all. They are allowed only by an entry that names an address, or a network, within the
//! range: neither `*` nor `0.0.0.0/0` does, and no name. The one name that does is `localhost`, which stands for loopback
//! addresses by definition; other addresses that a resolver gives it stay blocked.
//!
//! What a name resolves to is unknown here; [`prohibited`] judges each address of it.

mod address;
mod blocked;
mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, ops::Range};

use address::Network;
pub use blocked::{
    BlockedNetwork, BlockedRange, ParseNetworkError, Prohibited, blocked, prohibited,
};

/// One entry of `allowedHosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    scheme: Option<String>,
    host: Host,
    port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// In lower case, without a final dot.
    Name(String),
    /// What comes after `*`, with its leading dot, in lower case.
    Below(String),
    Network(Network),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Any,
    /// Half-open, and wide enough for a range that ends with the last port.
    Range(Range<u32>),
}

/// A text is not an entry of `allowedHosts`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an allowed host: {why}")]
pub struct ParseHostError {
    text: String,
    why: String,
}

/// The address that a URL's host is, if it is one and not a name; in any spelling that a resolver would take for an address.
#[must_use]
pub fn address_of(host: &str) -> Option<IpAddr> {
    address::literal(host.strip_suffix('.').unwrap_or(host))
}

impl AllowedHost {
    /// The entry `*`.
    #[must_use]
    pub const fn any() -> Self {
        Self {
            scheme: None,
            host: Host::Any,
            port: Port::Any,
        }
    }

    /// Whether this entry opens an address in a blocked range to a destination that is allowed by whatever entry.
    fn opens(
        &self,
        (scheme, host, port): (&str, &str, u16),
        address: IpAddr,
        range: BlockedRange,
    ) -> bool {
        self.is_for(scheme, port)
            && match &self.host {
                Host::Network(network) => network.contains(address) && network.is_within(range),
                Host::Name(name) => {
                    range == BlockedRange::Loopback
                        && name == "localhost"
                        && host.trim_end_matches('.').eq_ignore_ascii_case(name)
                }
                Host::Any | Host::Below(_) => false,
            }
    }

    fn is_for(&self, scheme: &str, port: u16) -> bool {
        self.scheme
            .as_deref()
            .is_none_or(|s| s.eq_ignore_ascii_case(scheme))
            && self.port.includes(port)
    }

    /// Whether this entry alone allows a destination. `host` is as in a URL: a name, an address, or an IPv6 address in
    /// brackets; in any spelling that a resolver would take for an address.
    #[must_use]
    pub fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.is_for(scheme, port)
            && match address_of(host) {
                Some(address) => self.host.includes_address(address),
                None => self.host.includes_name(&host.to_ascii_lowercase()),
            }
    }
}

impl Host {
    fn includes_address(&self, address: IpAddr) -> bool {
        match self {
            // Neither `*` nor a network that merely contains it says that metadata services are meant.
            Self::Any => blocked(address).is_none(),
            Self::Network(network) => {
                network.contains(address)
                    && blocked(address).is_none_or(|range| network.is_within(range))
            }
            Self::Name(_) | Self::Below(_) => false,
        }
    }

    fn includes_name(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            Self::Network(_) => false,
        }
    }
}

impl Port {
    fn includes(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Range(range) => range.contains(&u32::from(port)),
        }
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(suffix) => write!(f, "*{suffix}")?,
            Host::Network(network) => write!(f, "{network}")?,
        }
        match &self.port {
            Port::Any => Ok(()),
            Port::Range(range) if range.end == range.start + 1 => write!(f, ":{}", range.start),
            Port::Range(range) => write!(f, ":{}..{}", range.start, range.end),
        }
    }
}
