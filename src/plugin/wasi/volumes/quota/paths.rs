//! Changes by name: what is made, and what is gone. The work itself is that of `wasmtime-wasi`, which lets no path lead out
//! of its directory.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

use futures::FutureExt as _;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{
    filesystem::{Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView},
    p2::{
        FsError, FsResult,
        bindings::filesystem::types::{
            DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, HostDescriptor as _,
            OpenFlags, PathFlags,
        },
    },
};

use super::{
    super::ledger::{ENTRY, Inode},
    Change,
};

/// How a file is to be opened.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct How {
    pub path: PathFlags,
    pub open: OpenFlags,
    pub descriptor: DescriptorFlags,
}

/// A table of its own for directories, in which all is done at once, in this thread.
#[derive(Default)]
struct Desk {
    context: WasiFilesystemCtx,
    table: ResourceTable,
}

/// What a name leads to, before it is removed.
enum Named {
    File {
        file: File,
        links: u64,
    },
    Directory(Inode),
    /// A symbolic link.
    Link,
}

impl Desk {
    fn put(&mut self, directory: &Dir) -> FsResult<u32> {
        let (perms, mode) = (directory.perms, directory.open_mode);
        let again = Dir::new(directory.dir.try_clone()?, perms, mode, true);
        Ok(self.table.push(Descriptor::Dir(again))?.rep())
    }

    fn view(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView {
            ctx: &mut self.context,
            table: &mut self.table,
        }
    }

    fn stat(&mut self, this: u32, flags: PathFlags, path: &str) -> FsResult<DescriptorStat> {
        now(self.view().stat_at(borrow(this), flags, path.to_owned()))
    }

    fn open(&mut self, this: u32, how: How, path: String) -> FsResult<Descriptor> {
        let mut view = self.view();
        let opened = now(view.open_at(borrow(this), how.path, path, how.open, how.descriptor))?;
        Ok(self.table.delete(opened)?)
    }

    /// What a name leads to; none if there is nothing, or it cannot be told, so that it stays counted.
    fn look(&mut self, this: u32, path: &str) -> Option<Named> {
        let open = match self.stat(this, PathFlags::empty(), path).ok()?.type_ {
            DescriptorType::SymbolicLink => return Some(Named::Link),
            DescriptorType::Directory => OpenFlags::DIRECTORY,
            _ => OpenFlags::empty(),
        };
        let how = How {
            path: PathFlags::empty(),
            open,
            descriptor: DescriptorFlags::READ,
        };
        Some(match self.open(this, how, path.to_owned()).ok()? {
            Descriptor::Dir(directory) => Named::Directory(directory.dir.metadata().ok()?.ino()),
            Descriptor::File(opened) => {
                let file = opened.file.try_clone().ok()?;
                let links = file.metadata().ok()?.nlink();
                Named::File { file, links }
            }
        })
    }
}

fn borrow(this: u32) -> Resource<Descriptor> {
    Resource::new_borrow(this)
}

/// The outcome of what is done at once.
fn now<T>(work: impl Future<Output = FsResult<T>>) -> FsResult<T> {
    let done = work.now_or_never();
    done.unwrap_or_else(|| Err(io::Error::other("not done at once").into()))
}

impl Change {
    /// Opens a file or a directory, and knows it from then on. One that is made counts.
    pub fn open_at(&mut self, directory: &Dir, how: How, path: String) -> FsResult<Descriptor> {
        let mut desk = Desk::default();
        let this = desk.put(directory)?;
        let changes = how.open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
            && !directory.perms.write_not_permitted();
        let before = changes.then(|| desk.stat(this, how.path, &path).ok());
        let made = match &before {
            Some(None) if how.open.contains(OpenFlags::CREATE) => ENTRY,
            _ => 0,
        };
        self.charge(made)?;
        let opened = desk
            .open(this, how, path)
            .inspect_err(|_| self.count.ledger.credit(made))?;
        if how.open.contains(OpenFlags::TRUNCATE)
            && let Some(Some(before)) = before
            && before.type_ == DescriptorType::RegularFile
        {
            self.count.ledger.credit(before.size);
        }
        let file = match &opened {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(directory) => &directory.dir,
        };
        let inode = self.quota.admit(file)?;
        self.count.ledger.has_name(inode);
        Ok(opened)
    }

    /// Makes a directory, which counts.
    pub fn create_directory_at(&mut self, directory: &Dir, path: String) -> FsResult<()> {
        self.make(directory, |desk, this| {
            now(desk.view().create_directory_at(borrow(this), path))
        })
    }

    /// Makes a symbolic link, which counts.
    pub fn symlink_at(&mut self, directory: &Dir, to: String, path: String) -> FsResult<()> {
        self.make(directory, |desk, this| {
            now(desk.view().symlink_at(borrow(this), to, path))
        })
    }

    /// Gives a file one more name, which counts. Both directories are of this volume.
    pub fn link_at(
        &mut self,
        (from, flags, old): (&Dir, PathFlags, String),
        (to, new): (&Dir, String),
    ) -> FsResult<()> {
        self.make(from, |desk, this| {
            let to = desk.put(to)?;
            let mut view = desk.view();
            now(view.link_at(borrow(this), flags, old, borrow(to), new))
        })
    }

    fn make(
        &mut self,
        directory: &Dir,
        work: impl FnOnce(&mut Desk, u32) -> FsResult<()>,
    ) -> FsResult<()> {
        let mut desk = Desk::default();
        let this = desk.put(directory)?;
        if directory.perms.write_not_permitted() {
            // Refused, and for that reason.
            return work(&mut desk, this);
        }
        self.charge(ENTRY)?;
        work(&mut desk, this).inspect_err(|_| self.count.ledger.credit(ENTRY))
    }

    /// Removes a name of a file, or a symbolic link.
    pub fn unlink_file_at(&mut self, directory: &Dir, path: String) -> FsResult<()> {
        let mut desk = Desk::default();
        let this = desk.put(directory)?;
        let named = desk.look(this, &path);
        now(desk.view().unlink_file_at(borrow(this), path))?;
        self.removed(named);
        Ok(())
    }

    /// Removes a directory.
    pub fn remove_directory_at(&mut self, directory: &Dir, path: String) -> FsResult<()> {
        let mut desk = Desk::default();
        let this = desk.put(directory)?;
        let named = desk.look(this, &path);
        now(desk.view().remove_directory_at(borrow(this), path))?;
        self.removed(named);
        Ok(())
    }

    /// Moves within this volume. What had the name is gone.
    pub fn rename_at(
        &mut self,
        (from, old): (&Dir, String),
        (to, new): (&Dir, String),
    ) -> FsResult<()> {
        // A directory may become larger by a name.
        self.room()?;
        let mut desk = Desk::default();
        let (this, to) = (desk.put(from)?, desk.put(to)?);
        let named = desk.look(to, &new);
        let mut view = desk.view();
        now(view.rename_at(borrow(this), old.clone(), borrow(to), new))?;
        // If both names were one file's, both still are.
        let left = desk.stat(this, PathFlags::empty(), &old);
        if left.is_err_and(|error| is(&error, ErrorCode::NoEntry)) {
            self.removed(named);
        }
        Ok(())
    }

    fn removed(&mut self, named: Option<Named>) {
        match named {
            None => {}
            Some(Named::Link) => self.count.ledger.credit(ENTRY),
            Some(Named::Directory(inode)) => {
                self.count.ledger.gone(inode, 0, self.quota.is_open(inode));
            }
            Some(Named::File { file, links }) => {
                let Ok(now) = file.metadata() else { return };
                if now.nlink() == 0 {
                    let is_open = self.quota.is_open(now.ino());
                    self.count.ledger.gone(now.ino(), now.len(), is_open);
                } else if now.nlink() < links {
                    self.count.ledger.credit(ENTRY);
                }
            }
        }
    }
}

fn is(error: &FsError, code: ErrorCode) -> bool {
    error.downcast_ref() == Some(&code)
}
