//! When changed files have come to rest: a pure function of what was told of them and the time.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::time::Instant;

/// A change is taken over when nothing more has changed for this long.
const QUIET: Duration = Duration::from_millis(10);
/// The same while a file is being written, which is until it is closed.
const OPEN: Duration = Duration::from_millis(500);
/// However much changes, it is looked at this long after the first change.
const LONGEST: Duration = Duration::from_secs(1);

/// What has changed, of what matters.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Files, and the folders and links on the way to them.
    places: BTreeSet<PathBuf>,
    /// Folders in which every YAML file matters.
    folders: BTreeSet<PathBuf>,
    /// The files themselves, which may be replaced without a folder being another one.
    files: BTreeSet<PathBuf>,
    /// Whether a folder or a link may be another one.
    replaced: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Files that somebody writes.
    open: BTreeSet<PathBuf>,
}

impl Changes {
    /// States what matters.
    pub fn only(
        &mut self,
        places: BTreeSet<PathBuf>,
        folders: BTreeSet<PathBuf>,
        files: BTreeSet<PathBuf>,
    ) {
        (self.places, self.folders, self.files) = (places, folders, files);
    }

    /// Takes an event; says whether it matters.
    pub fn apply(&mut self, event: &Event, now: Instant) -> bool {
        if event.need_rescan() {
            self.replaced = true;
            return self.lost(now);
        }
        let closed = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        if event.kind.is_access() && !closed {
            return false;
        }
        let mut news = false;
        for path in event
            .paths
            .iter()
            .filter(|p| matters(&self.places, &self.folders, p))
        {
            news = true;
            // Only Linux tells of the end.
            let writing = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
            let touched = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
            if writing && cfg!(target_os = "linux") {
                self.open.insert(path.clone());
            } else if !touched {
                // Whoever writes to a file in a folder that is gone is not heard of again.
                self.open.retain(|open| !open.starts_with(path));
            }
            self.replaced |= !writing && !closed && !self.files.contains(path);
        }
        news && self.anything(now)
    }

    /// Something has changed, whatever it is.
    pub fn anything(&mut self, now: Instant) -> bool {
        self.first.get_or_insert(now);
        self.last = Some(now);
        true
    }

    /// As [`anything`](Self::anything), and what has ended may be among it.
    pub fn lost(&mut self, now: Instant) -> bool {
        self.open.clear();
        self.anything(now)
    }

    /// Files that somebody has written to and not closed since.
    pub fn open(&self) -> &BTreeSet<PathBuf> {
        &self.open
    }

    /// When to look at the files; none if nothing has changed.
    pub fn ready_at(&self) -> Option<Instant> {
        let quiet = if self.open.is_empty() { QUIET } else { OPEN };
        let (first, last) = self.first.zip(self.last)?;
        Some((last + quiet).min(first + LONGEST))
    }

    /// The files are being looked at. Says whether a folder or a link on the way to them may be another one.
    pub fn taken(&mut self) -> bool {
        (self.first, self.last) = (None, None);
        std::mem::take(&mut self.replaced)
    }
}

fn matters(places: &BTreeSet<PathBuf>, folders: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let yaml = |path: &Path| {
        let extension = path.extension();
        extension.is_some_and(|e| ["yaml", "yml", "json"].iter().any(|y| e == *y))
    };
    places.contains(path)
        || yaml(path) && path.parent().is_some_and(|folder| folders.contains(folder))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, MetadataKind, RenameMode};

    use super::*;

    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const RENAMED: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    const OPENED: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));

    fn changes() -> Changes {
        let mut changes = Changes::default();
        changes.only(
            [PathBuf::from("/a/app.wasm"), PathBuf::from("/a")].into(),
            [PathBuf::from("/yaml")].into(),
            [PathBuf::from("/a/app.wasm")].into(),
        );
        changes
    }

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_is_closed_or_renamed_is_taken_at_once() {
        for kind in [CLOSED, RENAMED, EventKind::Create(CreateKind::File)] {
            let (mut changes, now) = (changes(), Instant::now());
            assert!(changes.apply(&event(kind, "/a/app.wasm"), now));
            assert_eq!(changes.ready_at(), Some(now + QUIET));
            assert!(!changes.taken(), "the folder is the same");
            assert_eq!(changes.ready_at(), None);
            assert!(changes.apply(&event(RENAMED, "/a"), now));
            assert!(changes.taken(), "it may be another one");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_being_written_is_waited_for() {
        let (mut changes, now) = (changes(), Instant::now());
        changes.apply(&event(WRITTEN, "/a/app.wasm"), now);
        assert_eq!(changes.ready_at(), Some(now + OPEN));
        changes.apply(&event(CLOSED, "/a/app.wasm"), now + millis(50));
        assert_eq!(changes.ready_at(), Some(now + millis(50) + QUIET));
        // A writer that never ends holds up nobody for ever.
        changes.apply(&event(WRITTEN, "/a/app.wasm"), now + millis(900));
        assert_eq!(changes.ready_at(), Some(now + LONGEST));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_is_open_until_it_is_closed_or_another_one() {
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        for (kind, path, open) in [
            (touched, "/a/app.wasm", true),
            (RENAMED, "/yaml/b.yaml", true),
            (CLOSED, "/a/app.wasm", false),
            (RENAMED, "/a/app.wasm", false),
            (RENAMED, "/a", false),
        ] {
            let (mut changes, now) = (changes(), Instant::now());
            changes.apply(&event(WRITTEN, "/a/app.wasm"), now);
            changes.apply(&event(kind, path), now);
            changes.taken();
            assert_eq!(!changes.open().is_empty(), open, "{kind:?} of {path}");
        }
        let mut changes = changes();
        changes.apply(&event(WRITTEN, "/a/app.wasm"), Instant::now());
        assert!(changes.lost(Instant::now()) && changes.open().is_empty());
    }

    #[test]
    fn what_does_not_matter_is_passed_over() {
        let (mut changes, now) = (changes(), Instant::now());
        for (kind, path) in [
            (WRITTEN, "/a/app.log"),
            (OPENED, "/a/app.wasm"),
            (WRITTEN, "/yaml/notes.txt"),
            (WRITTEN, "/yaml/deeper/a.yaml"),
        ] {
            assert!(!changes.apply(&event(kind, path), now), "{path}");
            assert_eq!(changes.ready_at(), None);
        }
        assert!(changes.apply(&event(RENAMED, "/yaml/new.yaml"), now));
        let mut lost = Event::new(EventKind::Other);
        lost = lost.set_flag(notify::event::Flag::Rescan);
        assert!(self::changes().apply(&lost, now));
    }
}
