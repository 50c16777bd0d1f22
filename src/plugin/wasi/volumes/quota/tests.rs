//! Changes of a real directory, without a guest: what is counted is what is there.

use std::{collections::HashMap, path::Path};

use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir},
    p2::{
        FsResult,
        bindings::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
    },
};

use super::{super::ledger::ENTRY, *};

struct Rig {
    folder: tempfile::TempDir,
    quota: Arc<Quota>,
    root: Dir,
}

impl Rig {
    fn new(limit: u64) -> Self {
        Self::within(limit, Arc::default())
    }

    fn within(limit: u64, space: Arc<Space>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let quota = Quota::new(folder.path().to_owned(), limit, space);
        let file = File::open(folder.path()).unwrap();
        let root = Dir::new(file, FsPerms::ReadWrite, OpenMode::READ, false);
        quota.admit(&root.dir).unwrap();
        Self {
            folder,
            quota: Arc::new(quota),
            root,
        }
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Change, &Dir) -> FsResult<T> + Send + 'static,
    ) -> Result<T, ErrorCode> {
        let root = self.root.clone();
        let done = self.quota.change(move |volume| work(volume, &root)).await;
        done.unwrap().map_err(|error| error.downcast().unwrap())
    }

    async fn open(&self, name: &str, open: OpenFlags) -> Result<Descriptor, ErrorCode> {
        let (name, how) = (name.to_owned(), how(open));
        self.change(move |volume, root| volume.open_at(root, how, name))
            .await
    }

    async fn create(&self, name: &str) -> Result<Arc<File>, ErrorCode> {
        self.open(name, OpenFlags::CREATE).await.map(file_of)
    }

    async fn write(&self, file: &Arc<File>, at: At, bytes: usize) -> Result<usize, ErrorCode> {
        let file = file.clone();
        self.change(move |volume, _| Ok(volume.write(&file, at, &vec![b'x'; bytes])?))
            .await
    }

    async fn set_size(&self, file: &Arc<File>, size: u64) -> Result<(), ErrorCode> {
        let file = file.clone();
        self.change(move |volume, _| Ok(volume.set_size(&file, size)?))
            .await
    }

    async fn unlink(&self, name: &str) -> Result<(), ErrorCode> {
        let name = name.to_owned();
        self.change(move |volume, root| volume.unlink_file_at(root, name))
            .await
    }

    /// What is counted, without what has been closed meanwhile.
    async fn used(&self) -> u64 {
        self.change(|volume, _| {
            let quota = volume.quota.clone();
            volume.count.ledger.sweep(|inode| quota.is_open(inode));
            volume.count.settle();
            Ok(volume.count.ledger.used())
        })
        .await
        .unwrap()
    }
}

fn how(open: OpenFlags) -> How {
    How {
        path: PathFlags::SYMLINK_FOLLOW,
        open,
        descriptor: if open.contains(OpenFlags::DIRECTORY) {
            DescriptorFlags::READ
        } else {
            DescriptorFlags::READ | DescriptorFlags::WRITE
        },
    }
}

fn file_of(descriptor: Descriptor) -> Arc<File> {
    match descriptor {
        Descriptor::File(file) => file.file,
        Descriptor::Dir(directory) => directory.dir,
    }
}

/// What there is below a directory: the names, and the sizes of the files by their numbers.
fn look(at: &Path, names: &mut u64, sizes: &mut HashMap<Inode, u64>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let is = entry.metadata().unwrap();
        *names += 1;
        if is.is_dir() {
            look(&entry.path(), names, sizes);
        } else if is.is_file() {
            sizes.insert(is.ino(), is.len());
        }
    }
}

/// What should be counted: what there is, and what is open and has no name any more.
fn expected(rig: &Rig, open: &[Arc<File>]) -> u64 {
    let (mut names, mut sizes) = (0, HashMap::new());
    look(rig.folder.path(), &mut names, &mut sizes);
    let mut seen = Vec::new();
    for file in open {
        let is = file.metadata().unwrap();
        let gone = is.nlink() == 0;
        if gone && !seen.contains(&is.ino()) {
            seen.push(is.ino());
            names += 1;
            sizes.insert(is.ino(), if is.is_file() { is.len() } else { 0 });
        }
    }
    names * ENTRY + sizes.values().sum::<u64>()
}

#[tokio::test]
async fn what_would_go_beyond_is_refused_and_changes_nothing() {
    let rig = Rig::new(4 * ENTRY);
    let full = Err(ErrorCode::InsufficientSpace);
    let a = rig.create("a").await.unwrap();
    assert_eq!(rig.write(&a, At::Offset(0), 8192).await, Ok(8192));
    assert_eq!(rig.write(&a, At::End, 4096).await, Ok(4096));
    assert_eq!(rig.used().await, 4 * ENTRY);
    for at in [At::End, At::Offset(12288), At::Offset(1 << 40)] {
        assert_eq!(rig.write(&a, at, 1).await, full.clone(), "{at:?}");
    }
    assert_eq!(
        rig.set_size(&a, 1 << 40).await,
        Err(ErrorCode::InsufficientSpace)
    );
    assert!(matches!(
        rig.create("b").await,
        Err(ErrorCode::InsufficientSpace)
    ));
    let made = rig.change(|v, root| v.create_directory_at(root, "b".into()));
    assert_eq!(made.await, Err(ErrorCode::InsufficientSpace));
    let made = rig.change(|v, root| v.symlink_at(root, "a".into(), "b".into()));
    assert_eq!(made.await, Err(ErrorCode::InsufficientSpace));
    let made =
        rig.change(|v, root| v.link_at((root, PathFlags::empty(), "a".into()), (root, "b".into())));
    assert_eq!(made.await, Err(ErrorCode::InsufficientSpace));
    assert_eq!(a.metadata().unwrap().len(), 12288);
    assert_eq!(expected(&rig, &[]), 4 * ENTRY);

    // What is there can be used, and written anew.
    assert_eq!(rig.write(&a, At::Offset(100), 8000).await, Ok(8000));
    rig.create("a").await.unwrap();
    rig.open("a", OpenFlags::TRUNCATE).await.unwrap();
    assert_eq!(rig.used().await, ENTRY);
    rig.set_size(&a, 12288).await.unwrap();
    assert_eq!(rig.write(&a, At::Offset(0), 12288).await, Ok(12288));
    rig.unlink("a").await.unwrap();
    drop(a);
    let b = rig.create("b").await.unwrap();
    assert_eq!(rig.write(&b, At::End, 12288).await, Ok(12288));
}

#[tokio::test]
async fn a_file_without_a_name_counts_until_nobody_has_it_open() {
    let rig = Rig::new(3 * ENTRY);
    let a = rig.create("a").await.unwrap();
    let also = rig
        .open("a", OpenFlags::empty())
        .await
        .map(file_of)
        .unwrap();
    rig.write(&a, At::End, 4096).await.unwrap();
    rig.unlink("a").await.unwrap();
    let b = rig.create("b").await.unwrap();
    assert!(rig.write(&b, At::End, 1).await.is_err());
    rig.set_size(&a, 1000).await.unwrap();
    assert_eq!(rig.write(&b, At::End, 3096).await, Ok(3096));
    assert!(rig.write(&a, At::End, 1).await.is_err(), "it still counts");
    drop(a);
    assert!(rig.write(&b, At::End, 1).await.is_err(), "one has it open");
    drop(also);
    assert_eq!(rig.write(&b, At::End, 5096).await, Ok(5096));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_write_at_the_same_time_share_the_room() {
    let rig = Rig::new(ENTRY + 30_000);
    let file = rig.create("a").await.unwrap();
    let writes = (0..40).map(|_| rig.write(&file, At::End, 1000));
    let written = futures::future::join_all(writes).await;
    assert_eq!(written.iter().filter(|done| done.is_ok()).count(), 30);
    assert_eq!(file.metadata().unwrap().len(), 30_000);
    assert_eq!(rig.used().await, ENTRY + 30_000);
}

#[tokio::test]
async fn all_volumes_of_a_host_share_its_room() {
    let space = Arc::new(Space::new(4 * ENTRY));
    let [one, other] = [(); 2].map(|()| Rig::within(3 * ENTRY, space.clone()));
    let (a, b) = (one.create("a").await.unwrap(), other.create("b").await);
    let b = b.unwrap();
    assert_eq!(one.write(&a, At::End, 4096).await, Ok(4096));
    assert!(other.write(&b, At::End, 4097).await.is_err());
    assert_eq!(other.used().await, ENTRY, "and it is counted nowhere");
    one.set_size(&a, 4095).await.unwrap();
    assert_eq!(other.write(&b, At::End, 4097).await, Ok(4097));
    assert!(one.write(&a, At::End, 1).await.is_err());
    drop((other, b));
    assert_eq!(one.write(&a, At::End, 1).await, Ok(1));
}

#[tokio::test]
async fn a_limit_can_be_changed() {
    let rig = Rig::new(ENTRY);
    let a = rig.create("a").await.unwrap();
    assert!(rig.write(&a, At::End, 10).await.is_err());
    rig.quota.set_limit(ENTRY + 10);
    assert_eq!(rig.write(&a, At::End, 10).await, Ok(10));
    rig.quota.set_limit(10);
    assert!(rig.write(&a, At::End, 1).await.is_err());
    assert_eq!(rig.write(&a, At::Offset(0), 10).await, Ok(10));
    rig.set_size(&a, 0).await.unwrap();
    rig.unlink("a").await.unwrap();
}

#[tokio::test]
async fn what_fails_costs_nothing() {
    let rig = Rig::new(10 * ENTRY);
    let reading = {
        rig.create("a").await.unwrap();
        let only_reads = How {
            descriptor: DescriptorFlags::READ,
            ..how(OpenFlags::empty())
        };
        rig.change(move |v, root| v.open_at(root, only_reads, "a".into()))
            .await
            .map(file_of)
            .unwrap()
    };
    assert_eq!(
        rig.write(&reading, At::End, 10).await,
        Err(ErrorCode::BadDescriptor)
    );
    assert!(rig.set_size(&reading, 10).await.is_err());
    let made = rig.change(|v, root| v.create_directory_at(root, "a".into()));
    assert_eq!(made.await, Err(ErrorCode::Exist));
    assert!(
        rig.open("a", OpenFlags::CREATE | OpenFlags::EXCLUSIVE)
            .await
            .is_err()
    );
    assert!(rig.create("no/such/place").await.is_err());
    assert!(rig.unlink("lost").await.is_err());
    assert_eq!(
        rig.write(&reading, At::Offset(u64::MAX), 1).await,
        Err(ErrorCode::FileTooLarge)
    );
    assert_eq!(rig.used().await, ENTRY);
    let mut reads_only = rig.root.clone();
    reads_only.perms = FsPerms::ReadOnly;
    rig.quota.set_limit(0);
    let made = rig.change(move |v, _| v.create_directory_at(&reads_only, "b".into()));
    assert_eq!(
        made.await,
        Err(ErrorCode::NotPermitted),
        "not for want of room"
    );
}

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn name(&mut self) -> String {
        let folder = ["", "", "d/", "e/"][self.roll(4) as usize];
        let name = ["a", "b", "c", "d", "e"][self.roll(5) as usize];
        format!("{folder}{name}")
    }
}

/// Whatever is done, in whatever order, what is counted is what is there.
#[tokio::test]
async fn nothing_is_counted_twice_and_nothing_is_forgotten() {
    let mut done = [0_usize; 9];
    for seed in 1..=6 {
        let rig = Rig::new(64 * ENTRY);
        let (mut dice, mut open) = (Dice(seed), Vec::<Arc<File>>::new());
        for step in 0..400 {
            let (one, other) = (dice.name(), dice.name());
            let which = dice.roll(9);
            let size = dice.roll(30_000);
            let file = (!open.is_empty()).then(|| {
                let index = dice.roll(open.len() as u64) as usize;
                open[index].clone()
            });
            let flags = match dice.roll(4) {
                0 => OpenFlags::CREATE | OpenFlags::TRUNCATE,
                1 => OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
                _ => OpenFlags::CREATE,
            };
            let fine = match (which, file) {
                (0, _) => rig
                    .open(&one, flags)
                    .await
                    .map(file_of)
                    .map(|f| open.push(f))
                    .is_ok(),
                (1, Some(file)) => rig.set_size(&file, size).await.is_ok(),
                (2, Some(file)) => rig.write(&file, At::End, size as usize).await.is_ok(),
                (2 | 1, None) => false,
                (3, _) => rig.unlink(&one).await.is_ok(),
                (4, _) => rig
                    .change(|v, root| v.rename_at((root, one), (root, other)))
                    .await
                    .is_ok(),
                (5, _) => rig
                    .change(|v, root| v.link_at((root, PathFlags::empty(), one), (root, other)))
                    .await
                    .is_ok(),
                (6, _) => rig
                    .change(|v, root| v.symlink_at(root, one, other))
                    .await
                    .is_ok(),
                (7, _) => rig
                    .change(move |v, root| match size % 2 {
                        0 => v.remove_directory_at(root, one),
                        _ => v.create_directory_at(root, one),
                    })
                    .await
                    .is_ok(),
                _ => {
                    let keep = open.len().saturating_sub(3);
                    open.drain(..keep);
                    let directory = rig.open(&one, OpenFlags::DIRECTORY).await;
                    directory.map(file_of).map(|f| open.push(f)).is_ok()
                }
            };
            done[which as usize] += usize::from(fine);
            let (used, expected) = (rig.used().await, expected(&rig, &open));
            assert_eq!(used, expected, "seed {seed}, step {step}: {which}");
            assert!(used <= 64 * ENTRY);
        }
    }
    assert!(done.iter().all(|count| *count > 8), "{done:?}");
}
