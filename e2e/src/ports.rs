//! Free loopback ports for servers that must come back on the port they had.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

use crate::cache;

/// Below the kernel's range for outgoing connections, so that no client takes the port of a server that is stopped for
/// a while, and below the range that washlet gives to Services.
const RANGE: Range<u16> = 10_000..20_000;
/// The range that washlet gives to Services.
const SERVICES: Range<u16> = 20_000..30_000;

/// The locks of the ports that this process has given out; runs side by side see them.
static CLAIMED: Mutex<Vec<(u16, File)>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nothing listens on, and that nobody else is given while this process lives.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> Result<u16> {
    claim(RANGE)
}

/// The same, a port that a Service may have.
///
/// # Errors
/// When every port of the range is taken.
pub fn free_for_service() -> Result<u16> {
    claim(SERVICES)
}

fn claim(range: Range<u16>) -> Result<u16> {
    let locks = cache::dir()?.join("ports");
    fs::create_dir_all(&locks).with_context(|| format!("making {}", locks.display()))?;
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = claimed.iter().rev().map(|(port, _)| *port);
    let first = last
        .find(|port| range.contains(port))
        .map_or(range.start, |port| port + 1);
    for port in (first..range.end).chain(range.start..first) {
        let lock = locks.join(port.to_string());
        let lock = File::create(&lock).with_context(|| format!("opening {}", lock.display()))?;
        if lock.try_lock().is_ok() && is_free(port) {
            claimed.push((port, lock));
            return Ok(port);
        }
    }
    bail!(
        "no free port on 127.0.0.1 between {} and {}",
        range.start,
        range.end
    );
}

/// Whether a server could listen on this port of 127.0.0.1 now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports = [free().unwrap(), free().unwrap(), free().unwrap()];
        assert!(
            ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2],
            "{ports:?}"
        );
    }
}
