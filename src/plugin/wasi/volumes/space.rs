//! The file system that volumes are on, which others need too: the images and the compiled code of this host, and maybe the
//! rest of the machine.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bytes that are left to the others at least; of a small file system, a twentieth.
const RESERVE: u64 = 1 << 30;

/// How long a look at the file system is good for.
const LOOK: Duration = Duration::from_secs(1);

/// Whether there is room for volumes to grow, looked at once in a while.
#[derive(Debug, Default)]
pub(super) struct Space(Mutex<Option<(Instant, bool)>>);

impl Space {
    /// Whether the file system of a path has room. One that does not tell has.
    pub fn has_room(&self, path: &Path) -> bool {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match *looked {
            Some((at, room)) if now.duration_since(at) < LOOK => room,
            _ => {
                let room = rustix::fs::statvfs(path).map_or(true, |system| {
                    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
                    is_enough(bytes(system.f_bavail), bytes(system.f_blocks))
                });
                *looked = Some((now, room));
                room
            }
        }
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
