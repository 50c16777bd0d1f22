//! The limit of an ephemeral volume: who changes the volume does it here, one at a time, so that what is counted is what is
//! there.
//!
//! What a guest does at a descriptor leads here by the file that is open behind it ([`Quota::owns`]). Each change is one
//! piece of work of a thread for blocking work, with the count locked: it ends as a whole, whatever becomes of the guest.

mod paths;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::io::Errno;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot},
    task::spawn_blocking,
};

use super::{
    ledger::{Inode, Ledger, growth},
    space::{Share, Space},
};
pub(super) use paths::How;

/// What one volume may hold, and does; shared by all that mount it, over all generations.
#[derive(Debug)]
pub(super) struct Quota {
    /// In bytes.
    limit: AtomicU64,
    count: Arc<AsyncMutex<Count>>,
    handles: Mutex<Handles>,
    folder: PathBuf,
    space: Arc<Space>,
}

/// What a volume holds, and has taken for it of the room for all.
#[derive(Debug)]
struct Count {
    ledger: Ledger,
    share: Share,
}

/// The open files of a volume, and its open directories.
#[derive(Debug, Default)]
struct Handles {
    /// By where they are in memory, which is theirs for as long as they are here, closed or not.
    open: HashMap<usize, (Weak<File>, Inode)>,
    /// The closed ones are looked for when there are so many.
    look_at: usize,
}

/// A volume that is held for one change.
pub(super) struct Change {
    quota: Arc<Quota>,
    count: OwnedMutexGuard<Count>,
}

/// The outcome of a change that has begun.
pub(super) type Changed<T> = oneshot::Receiver<T>;

/// Where a write begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Offset(u64),
    End,
}

impl Quota {
    /// Of a folder that is empty yet.
    pub fn new(folder: PathBuf, limit: u64, space: Arc<Space>) -> Self {
        let count = Count {
            ledger: Ledger::default(),
            share: Share::new(space.clone()),
        };
        Self {
            limit: AtomicU64::new(limit),
            count: Arc::new(AsyncMutex::new(count)),
            handles: Mutex::default(),
            folder,
            space,
        }
    }

    /// Limits what comes from now on; what there is stays.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// In bytes.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether an open file, or directory, is of this volume.
    pub fn owns(&self, file: &Arc<File>) -> bool {
        self.handles().open.contains_key(&address(file))
    }

    /// Knows a file, or a directory, for as long as it is open.
    pub fn admit(&self, file: &Arc<File>) -> io::Result<Inode> {
        let inode = file.metadata()?.ino();
        let mut handles = self.handles();
        if handles.open.len() >= handles.look_at {
            handles.open.retain(|_, (file, _)| file.strong_count() > 0);
            handles.look_at = handles.open.len().saturating_mul(2).max(64);
        }
        let handle = (Arc::downgrade(file), inode);
        handles.open.insert(address(file), handle);
        Ok(inode)
    }

    /// Does something that changes the volume, when those before have done theirs. It is begun at once, and ends also if
    /// nobody waits for it. No outcome means that the work panicked, or that the host ends.
    pub fn change<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Change) -> T + Send + 'static,
    ) -> Changed<T> {
        let (tell, changed) = oneshot::channel();
        let quota = self.clone();
        let work = move |count| {
            let mut volume = Change { quota, count };
            let done = work(&mut volume);
            // Who hears of it may go on with the next one.
            drop(volume);
            // Who does not wait does not want to know.
            let _ = tell.send(done);
        };
        let count = self.count.clone();
        match count.clone().try_lock_owned() {
            Ok(count) => drop(spawn_blocking(move || work(count))),
            // Waited for in a task: so a guest that writes much takes one thread and not all of them, and one that does not
            // come to its turn again keeps nobody from theirs.
            Err(_) => drop(tokio::spawn(async move {
                let count = count.lock_owned().await;
                drop(spawn_blocking(move || work(count)));
            })),
        }
        changed
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, inode: Inode) -> bool {
        let handles = self.handles();
        let mut open = handles.open.values();
        open.any(|(file, of)| *of == inode && file.strong_count() > 0)
    }
}

fn address(file: &Arc<File>) -> usize {
    Arc::as_ptr(file).addr()
}

impl Count {
    /// Counts more, if it fits into the volume and with it into the room for all.
    fn charge(&mut self, bytes: u64, limit: u64) -> bool {
        let fits = self.ledger.charge(bytes, limit);
        if fits && !self.share.take(bytes) {
            self.ledger.credit(bytes);
            return false;
        }
        fits
    }

    /// Gives back what is counted no more.
    fn settle(&mut self) {
        self.share.keep(self.ledger.used());
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.count.settle();
    }
}

impl Change {
    /// Writes what the system takes at once. All of it must fit, or nothing is written.
    pub fn write(&mut self, file: &File, at: At, bytes: &[u8]) -> io::Result<usize> {
        let before = file.metadata()?;
        let offset = match at {
            At::Offset(offset) => offset,
            // Nobody else writes meanwhile.
            At::End => before.len(),
        };
        let growth = growth(before.len(), offset, bytes.len()).ok_or(Errno::FBIG)?;
        if !bytes.is_empty() {
            // Also in the midst of a file: there may be a hole.
            self.room()?;
        }
        self.charge(growth)?;
        let written = file.write_at(bytes, offset);
        let full = matches!(written, Ok(count) if count == bytes.len());
        if growth > 0 && !full {
            let after = file.metadata().map_or(u64::MAX, |after| after.len());
            let unused = before.len().saturating_add(growth).saturating_sub(after);
            self.count.ledger.credit(unused);
        }
        self.note_nameless(file, before.nlink());
        written
    }

    /// [`write`](Self::write)s all of it, one after the other.
    pub fn write_all(&mut self, file: &File, mut at: At, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = match self.write(file, at, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes = bytes.get(count..).unwrap_or_default();
            if let At::Offset(offset) = &mut at {
                *offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            }
        }
        Ok(())
    }

    /// Sets the size of a file. What it grows by counts, though it takes no place on the disk until it is written: so a write
    /// into it never fails for want of room that it had.
    pub fn set_size(&mut self, file: &File, size: u64) -> io::Result<()> {
        let before = file.metadata()?;
        let growth = size.saturating_sub(before.len());
        self.charge(growth)?;
        let set = file.set_len(size);
        match set {
            Ok(()) => self.count.ledger.credit(before.len().saturating_sub(size)),
            Err(_) => self.count.ledger.credit(growth),
        }
        self.note_nameless(file, before.nlink());
        set
    }

    /// Whether the file system has room for more.
    fn room(&self) -> io::Result<()> {
        if self.quota.space.has_room(&self.quota.folder) {
            Ok(())
        } else {
            Err(Errno::NOSPC.into())
        }
    }

    /// Counts what is about to be made, if the volume, and the file system, have room for it.
    fn charge(&mut self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.room()?;
        let Self { quota, count } = self;
        let limit = quota.limit();
        let mut fits = count.charge(bytes, limit);
        if !fits && count.ledger.has_nameless() {
            count.ledger.sweep(|inode| quota.is_open(inode));
            count.settle();
            fits = count.charge(bytes, limit);
        }
        if fits {
            Ok(())
        } else {
            Err(Errno::NOSPC.into())
        }
    }

    /// The size of a file may have changed, which is nowhere to be seen if it has no name.
    fn note_nameless(&mut self, file: &File, links: u64) {
        if links == 0
            && let Ok(now) = file.metadata()
        {
            self.count.ledger.resized(now.ino(), now.len());
        }
    }
}

#[cfg(test)]
mod tests;
