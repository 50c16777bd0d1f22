//! What is in a directory: read as a whole, by a thread that does not wait for the guest, and so much at most.

use std::{fs::File, io, sync::Arc, vec};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi::p2::{
    FsError, FsResult,
    bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode},
};

/// Names of one directory that are listed at most; of a larger one, nothing is.
const MAX_NAMES: usize = 16_384;

/// Directories that a workload may list at a time, over all its instances.
pub(super) const MAX_LISTINGS: usize = 16;

/// What is left of it, for one guest.
pub(super) struct Listing {
    names: vec::IntoIter<DirectoryEntry>,
    _permit: OwnedSemaphorePermit,
}

impl Listing {
    /// Reads a directory.
    ///
    /// # Errors
    /// The system's; `insufficient-memory` for a directory that is too large, or if too many are listed.
    pub async fn read(listings: Arc<Semaphore>, directory: Arc<File>) -> FsResult<Self> {
        let permit = listings.try_acquire_owned();
        let permit = permit.map_err(|_| ErrorCode::InsufficientMemory)?;
        let work = move || Self::read_now(&directory, permit);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(FsError::trap)?
    }

    fn read_now(directory: &File, permit: OwnedSemaphorePermit) -> FsResult<Self> {
        let mut names = Vec::new();
        // One that is mounted is open as a path alone, and a listing has a position of its own.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = openat(directory, ".", flags, Mode::empty()).map_err(io::Error::from)?;
        for entry in Dir::new(own).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if names.len() == MAX_NAMES {
                return Err(ErrorCode::InsufficientMemory.into());
            }
            let type_ = match entry.file_type() {
                // Not all file systems say it here.
                FileType::Unknown => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| {
                        FileType::from_raw_mode(stat.st_mode)
                    }),
                known => known,
            };
            let name = name.to_str().map_err(|_| ErrorCode::IllegalByteSequence)?;
            names.push(DirectoryEntry {
                type_: descriptor_type(type_),
                name: name.to_owned(),
            });
        }
        Ok(Self {
            names: names.into_iter(),
            _permit: permit,
        })
    }
}

impl Iterator for Listing {
    type Item = DirectoryEntry;

    fn next(&mut self) -> Option<DirectoryEntry> {
        self.names.next()
    }
}

const fn descriptor_type(of: FileType) -> DescriptorType {
    match of {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::Unknown => DescriptorType::Unknown,
    }
}
