//! How many files a workload has open: each is a file of the host's process, which needs some for its connections.

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Semaphore;

use super::listing::MAX_LISTINGS;

/// Files and directories that a workload may have open at a time, over all its instances, beside those that are mounted.
pub(super) const MAX_OPEN: usize = 512;

/// The files that a workload has opened, as long as they are open.
#[derive(Debug)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
    /// One for each directory that is listed.
    pub listings: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Weak<File>>,
    /// That are being opened.
    begun: usize,
}

/// Room for one more, until it is dropped.
pub(super) struct Opening(Arc<OpenFiles>);

impl Default for OpenFiles {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            listings: Arc::new(Semaphore::new(MAX_LISTINGS)),
        }
    }
}

impl OpenFiles {
    /// Room for one more, if there is any.
    pub fn begin(self: &Arc<Self>) -> Option<Opening> {
        let mut state = self.lock();
        if state.open.len() + state.begun >= MAX_OPEN {
            state.open.retain(|file| file.strong_count() > 0);
        }
        if state.open.len() + state.begun >= MAX_OPEN {
            return None;
        }
        state.begun += 1;
        Some(Opening(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// It is open.
    pub fn done(self, file: &Arc<File>) {
        self.0.lock().open.push(Arc::downgrade(file));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.lock().begun -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_makes_room() {
        let open = Arc::<OpenFiles>::default();
        let file = || Arc::new(File::open("/").unwrap());
        let open_one = || {
            let file = file();
            open.begin()
                .map(|opening| opening.done(&file))
                .map(|()| file)
        };
        let mut files: Vec<Arc<File>> = (1..MAX_OPEN).map(|_| open_one().unwrap()).collect();
        // One that is begun has its room, and gives it back if it fails.
        let begun = open.begin().unwrap();
        assert!(open.begin().is_none());
        drop(begun);
        files.push(open_one().unwrap());
        assert!(open_one().is_none());
        files.pop();
        assert!(open_one().is_some());
    }
}
