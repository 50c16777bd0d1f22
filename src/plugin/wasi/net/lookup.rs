//! Looking up names: the grant, the names that need none, and the resolver.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{Grants, policy::HOST_LOOPBACK};
use crate::spec::is_name;

/// Time that the system's resolver is given.
const RESOLVE: Duration = Duration::from_secs(10);

/// Addresses of a name that are passed on.
const MAX_ADDRESSES: usize = 32;

/// Names that mean something to this host; none of them is asked for anywhere else.
const ZONE: &str = "wasmcloud.internal";

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupError {
    /// The component may not look it up.
    Denied,
    /// It is neither a name nor an address.
    Invalid,
    /// Nobody knows it.
    Unknown,
    /// The workload has too many lookups, or the resolver took too long.
    Busy,
}

/// What is known at once, or the name to ask the resolver for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Known(Vec<IpAddr>),
    Ask(String),
}

/// Judges a name.
///
/// # Errors
/// [`LookupError`], but for `Busy`.
pub(super) fn judge(grants: &Grants, name: &str) -> Result<Lookup, LookupError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let inner = bare
        .strip_prefix('[')
        .and_then(|b| b.strip_suffix(']'))
        .unwrap_or(bare);
    if let Ok(address) = inner.parse::<IpAddr>() {
        grants.lookup(inner).map_err(|_| LookupError::Denied)?;
        return Ok(Lookup::Known(vec![address]));
    }
    let lower = bare.to_ascii_lowercase();
    if !is_name(&lower) {
        return Err(LookupError::Invalid);
    }
    if let Some(known) = own(&lower) {
        return known.map(Lookup::Known);
    }
    grants.lookup(&lower).map_err(|_| LookupError::Denied)?;
    Ok(Lookup::Ask(lower))
}

/// Names of the workload's own network. They need no grant, since no question about them leaves the host.
fn own(name: &str) -> Option<Result<Vec<IpAddr>, LookupError>> {
    if name == "localhost" || name.ends_with(".localhost") {
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Some(Ok(both.into()));
    }
    let label = name.strip_suffix(ZONE)?;
    let label = match label.strip_suffix('.') {
        Some(label) => label,
        None if label.is_empty() => return Some(Err(LookupError::Unknown)),
        // `otherwasmcloud.internal`.
        None => return None,
    };
    let service = |label: &str| {
        let name = label.strip_suffix(".svc");
        label == "service" || name.is_some_and(|name| !name.contains('.'))
    };
    Some(match label {
        "host" => Ok(vec![HOST_LOOPBACK.into()]),
        label if service(label) => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        _ => Err(LookupError::Unknown),
    })
}

/// Asks the system's resolver, on a thread where it may block.
///
/// # Errors
/// `Unknown` or `Busy`.
pub(super) async fn resolve(
    permits: Arc<Semaphore>,
    name: String,
) -> Result<Vec<IpAddr>, LookupError> {
    let Ok(permit) = permits.try_acquire_owned() else {
        return Err(LookupError::Busy);
    };
    let asked = tokio::spawn(async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        // Held to the end, also when nobody waits any more: the thread is.
        drop(permit);
        found.map(|addresses| addresses.map(|a| a.ip().to_canonical()).collect::<Vec<_>>())
    });
    let found = tokio::time::timeout(RESOLVE, asked).await;
    let found = found.map_err(|_| LookupError::Busy)?;
    let Ok(Ok(mut addresses)) = found else {
        return Err(LookupError::Unknown);
    };
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}
