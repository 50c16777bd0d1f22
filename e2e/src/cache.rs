//! Where things that are costly to make are kept between runs: programs built from Go, large guests, cargo's own tools.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The cache's root: `$WASHLET_CACHE`, else `washlet` below the user's cache directory.
///
/// # Errors
/// When none of the variables that could name it is set.
pub fn dir() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("WASHLET_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("washlet")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/washlet")))
        .context("no place for a cache: set WASHLET_CACHE or HOME")
}

/// Runs `work` while this process alone holds the lock of this file, which is made if it is not there.
///
/// # Errors
/// When the lock's file can't be made, or with the error of `work`.
pub fn locked<T>(lock: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(parent) = lock.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let file = File::create(lock).with_context(|| format!("opening {}", lock.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", lock.display()))?;
    // The lock goes with the file handle, on an error too.
    work()
}

/// The folder `target`, made by `make` unless an earlier run has: under another name until it is whole, by one process at a
/// time.
///
/// # Errors
/// When a folder can't be made or moved, or with the error of `make`.
pub fn made(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    locked(&target.with_added_extension("lock"), || {
        if target.is_dir() {
            return Ok(());
        }
        let staging = target.with_added_extension("partial");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", staging.display()));
            }
            _ => {}
        }
        make(&staging)?;
        fs::rename(&staging, target)
            .with_context(|| format!("moving {} into place", target.display()))
    })
}

/// A key for what is made of these parts, in their order: 16 hexadecimal digits.
#[must_use]
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
