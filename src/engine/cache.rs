//! Machine code on disk: one file for each component and engine configuration, written whole or not at all.
//!
//! A file is what Wasmtime serialises, followed by a trailer with a checksum of it: Wasmtime proves that machine code was made
//! by the same version with the same configuration, but not that it is still what was written. The checksum is against torn
//! writes and bad disks; against people there is the directory's mode.

use std::{
    fs::{self, DirBuilder, File, Metadata},
    hash::{Hash as _, Hasher},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use super::{EngineError, Flavor};
use crate::spec::Digest;

/// Says that a trailer follows, and how it is made.
const MAGIC: [u8; 12] = *b"washlet-crc1";

/// Bytes after the machine code: the magic word, and the CRC-32 of all that is before it.
const TRAILER: usize = MAGIC.len() + 4;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// A directory that only this process' user can write to.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

/// Why a cached file cannot be used, or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("Wasmtime refuses it: {0:#}")]
    Refused(wasmtime::Error),
}

impl Cache {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`EngineError::Cache`]; [`EngineError::UntrustedCache`] if it is another user's, or others may write to it.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Cache {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        match distrust(&found, rustix::process::geteuid().as_raw()) {
            Some(why) => Err(EngineError::UntrustedCache {
                path: path.to_owned(),
                why,
            }),
            None => Ok(Self {
                directory: path.to_owned(),
            }),
        }
    }

    /// The file of one component for one engine.
    pub fn path(&self, digest: &Digest, flavor: Flavor, engine: &wasmtime::Engine) -> PathBuf {
        let mut hasher = StableHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compatibility = hasher.finish();
        self.directory.join(format!(
            "{}.{}.{compatibility:016x}.cwasm",
            digest.hex(),
            flavor.as_str()
        ))
    }

    /// Maps a file that [`Cache::store`] wrote; none if there is none.
    ///
    /// # Errors
    /// [`CacheError`]: the file is there but useless, and should be written anew.
    pub fn load(path: &Path, engine: &wasmtime::Engine) -> Result<Option<Component>, CacheError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        verify(&file)?;
        deserialize_file(engine, path)
            .map(Some)
            .map_err(CacheError::Refused)
    }

    /// Writes machine code that a compiler has just made, and maps it from there, so that the pages are the file's and can be
    /// dropped by the system when memory is short.
    ///
    /// # Errors
    /// [`CacheError`]: nothing was written, or what was written cannot be used.
    pub fn store(
        path: &Path,
        engine: &wasmtime::Engine,
        code: &mut impl io::Read,
    ) -> Result<Component, CacheError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".writing-")
            .tempfile_in(directory)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = code.read(&mut buffer)?;
            let part = buffer.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            hasher.update(part);
            file.write_all(part)?;
        }
        file.write_all(&MAGIC)?;
        file.write_all(&hasher.finalize().to_le_bytes())?;
        // Before the name appears: after a power cut it must not name a file of zeroes.
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        deserialize_file(engine, path).map_err(CacheError::Refused)
    }
}

/// What speaks against machine code from a directory.
fn distrust(found: &Metadata, user: u32) -> Option<String> {
    if !found.is_dir() {
        return Some("it is not a directory".to_owned());
    }
    if found.uid() != user {
        return Some(format!(
            "it belongs to user {}, and this process runs as user {user}",
            found.uid()
        ));
    }
    let others = found.mode() & 0o022;
    (others != 0).then(|| {
        format!(
            "its mode {:03o} lets others write to it",
            found.mode() & 0o777
        )
    })
}

/// Reads the file once and compares its checksum.
fn verify(mut file: &File) -> Result<(), CacheError> {
    let size = file.seek(io::SeekFrom::End(0))?;
    let code = size
        .checked_sub(TRAILER as u64)
        .ok_or(CacheError::Checksum)?;
    file.rewind()?;
    let mut rest = code;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    while rest > 0 {
        let part = usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..part).unwrap_or_default();
        file.read_exact(part)?;
        hasher.update(part);
        rest -= part.len() as u64;
    }
    let mut trailer = [0; TRAILER];
    file.read_exact(&mut trailer)?;
    let (magic, sum) = trailer.split_at(MAGIC.len());
    if magic == MAGIC && sum == hasher.finalize().to_le_bytes() {
        Ok(())
    } else {
        Err(CacheError::Checksum)
    }
}

#[expect(
    unsafe_code,
    reason = "Wasmtime cannot prove that a file is its own; the directory's owner and mode do"
)]
fn deserialize_file(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file must have been written by Wasmtime and must not change while it is mapped. Only this user can write to
    // the directory (`Cache::open`), `Cache::store` puts only what Wasmtime serialised there, by renaming a finished file, so
    // that a file that is mapped is never written to again; and its checksum has just been compared, or it has just been
    // written. Wasmtime itself refuses what another version, configuration or processor made.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Makes machine code ready to run that a compiler has just made.
#[expect(
    unsafe_code,
    reason = "Wasmtime cannot prove that bytes are its own; they come from it, or from a process that the host's owner named"
)]
pub(super) fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must have been made by Wasmtime. They were, by this process or by one whose program is to be trusted as
    // this one's own (`CompilerProcess`), whose standard output nobody else has. Wasmtime itself refuses what another version,
    // configuration or processor made.
    unsafe { Component::deserialize(engine, code) }
}

/// A hasher whose result is the same in every process.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.clone().finalize();
        hash.first_chunk()
            .map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        Cache::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = Cache::open(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("mode 770") && error.contains("chmod 700"),
            "{error}"
        );
        let found = fs::metadata(directory.path()).unwrap();
        assert!(
            distrust(&found, found.uid() + 1)
                .unwrap()
                .contains("belongs to user")
        );
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            Cache::open(file.path()),
            Err(EngineError::Cache { .. } | EngineError::UntrustedCache { .. })
        ));
    }
}
