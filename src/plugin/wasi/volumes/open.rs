//! How many files a workload has open: each is a file of the host's process, which needs some for its connections.

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Files and directories that a workload may have open at a time, over all its instances, beside those that are mounted.
pub(super) const MAX_OPEN: usize = 512;

/// The files that a workload has opened, as long as they are open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<Vec<Weak<File>>>);

impl OpenFiles {
    /// Whether another one may be opened. Those that are opened in the same moment may be a few more.
    pub fn has_room(&self) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_OPEN {
            open.retain(|file| file.strong_count() > 0);
        }
        open.len() < MAX_OPEN
    }

    /// One was opened.
    pub fn add(&self, file: &Arc<File>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::downgrade(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_makes_room() {
        let open = OpenFiles::default();
        let directory = || Arc::new(File::open("/").unwrap());
        let mut files: Vec<Arc<File>> = (0..MAX_OPEN).map(|_| directory()).collect();
        for file in &files {
            assert!(open.has_room());
            open.add(file);
        }
        assert!(!open.has_room());
        files.pop();
        assert!(open.has_room());
        let again = directory();
        open.add(&again);
        assert!(!open.has_room());
    }
}
