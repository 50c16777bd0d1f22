//! Addresses and networks, as guests and users write them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::blocked::{BlockedRange, blocked};

/// A network in CIDR notation; an address is a network of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of one address.
    pub fn of(address: IpAddr) -> Self {
        let address = unmapped(address);
        Self {
            address,
            bits: width(address),
        }
    }

    /// A network; none if there are more bits than the address has.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        if bits > width(address) {
            return None;
        }
        // A network of mapped addresses is one of IPv4.
        match (unmapped(address), bits.checked_sub(96)) {
            (inner @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => Some(Self {
                address: inner,
                bits,
            }),
            _ => Some(Self { address, bits }),
        }
    }

    /// `ADDRESS/BITS` or `ADDRESS`, IPv6 with or without brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let inner = address
            .strip_prefix('[')
            .map_or(Some(address), |a| a.strip_suffix(']'))?;
        let address: IpAddr = inner.parse().ok()?;
        match bits {
            Some(bits) => Self::new(address, bits.parse().ok()?),
            None => Some(Self::of(address)),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, unmapped(address)) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }

    /// Whether every address of the network is in this range.
    pub fn is_within(&self, range: BlockedRange) -> bool {
        // Ranges are without gaps, so that the ends speak for what is between them.
        let (first, last): (IpAddr, IpAddr) = match self.address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(self.bits.into()).unwrap_or(0);
                let first = address.to_bits() & !host;
                (
                    Ipv4Addr::from_bits(first).into(),
                    Ipv4Addr::from_bits(first | host).into(),
                )
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(self.bits.into()).unwrap_or(0);
                let first = address.to_bits() & !host;
                (
                    Ipv6Addr::from_bits(first).into(),
                    Ipv6Addr::from_bits(first | host).into(),
                )
            }
        };
        blocked(first) == Some(range) && blocked(last) == Some(range)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        if self.bits == width(self.address) {
            Ok(())
        } else {
            write!(f, "/{}", self.bits)
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An IPv4 address that is written as an IPv6 one (`::ffff:1.2.3.4`) is the IPv4 address.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The address that a URL's host is, if it is one and not a name.
///
/// The system's resolver takes `2852039166`, `0xa9fea9fe` and `169.254.43518` for 169.254.169.254, so this does too.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    // A zone (`fe80::1%eth0`) says where an address is, not which.
    let inner = inner
        .split_once('%')
        .map_or(inner, |(address, _zone)| address);
    if let Ok(address) = inner.parse::<Ipv6Addr>() {
        return Some(unmapped(address.into()));
    }
    inner
        .parse::<Ipv4Addr>()
        .ok()
        .or_else(|| loose_ipv4(inner))
        .map(IpAddr::V4)
}

/// One to four numbers, decimal, octal (`0…`) or hexadecimal (`0x…`), of which the last fills what the others leave.
fn loose_ipv4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|n| *n > 255) {
        return None;
    }
    let left = 8 * (4 - u32::try_from(first.len()).ok()?);
    if *last >= 1 << left {
        return None;
    }
    let high = first.iter().fold(0, |sum, n| sum << 8 | n) << left;
    u32::try_from(high | last).ok().map(Ipv4Addr::from_bits)
}

fn number(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(""), _) => return Some(0),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (lower.as_str(), 10),
    };
    // `from_str_radix` would take a sign.
    digits
        .chars()
        .all(|c| c.is_digit(radix))
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}
