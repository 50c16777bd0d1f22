//! Where hosts keep their volumes, so that none is left behind when its host dies.
//!
//! Each host has a directory of its own, and a file beside it that it keeps locked. Who finds a file that is not locked finds
//! the directory of a host that is gone.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Volumes cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumesError {
    /// The directory for volumes cannot be used.
    #[error("volumes in {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory below which `hostPath` volumes were to be allowed cannot be read.
    #[error("--host-path-root {}: {source}", path.display())]
    HostPathRoot {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A host's own directory; dropping it removes the directory.
#[derive(Debug, Default)]
pub(super) struct Place {
    own: Mutex<Option<Own>>,
    next: AtomicU64,
}

#[derive(Debug)]
enum Own {
    /// In the directory that the host was given.
    Locked {
        path: PathBuf,
        lock: PathBuf,
        _file: File,
    },
    /// In the system's directory for temporary files.
    Temporary(PathBuf),
}

impl Place {
    pub fn open(dir: &Path) -> Result<Self, VolumesError> {
        let own = Own::take(dir).map_err(|source| VolumesError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self {
            own: Mutex::new(Some(own)),
            next: AtomicU64::default(),
        })
    }

    /// A new directory, for one workload.
    pub fn folder(&self) -> io::Result<PathBuf> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let own = match &mut *own {
            Some(own) => own,
            none => {
                let new = tempfile::Builder::new().prefix("wash-volumes-").tempdir()?;
                none.insert(Own::Temporary(new.keep()))
            }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = own.path().join(number.to_string());
        directory(&path)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.take() {
            remove(own.path());
            if let Own::Locked { lock, .. } = own {
                let _ = fs::remove_file(lock);
            }
        }
    }
}

impl Own {
    fn path(&self) -> &Path {
        match self {
            Self::Locked { path, .. } | Self::Temporary(path) => path,
        }
    }

    /// Takes a directory in `dir`, and begins to remove those whose hosts are gone.
    fn take(dir: &Path) -> io::Result<Self> {
        directories(dir)?;
        // Held while hosts look for each other's locks and make their own.
        let gate = File::create(dir.join("gate"))?;
        gate.lock()?;
        let mut gone = Vec::new();
        for entry in fs::read_dir(dir)? {
            let lock = entry?.path();
            if lock.extension().is_some_and(|e| e == "lock") {
                let file = File::open(&lock)?;
                if file.try_lock().is_ok() {
                    gone.push((lock, file));
                }
            }
        }
        let (file, lock) = tempfile::Builder::new()
            .prefix("host-")
            .suffix(".lock")
            .tempfile_in(dir)?
            .keep()
            .map_err(|error| error.error)?;
        file.try_lock().map_err(io::Error::from)?;
        let path = lock.with_extension("");
        directory(&path)?;
        if !gone.is_empty() {
            std::thread::Builder::new()
                .name("volumes".to_owned())
                .spawn(move || {
                    for (lock, _held) in gone {
                        remove(&lock.with_extension(""));
                        let _ = fs::remove_file(lock);
                    }
                })?;
        }
        Ok(Self::Locked {
            path,
            lock,
            _file: file,
        })
    }
}

/// Makes a directory for this user alone.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a directory and those above it.
pub(super) fn directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a directory and all in it, however deep: a guest can nest directories until a removal that goes down one by one is
/// out of stack, or of open files. What cannot be removed is logged, and is for the next host.
pub(super) fn remove(path: &Path) {
    // A guest that was cut may just have something written.
    let removed = try_remove(path).or_else(|_| try_remove(path));
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a volume's directory is not removed");
    }
}

fn try_remove(root: &Path) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut number = 0_u64;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            pending.push(entry.path());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            // Brought to the top, so that no path grows with the depth.
            let moved = loop {
                let moved = root.join(format!("gone-{number}"));
                number += 1;
                if fs::symlink_metadata(&moved).is_err() {
                    break moved;
                }
            };
            fs::rename(entry.path(), &moved)?;
            pending.push(moved);
        }
        fs::remove_dir(&directory)?;
    }
    fs::remove_dir(root)
}
