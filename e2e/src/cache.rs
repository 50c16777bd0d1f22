//! Where things that are costly to make are kept between runs: programs built from Go, cargo's own tools.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

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
