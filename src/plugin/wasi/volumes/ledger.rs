//! What a volume holds, by a count that is kept with each change of it. No I/O: who changes the volume says what it did.
//!
//! A file counts with its size, holes included, and each name (of a file, a directory, a link) with [`ENTRY`] bytes more. So
//! the count is not less than what the files take on a disk, whatever the file system's way to keep them: the last block of a
//! file, which may be half empty, is paid for by its name. And it does not depend on when the system writes what. What a
//! directory keeps of names that it had is not counted.

use std::collections::HashMap;

/// Bytes that a name counts, and with it the inode and the last block of a file.
pub(super) const ENTRY: u64 = 4096;

/// The number by which the file system knows a file, while it exists.
pub(super) type Inode = u64;

/// The count of one volume.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    used: u64,
    /// Files that have no name any more and are still open: their sizes. They are counted until they are closed.
    nameless: HashMap<Inode, u64>,
}

impl Ledger {
    /// Bytes that are counted.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Counts more bytes, if they fit; else nothing is changed. That nothing is added always fits, also in a volume whose
    /// limit was lowered below what it holds.
    #[must_use]
    pub fn charge(&mut self, bytes: u64, limit: u64) -> bool {
        let used = self.used.checked_add(bytes);
        let Some(used) = used.filter(|used| bytes == 0 || *used <= limit) else {
            return false;
        };
        self.used = used;
        true
    }

    /// Counts fewer bytes.
    pub fn credit(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// The last name of a file is gone, or a directory is. If it is open its bytes are still there, which nobody finds.
    pub fn gone(&mut self, inode: Inode, size: u64, is_open: bool) {
        self.has_name(inode);
        if is_open {
            self.nameless.insert(inode, size);
        } else {
            self.credit(ENTRY.saturating_add(size));
        }
    }

    /// A file that has a name has this number: one without, which had it before, has been closed.
    pub fn has_name(&mut self, inode: Inode) {
        if let Some(size) = self.nameless.remove(&inode) {
            self.credit(ENTRY.saturating_add(size));
        }
    }

    /// A file that has no name any more has another size, which is counted already.
    pub fn resized(&mut self, inode: Inode, size: u64) {
        if let Some(known) = self.nameless.get_mut(&inode) {
            *known = size;
        }
    }

    /// Whether there may be files to [sweep](Self::sweep).
    pub fn has_nameless(&self) -> bool {
        !self.nameless.is_empty()
    }

    /// Counts no more what has been closed since it lost its name.
    pub fn sweep(&mut self, is_open: impl Fn(Inode) -> bool) {
        let mut freed = 0_u64;
        self.nameless.retain(|inode, size| {
            let keep = is_open(*inode);
            if !keep {
                freed = freed.saturating_add(ENTRY).saturating_add(*size);
            }
            keep
        });
        self.credit(freed);
    }
}

/// By how much a write makes a file longer; none if there is no such place in a file.
pub(super) fn growth(size: u64, offset: u64, bytes: usize) -> Option<u64> {
    let end = offset.checked_add(u64::try_from(bytes).ok()?)?;
    // A write of nothing does nothing, wherever.
    Some(if bytes == 0 {
        0
    } else {
        end.saturating_sub(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut ledger = Ledger::default();
        assert!(ledger.charge(100, 100));
        assert!(!ledger.charge(1, 100) && !ledger.charge(u64::MAX, u64::MAX));
        assert_eq!(ledger.used(), 100);
        assert!(ledger.charge(0, 10), "nothing fits below a lowered limit");
        assert!(!ledger.charge(1, 10));
        ledger.credit(95);
        assert!(ledger.charge(5, 10));
        ledger.credit(u64::MAX);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn what_has_no_name_counts_until_it_is_closed() {
        let mut ledger = Ledger::default();
        assert!(ledger.charge(3 * ENTRY + 60, u64::MAX));
        ledger.gone(1, 10, false);
        assert_eq!(ledger.used(), 2 * ENTRY + 50);
        ledger.gone(2, 20, true);
        ledger.gone(3, 30, true);
        assert_eq!(ledger.used(), 2 * ENTRY + 50, "both are open");
        assert!(ledger.charge(5, u64::MAX));
        ledger.resized(2, 25);
        ledger.resized(4, 25);
        ledger.sweep(|inode| inode == 3);
        assert_eq!(ledger.used(), ENTRY + 30);
        assert!(ledger.has_nameless());
        ledger.sweep(|_| false);
        assert_eq!(ledger.used(), 0);
        assert!(!ledger.has_nameless());
    }

    #[test]
    fn a_number_is_given_to_another_file_only_when_the_first_is_gone() {
        let mut ledger = Ledger::default();
        assert!(ledger.charge(2 * ENTRY + 30, u64::MAX));
        ledger.gone(1, 10, true);
        ledger.gone(1, 20, true);
        assert_eq!(ledger.used(), ENTRY + 20);
        ledger.has_name(1);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn only_what_is_beyond_the_end_is_growth() {
        for (size, offset, bytes, expected) in [
            (0, 0, 10, Some(10)),
            (10, 0, 10, Some(0)),
            (10, 5, 10, Some(5)),
            (10, 1 << 40, 1, Some((1 << 40) - 9)),
            (10, 1 << 40, 0, Some(0)),
            (10, u64::MAX, 1, None),
        ] {
            assert_eq!(growth(size, offset, bytes), expected, "{offset} {bytes}");
        }
    }
}
