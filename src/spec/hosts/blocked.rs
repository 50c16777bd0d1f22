//! Addresses that nobody is allowed by accident: whatever a name resolves to, and whatever `*` or a wide network contains.
//!
//! These checks are made on the address that is connected to, so that a name whose owner points it at the node itself, or at
//! the metadata service that gives out the node's credentials, leads nowhere. All of it is pure; who resolves names asks here
//! for each address.
//!
//! Two lists. The built-in ranges ([`blocked`]) are opened by an entry of `allowedHosts` that names such an address, or a network
//! within the range, itself. The operator's networks ([`BlockedNetwork`]) are opened by nobody.
//!
//! Private networks (10.0.0.0/8 and the like) are not blocked unless the operator says so: in a cluster, that is where the
//! services are.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::{AllowedHost, address::Network};

/// A range of addresses that a rule has to name before they may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockedRange {
    /// 0.0.0.0/8 and `::`; most systems take them for the machine itself.
    Unspecified,
    /// 127.0.0.0/8 and `::1`: the node, or the agent's own pod.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10, with the metadata services of most clouds.
    LinkLocal,
    /// Metadata services outside of those: 100.100.100.200 (Alibaba Cloud), 168.63.129.16 (Azure), fd00:ec2::/32 (AWS),
    /// fd20:ce::254 (Google Cloud).
    Metadata,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 240.0.0.0/4, with the broadcast address 255.255.255.255.
    Reserved,
}

/// The range that an address is in, if it is a blocked one.
///
/// An IPv6 address that stands for an IPv4 one is judged as that: mapped (`::ffff:a.b.c.d`), compatible (`::a.b.c.d`),
/// translated (`::ffff:0:a.b.c.d`), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), 6to4 (2002::/16) and Teredo (2001::/32).
#[must_use]
pub fn blocked(address: IpAddr) -> Option<BlockedRange> {
    match address {
        IpAddr::V4(address) => blocked_v4(address),
        IpAddr::V6(address) => {
            blocked_v6(address).or_else(|| embedded(address).and_then(blocked_v4))
        }
    }
}

fn blocked_v4(address: Ipv4Addr) -> Option<BlockedRange> {
    let octets = address.octets();
    match octets {
        [0, ..] => Some(BlockedRange::Unspecified),
        [127, ..] => Some(BlockedRange::Loopback),
        [169, 254, ..] => Some(BlockedRange::LinkLocal),
        [100, 100, 100, 200] | [168, 63, 129, 16] => Some(BlockedRange::Metadata),
        [224..240, ..] => Some(BlockedRange::Multicast),
        [240..=255, ..] => Some(BlockedRange::Reserved),
        _ => None,
    }
}

fn blocked_v6(address: Ipv6Addr) -> Option<BlockedRange> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(BlockedRange::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(BlockedRange::Loopback),
        [0xfe80..=0xfebf, ..] => Some(BlockedRange::LinkLocal),
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Some(BlockedRange::Metadata),
        [0xff00..=0xffff, ..] => Some(BlockedRange::Multicast),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 one stands for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        // Teredo keeps its client's address inverted.
        [0x2001, 0, _, _, _, _, high, low] => Some(of(!high, !low)),
        _ => None,
    }
}

impl fmt::Display for BlockedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified addresses (0.0.0.0/8, ::)",
            Self::Loopback => "loopback addresses (127.0.0.0/8, ::1)",
            Self::LinkLocal => "link-local addresses (169.254.0.0/16, fe80::/10)",
            Self::Metadata => "metadata services of clouds",
            Self::Multicast => "multicast addresses (224.0.0.0/4, ff00::/8)",
            Self::Reserved => "reserved addresses (240.0.0.0/4)",
        })
    }
}

/// A network that the operator of a host blocks for every component, whatever its rules say: a network in CIDR notation, an
/// address, or the word `private` for every address that is not a public one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedNetwork(Blocked);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Blocked {
    Private,
    Network(Network),
}

/// A text is not a network to block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a network; write one such as `10.0.0.0/8` or `fd00::/8`, an address, or the word `private`"
)]
pub struct ParseNetworkError(String);

impl BlockedNetwork {
    /// Whether the network has this address, also as an IPv6 address that stands for an IPv4 one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let inner = match address {
            IpAddr::V6(address) => embedded(address).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        match &self.0 {
            Blocked::Private => !inner.map_or_else(|| is_global(address), is_global),
            Blocked::Network(network) => {
                network.contains(address) || inner.is_some_and(|inner| network.contains(inner))
            }
        }
    }
}

impl FromStr for BlockedNetwork {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "private" {
            return Ok(Self(Blocked::Private));
        }
        Network::parse(text)
            .map(|network| Self(Blocked::Network(network)))
            .ok_or_else(|| ParseNetworkError(text.to_owned()))
    }
}

impl fmt::Display for BlockedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Blocked::Private => f.write_str("private"),
            Blocked::Network(network) => write!(f, "{network}"),
        }
    }
}

/// Whether an address may be routed on the Internet, by IANA's registries of special-purpose addresses.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(
            address.octets(),
            [0 | 10 | 127 | 224..=255, ..]
                | [100, 64..128, ..]
                | [169, 254, ..]
                | [172, 16..32, ..]
                | [192, 168, ..]
                | [192, 0, 0 | 2, _]
                | [198, 18 | 19, ..]
                | [198, 51, 100, _]
                | [203, 0, 113, _]
        ),
        IpAddr::V6(address) => {
            let special = matches!(
                address.segments(),
                [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..]
            );
            // Addresses of hosts are all given out of 2000::/3.
            address.segments().first().is_some_and(|s| s >> 13 == 1) && !special
        }
    }
}

/// Why an address may not be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prohibited {
    /// It is in a built-in range; a rule that names the address opens it.
    Range(BlockedRange),
    /// The operator blocks its network; no rule opens it.
    Network(BlockedNetwork),
}

/// Why a host that a component is [allowed](AllowedHost::allows) to call may not be called at this address of it; none if it
/// may. `scheme`, `host` and `port` are what was allowed, `networks` is the operator's list.
///
/// To be asked for each address that a name resolves to; the connection must then be made to that very address, without
/// another look-up.
#[must_use]
pub fn prohibited(
    rules: &[AllowedHost],
    networks: &[BlockedNetwork],
    (scheme, host, port): (&str, &str, u16),
    address: IpAddr,
) -> Option<Prohibited> {
    if let Some(network) = networks.iter().find(|network| network.contains(address)) {
        return Some(Prohibited::Network(network.clone()));
    }
    let range = blocked(address)?;
    let opened = rules
        .iter()
        .any(|rule| rule.opens((scheme, host, port), address, range));
    (!opened).then_some(Prohibited::Range(range))
}
