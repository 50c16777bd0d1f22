//! The agent's directory: what it keeps over restarts, used by one agent at a time.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::spec::Digest;

/// The open directory. As long as it lives, no other agent can open it.
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens the directory, made if need be, readable by this user alone.
    ///
    /// # Errors
    /// When it cannot be made or written, or another agent uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = fs::canonicalize(path)?;
        let lock = File::create(path.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::other("another agent uses it; give each agent a directory of its own")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for this agent that a restarted one has again, and no other one on any machine: in a pod, the machine's name is
    /// the pod's.
    pub fn instance(&self) -> String {
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let directory = Digest::of(self.path.as_os_str().as_encoded_bytes());
        let short = directory.hex().get(..8).unwrap_or_default().to_owned();
        format!("{}_{short}", machine.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state");
        let first = StateDir::open(&path).expect("free");
        let second = StateDir::open(&path).err().expect("taken");
        assert!(second.to_string().contains("another agent"), "{second}");
        let instance = first.instance();
        drop(first);
        assert_eq!(
            StateDir::open(&path).expect("free again").instance(),
            instance
        );
    }
}
