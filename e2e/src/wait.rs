//! Waiting for something to become true, with a limit and a message that tells what was seen last.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Short enough to measure seconds by, long enough to be no load.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value.
///
/// `probe` answers `Ok(Ok(value))` when done, `Ok(Err(seen))` to go on, and an error to give up at once.
///
/// # Errors
/// After `limit`, with what was seen last; or with the error of `probe`.
pub async fn eventually<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<std::result::Result<T, S>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let seen = match tokio::time::timeout(limit, probe()).await {
            Ok(answer) => match answer? {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            },
            Err(_) => bail!("{what}: no answer within {limit:?}"),
        };
        if started.elapsed() > limit {
            bail!("{what}: not within {limit:?}; last seen: {seen:?}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
