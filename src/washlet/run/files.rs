//! Notices changed files. Folders are watched rather than files: editors and compilers replace files, which ends a watch on
//! the file itself. All folders on the way to a file are, since any of them may be replaced, or be a symbolic link that is
//! turned; what happens in them to other files is passed over.

mod changes;

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use changes::Changes;

/// Most symbolic links that are followed from one path.
const MAX_LINKS: usize = 40;

/// Watches the folders of some files.
pub(super) struct Watcher {
    inner: RecommendedWatcher,
    /// Folders that were given: every YAML file in them counts.
    given: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    watched: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    changes: Mutex<Changes>,
    rung: Notify,
}

/// Watches the paths that were given, and the files that they named.
pub(super) fn watch(
    paths: &[PathBuf],
    files: &BTreeSet<PathBuf>,
) -> Result<Watcher, notify::Error> {
    let shared = Arc::<Shared>::default();
    let told = shared.clone();
    let inner = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let now = Instant::now();
        let news = match &event {
            Ok(event) => told.lock().apply(event, now),
            // Events may be lost: better to look at everything once too often.
            Err(_) => told.lock().lost(now),
        };
        if news {
            told.rung.notify_one();
        }
    })?;
    let mut watcher = Watcher {
        inner,
        given: paths
            .iter()
            .filter(|p| p.is_dir())
            .map(|p| absolute(p))
            .collect(),
        files: paths.iter().chain(files).map(|p| absolute(p)).collect(),
        watched: BTreeSet::new(),
        shared,
    };
    watcher.watch_all()?;
    // The files may have changed after they were read.
    watcher.shared.lock().anything(Instant::now());
    Ok(watcher)
}

/// Ready when files have changed and come to rest; never without a watcher. Says whether to watch [again](Watcher::again).
pub(super) async fn changed(watcher: &Option<Watcher>) -> bool {
    let Some(watcher) = watcher else {
        return std::future::pending().await;
    };
    loop {
        let ready = watcher.shared.lock().ready_at();
        match ready {
            Some(at) if at <= Instant::now() => {
                return watcher.shared.lock().taken();
            }
            Some(at) => tokio::select! {
                () = sleep_until(at) => {}
                () = watcher.shared.rung.notified() => {}
            },
            None => watcher.shared.rung.notified().await,
        }
    }
}

impl Watcher {
    /// Watches anew what was replaced, before the files are read once more: what changes from here on is noticed.
    pub fn again(&mut self) {
        self.watched.clear();
        self.watch_more();
    }

    /// Files that somebody has written to and not closed since, without symbolic links.
    pub fn being_written(&self) -> BTreeSet<PathBuf> {
        let open = self.shared.lock().open().clone();
        open.into_iter()
            .filter_map(|f| f.canonicalize().ok())
            .collect()
    }

    fn watch_more(&mut self) {
        if let Err(error) = self.watch_all() {
            tracing::warn!(%error, "some changes of files will not be noticed");
        }
    }

    /// Watches these files too, once they are known.
    pub fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let before = self.watched.len();
        self.files.extend(files.iter().map(|file| absolute(file)));
        self.watch_more();
        if self.watched.len() > before {
            // They may have changed after they were read, and before they were watched.
            self.shared.lock().anything(Instant::now());
            self.shared.rung.notify_one();
        }
    }

    fn watch_all(&mut self) -> Result<(), notify::Error> {
        let places = on_the_way(self.files.iter().chain(&self.given));
        let files = self.files.difference(&self.given).cloned().collect();
        let mut changes = self.shared.lock();
        let folders = self.given.iter().flat_map(|folder| names_of(folder));
        changes.only(places.clone(), folders.collect(), files);
        drop(changes);
        let mut folders: BTreeSet<&Path> = places.iter().filter_map(|p| p.parent()).collect();
        folders.extend(self.given.iter().map(PathBuf::as_path));
        let mut done = Ok(());
        let new = |folder: &&Path| !self.watched.contains(*folder) && folder.is_dir();
        for folder in folders.into_iter().filter(new).collect::<Vec<_>>() {
            match self.inner.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder.to_owned())),
                // Those far up may be closed to this user.
                Err(error) if self.files.iter().any(|f| f.parent() == Some(folder)) => {
                    done = Err(error);
                }
                Err(_) => {}
            }
        }
        done
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Changes> {
        // At worst a change is looked at twice.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All names of a folder along the symbolic links to it. What changes in it is told by one of them only, and not of our choice:
/// a folder has one watch, however often it is asked for.
fn names_of(folder: &Path) -> BTreeSet<PathBuf> {
    let mut names = on_the_way([folder]);
    let end = folder.canonicalize().ok();
    names.retain(|name| name == folder || name.canonicalize().ok() == end);
    names
}

/// A path from the root, without `.`.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The paths, all folders above them, and the same of what is behind symbolic links among them.
fn on_the_way(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> BTreeSet<PathBuf> {
    let (mut places, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        walk(path.as_ref(), &mut places, &mut seen, MAX_LINKS);
    }
    places
}

/// `seen` has whole paths: two of them may go through one link.
fn walk(path: &Path, places: &mut BTreeSet<PathBuf>, seen: &mut BTreeSet<PathBuf>, links: usize) {
    if !seen.insert(path.to_owned()) {
        return;
    }
    let mut so_far = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(so_far.pop()),
            part => so_far.push(part),
        }
        if so_far.parent().is_none() {
            continue;
        }
        places.insert(so_far.clone());
        if let Some(links) = links.checked_sub(1)
            && let Ok(target) = fs::read_link(&so_far)
        {
            let target = so_far.parent().unwrap_or(Path::new("/")).join(target);
            let rest = path.strip_prefix(&so_far).unwrap_or(Path::new(""));
            walk(&target.join(rest), places, seen, links);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_all_folders_are_on_the_way() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().canonicalize().expect("a path");
        fs::create_dir_all(dir.join("v1/deep")).expect("folders");
        std::os::unix::fs::symlink("v1", dir.join("current")).expect("a link");
        std::os::unix::fs::symlink("loop", dir.join("loop")).expect("a link");
        let paths = ["current", "current/deep/app.wasm", "loop"];
        let places = on_the_way(paths.map(|path| dir.join(path)));
        for part in [
            "current",
            "current/deep",
            "current/deep/app.wasm",
            "v1",
            "v1/deep",
            "v1/deep/app.wasm",
            "loop",
        ] {
            assert!(places.contains(&dir.join(part)), "{part}: {places:?}");
        }
        assert!(places.contains(&dir));
    }

    /// Waits for a change, and takes it.
    async fn change(watcher: &Option<Watcher>) -> bool {
        let limit = std::time::Duration::from_secs(5);
        tokio::time::timeout(limit, changed(watcher)).await.is_ok()
    }

    /// A folder, and two names of one in it: of the folder itself, and of a link to it through another one.
    fn linked() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("a path");
        let release = root.join("releases/1");
        fs::create_dir_all(&release).expect("folders");
        for file in ["a.yaml", "one.wasm", "two.wasm"] {
            fs::write(release.join(file), "").expect("a file");
        }
        std::os::unix::fs::symlink("releases", root.join("all")).expect("a link");
        std::os::unix::fs::symlink("all/1", root.join("current")).expect("a link");
        (dir, release, root.join("current"))
    }

    #[tokio::test]
    async fn a_folder_behind_links_is_watched_whichever_name_it_has() {
        let (_dir, release, current) = linked();
        let files = [current.join("a.yaml")].into();
        let watcher = Some(watch(&[current], &files).expect("a watcher"));
        assert!(change(&watcher).await, "what changed before is looked at");
        fs::write(release.join("b.yaml"), "new").expect("a file");
        assert!(change(&watcher).await, "a new file");
    }

    #[tokio::test]
    async fn all_files_behind_a_link_are_watched() {
        let (_dir, release, current) = linked();
        let files = ["one.wasm", "two.wasm"].map(|name| current.join(name));
        let watcher = Some(watch(&[], &files.into()).expect("a watcher"));
        assert!(change(&watcher).await, "what changed before is looked at");
        for name in ["one.wasm", "two.wasm"] {
            fs::write(release.join(name), "new").expect("a file");
            assert!(change(&watcher).await, "{name}");
        }
    }
}
