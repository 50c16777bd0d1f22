//! Which hosts a component may call: the grammar of `allowedHosts`, and whether a destination is allowed.
//!
//! | entry | allows |
//! |---|---|
//! | `*` | everything but link-local addresses |
//! | `HOST[:PORT]` | any scheme |
//! | `SCHEME://HOST[:PORT][/]` | that scheme; `*` is any |
//!
//! `HOST` is a name, `*.SUFFIX` (any name below it, but not itself), an address (IPv6 in brackets), a network in CIDR notation,
//! or `*`. `PORT` is a number, a range `FROM..TO` (without `TO`), or `*`; **without one every port is allowed**, as in
//! wasmCloud (Spin would allow the scheme's own port only). There are no paths: this is about hosts.
//!
//! Link-local addresses (169.254.0.0/16, fe80::/10), where clouds keep their metadata services and with them a node's
//! credentials, are allowed only by an entry that names an address or a network among them.
//!
//! Not here: what a name resolves to. An entry that allows a name allows whatever address its owner gives it, a link-local or
//! loopback one too, and loopback addresses are like any other; so allow only names whose owners you trust.

mod address;
mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, ops::Range};

use address::Network;

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

    /// Whether this entry alone allows a destination. `host` is as in a URL: a name, an address, or an IPv6 address in
    /// brackets; in any spelling that a resolver would take for an address.
    #[must_use]
    pub fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.scheme
            .as_deref()
            .is_none_or(|s| s.eq_ignore_ascii_case(scheme))
            && self.port.includes(port)
            && match address::literal(host) {
                Some(address) => self.host.includes_address(address),
                None => self.host.includes_name(&host.to_ascii_lowercase()),
            }
    }
}

impl Host {
    fn includes_address(&self, address: IpAddr) -> bool {
        match self {
            // Neither `*` nor a network that merely contains it says that metadata services are meant.
            Self::Any => !address::is_link_local(address),
            Self::Network(network) => {
                network.contains(address)
                    && (network.is_link_local() || !address::is_link_local(address))
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
