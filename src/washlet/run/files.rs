//! Notices changed files. Folders are watched rather than files: editors and compilers replace files, which ends a watch on
//! the file itself.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// A change is taken over when nothing more has changed for this long: a compiler writes in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// Watches the folders of some files.
pub(super) struct Watcher {
    inner: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
    events: mpsc::Receiver<()>,
}

/// Watches the paths that were given, and the files that they named.
pub(super) fn watch(
    paths: &[PathBuf],
    files: &BTreeSet<PathBuf>,
) -> Result<Watcher, notify::Error> {
    let (told, events) = mpsc::channel(1);
    let inner = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        if event.is_ok_and(|e| !e.kind.is_access()) {
            // A full channel means that a change is known already.
            let _ = told.try_send(());
        }
    })?;
    let mut watcher = Watcher {
        inner,
        folders: BTreeSet::new(),
        events,
    };
    for folder in paths.iter().filter(|p| p.is_dir()) {
        watcher.folder(folder)?;
    }
    for file in files {
        watcher.folder(parent(file))?;
    }
    Ok(watcher)
}

/// Ready when files have changed and come to rest; never without a watcher.
pub(super) async fn changed(watcher: &mut Option<Watcher>) {
    let Some(watcher) = watcher else {
        return std::future::pending().await;
    };
    if watcher.events.recv().await.is_none() {
        return std::future::pending().await;
    }
    while let Ok(Some(())) = tokio::time::timeout(QUIET, watcher.events.recv()).await {}
}

impl Watcher {
    /// Watches the folders of these files too.
    pub fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        for file in files {
            if let Err(error) = self.folder(parent(file)) {
                tracing::warn!(file = %file.display(), %error, "changes of this file will not be noticed");
            }
        }
    }

    fn folder(&mut self, folder: &Path) -> Result<(), notify::Error> {
        if self.folders.insert(folder.to_owned()) {
            self.inner.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }
}

fn parent(file: &Path) -> &Path {
    file.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
