//! The room for all ephemeral volumes of a host. The file system that they are on is needed by others too: for the images and
//! the compiled code of this host, and maybe by the rest of the machine.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes that are left to the others at least; of a small file system, a twentieth.
const RESERVE: u64 = 1 << 30;

/// How long a look at the file system is good for.
const LOOK: Duration = Duration::from_secs(1);

/// Whether there is room for volumes to grow.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes that all volumes may hold together.
    most: u64,
    taken: AtomicU64,
    /// When the file system was looked at, and whether it had room.
    looked: Mutex<Option<(Instant, bool)>>,
}

/// What one volume has taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    space: Arc<Space>,
    bytes: u64,
}

impl Default for Space {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Space {
    /// Room for so many bytes in all volumes together.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            taken: AtomicU64::new(0),
            looked: Mutex::default(),
        }
    }

    /// Whether the file system of a path has room. One that does not tell has.
    pub fn has_room(&self, path: &Path) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match *looked {
            Some((at, room)) if now.duration_since(at) < LOOK => room,
            _ => {
                let room = rustix::fs::statvfs(path).map_or(true, |system| {
                    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
                    // Some count no files.
                    let files = system.f_files == 0 || system.f_favail > system.f_files / 20;
                    files && is_enough(bytes(system.f_bavail), bytes(system.f_blocks))
                });
                *looked = Some((now, room));
                room
            }
        }
    }
}

impl Share {
    /// Of a volume that is empty.
    pub fn new(space: Arc<Space>) -> Self {
        Self { space, bytes: 0 }
    }

    /// Takes more, if there is so much.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> bool {
        let most = self.space.most;
        let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= most);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let done = self.space.taken.fetch_update(set, get, more).is_ok();
        if done {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        done
    }

    /// Gives back what is more than this.
    pub fn keep(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.space.taken.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.keep(0);
    }
}

/// Whether so many free bytes, of so many in all, are more than what is left to the others.
fn is_enough(free: u64, total: u64) -> bool {
    free > RESERVE.min(total / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_share_the_room() {
        let space = Arc::new(Space::new(100));
        let [mut one, mut other] = [(); 2].map(|()| Share::new(space.clone()));
        assert!(one.take(60) && other.take(40));
        assert!(!one.take(1) && !other.take(u64::MAX));
        one.keep(70);
        assert!(!other.take(1), "it never had more");
        one.keep(50);
        assert!(other.take(10) && !other.take(1));
        drop(one);
        assert!(other.take(50) && !other.take(1));
        drop(other);
        assert_eq!(space.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_part_is_left_to_the_others() {
        const GIB: u64 = 1 << 30;
        for (free, total, enough) in [
            (2 * GIB, 1000 * GIB, true),
            (GIB, 1000 * GIB, false),
            (GIB, 10 * GIB, true),
            (GIB / 2, 10 * GIB, false),
            (0, 0, false),
        ] {
            assert_eq!(is_enough(free, total), enough, "{free} of {total}");
        }
        assert!(Space::default().has_room(Path::new("/no/such/place")));
    }
}
