//! What a component may do with `wasi:sockets` beyond `allowedHosts`: which names it may look up, and which ports of the
//! host's own loopback it may connect to.
//!
//! | entry of `allowedIpNameLookups` | allows |
//! |---|---|
//! | `*` | every name and address |
//! | `*.SUFFIX` | names below it, but not itself |
//! | `NAME` | that name |
//! | an address | itself, in any spelling |
//!
//! Names are compared without regard to case and to a final dot. They are ASCII: an international name is written in Punycode
//! (`xn--…`), by the user and by the guest.
//!
//! | entry of `allowedHostLoopbackPorts` | allows |
//! |---|---|
//! | `PORT`, `PORT/tcp` | that port over TCP |
//! | `PORT/udp` | over UDP |
//!
//! There are no ranges and no wildcards of ports: each service of the machine that is opened to a guest is to be named.

use std::{fmt, net::IpAddr, num::NonZeroU16, str::FromStr};

/// One entry of `allowedIpNameLookups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedName(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    /// In lower case, without a final dot.
    Exact(String),
    /// What comes after `*`, with its leading dot, in lower case.
    Below(String),
    Address(IpAddr),
}

/// One entry of `allowedHostLoopbackPorts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackPort {
    /// The port.
    pub port: NonZeroU16,
    /// Over what.
    pub protocol: Protocol,
}

/// What a port is a port of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A text is not an entry of `allowedIpNameLookups` or `allowedHostLoopbackPorts`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct ParseSocketsError {
    text: String,
    what: &'static str,
    why: String,
}

impl AllowedName {
    /// Whether this entry alone allows a lookup. `name` is a name in ASCII, or an address.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name.parse::<IpAddr>().ok();
        match (&self.0, address) {
            (Pattern::Any, _) => true,
            (Pattern::Address(own), Some(address)) => own.to_canonical() == address.to_canonical(),
            (Pattern::Exact(own), None) => own.eq_ignore_ascii_case(name),
            (Pattern::Below(suffix), None) => {
                let end = name.len().checked_sub(suffix.len()).filter(|end| *end > 0);
                end.and_then(|end| name.get(end..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            _ => false,
        }
    }
}

impl FromStr for AllowedName {
    type Err = ParseSocketsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        pattern(text.trim())
            .map(Self)
            .map_err(|why| ParseSocketsError {
                text: text.to_owned(),
                what: "a name that may be looked up",
                why,
            })
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if text == "*" {
        return Ok(Pattern::Any);
    }
    if text.is_empty() {
        return Err("it is empty; remove the entry, or write `*` to allow every name".to_owned());
    }
    if let Ok(address) = text.parse() {
        return Ok(Pattern::Address(address));
    }
    if text.contains(['/', '?', '#', ':', '@']) {
        return Err("it is more than a name; leave scheme, port and path out".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    let (name, below) = match lower.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (lower, false),
    };
    if name.contains('*') {
        let why = "a wildcard stands for whole labels at the beginning: write `*.example.com`";
        return Err(why.to_owned());
    }
    if !name.is_ascii() {
        let why = "it has letters outside ASCII; write the name in Punycode, as DNS has it";
        return Err(why.to_owned());
    }
    if !is_name(name) {
        return Err(format!("`{name}` is not a host name"));
    }
    Ok(if below {
        Pattern::Below(format!(".{name}"))
    } else {
        Pattern::Exact(name.to_owned())
    })
}

/// Whether a text is a host name: labels of letters, digits, `-` and (outside DNS, but in use) `_`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl fmt::Display for AllowedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(name) => f.write_str(name),
            Pattern::Below(suffix) => write!(f, "*{suffix}"),
            Pattern::Address(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for LoopbackPort {
    type Err = ParseSocketsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        port(text.trim()).map_err(|why| ParseSocketsError {
            text: text.to_owned(),
            what: "a port of the host's loopback",
            why: why.to_owned(),
        })
    }
}

fn port(text: &str) -> Result<LoopbackPort, &'static str> {
    let (port, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((port, name)) if name.eq_ignore_ascii_case("tcp") => (port, Protocol::Tcp),
        Some((port, name)) if name.eq_ignore_ascii_case("udp") => (port, Protocol::Udp),
        Some(_) => return Err("after `/` comes `tcp` or `udp`"),
    };
    // `parse` would take a sign.
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = Some(port).filter(|_| digits).and_then(|p| p.parse().ok());
    port.map(|port| LoopbackPort { port, protocol })
        .ok_or("write a number from 1 to 65535, one entry for each port")
}

impl Protocol {
    /// The word for it, as in `PORT/tcp` and as the scheme of an entry of `allowedHosts`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for LoopbackPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, name: &str) -> bool {
        entry.parse::<AllowedName>().unwrap().allows(name)
    }

    #[test]
    fn an_entry_allows_what_it_says() {
        for (entry, allowed, not) in [
            ("*", "a.example 127.0.0.1 ::1", ""),
            (
                "db.example.com",
                "db.example.com DB.Example.COM. db.example.com.",
                "example.com xdb.example.com db.example.com.evil.org 127.0.0.1",
            ),
            (
                "*.Example.com.",
                "a.example.com a.b.EXAMPLE.com",
                "example.com .example.com evilexample.com 10.0.0.1",
            ),
            ("10.0.0.1", "10.0.0.1 ::ffff:10.0.0.1", "10.0.0.2 a.example"),
            ("::1", "::1 0:0:0:0:0:0:0:1", "127.0.0.1"),
        ] {
            for name in allowed.split_whitespace() {
                assert!(allows(entry, name), "{entry} {name}");
            }
            for name in not.split_whitespace().filter(|n| *n != ".example.com") {
                assert!(!allows(entry, name), "{entry} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_entry_says_why() {
        for (text, why) in [
            ("", "empty"),
            ("*com", "whole labels"),
            ("a.*.com", "whole labels"),
            ("*.*.com", "whole labels"),
            ("https://a.com", "leave scheme"),
            ("a.com:443", "leave scheme"),
            ("a.com/x", "leave scheme"),
            ("bücher.example", "Punycode"),
            ("a..b", "not a host name"),
            ("*.", "whole labels"),
        ] {
            let error = text.parse::<AllowedName>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        for text in [
            "0", "65536", "", "+80", "80-90", "80..90", "*", "80/sctp", "http",
        ] {
            assert!(text.parse::<LoopbackPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_of_tcp_unless_they_say_udp() {
        for (text, shown) in [
            ("5432", "5432/tcp"),
            ("5432/TCP", "5432/tcp"),
            (" 53/udp ", "53/udp"),
        ] {
            assert_eq!(text.parse::<LoopbackPort>().unwrap().to_string(), shown);
        }
    }
}
