//! Names and passwords that nobody else has.

use anyhow::{Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};

/// Twenty hexadecimal digits.
///
/// # Errors
/// When the system has no randomness to give.
pub fn word() -> Result<String> {
    let mut bytes = [0; 10];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
