//! Machine code on disk: one file for each component and engine configuration, written whole or not at all.
//!
//! A file is what Wasmtime serialises, followed by a trailer with a checksum of it: Wasmtime proves that machine code was made
//! by the same version with the same configuration, but not that it is still what was written. The checksum is against torn
//! writes and bad disks; against people there is the directory's mode.

mod sweep;

use std::{
    fs::{self, DirBuilder, File, Metadata},
    hash::{Hash as _, Hasher},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
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

/// Bytes of machine code that are kept, if nobody says otherwise.
pub(super) const DEFAULT_SPACE: u64 = 4 << 30;

/// A directory that only this process' user can write to.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
    space: u64,
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
    /// Opens or makes the directory, for so many bytes of machine code.
    ///
    /// # Errors
    /// [`EngineError::Cache`]; [`EngineError::UntrustedCache`] if it is another user's, or others may write to it, or put another
    /// one in its place.
    pub fn open(path: &Path, space: u64) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Cache {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let user = rustix::process::geteuid().as_raw();
        let found = fs::symlink_metadata(path).map_err(failed)?;
        let mut why = distrust(&found, user);
        if why.is_none()
            && let Some(parent) = fs::canonicalize(path).map_err(failed)?.parent()
        {
            let found = fs::metadata(parent).map_err(failed)?;
            why = distrust_parent(parent, &found, user);
        }
        match why {
            Some(why) => Err(EngineError::UntrustedCache {
                path: path.to_owned(),
                why,
            }),
            None => Ok(Self {
                directory: path.to_owned(),
                space,
            }),
        }
    }

    /// Removes what nobody will use: leftovers, and what was made for none of these engines.
    pub fn tidy(&self, engines: [(Flavor, &wasmtime::Engine); 2]) {
        let current = engines.map(|(flavor, engine)| (flavor, ending(flavor, engine)));
        sweep::tidy(&self.directory, &current, SystemTime::now());
        sweep::fit(&self.directory, self.space, None);
    }

    /// Removes what has not been used for longest, if there is too much; never this file.
    pub fn fit(&self, new: &Path) {
        sweep::fit(&self.directory, self.space, Some(new));
    }

    /// The file of one component for one engine.
    pub fn path(&self, digest: &Digest, flavor: Flavor, engine: &wasmtime::Engine) -> PathBuf {
        let name = format!("{}{}", digest.hex(), ending(flavor, engine));
        self.directory.join(name)
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
        // Says when it was last used, if the file system lets it.
        let _ = file.set_modified(SystemTime::now());
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
            .prefix(sweep::WRITING)
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

/// How the name of a file for an engine ends.
fn ending(flavor: Flavor, engine: &wasmtime::Engine) -> String {
    let mut hasher = StableHasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let compatibility = hasher.finish();
    format!(".{}.{compatibility:016x}.cwasm", flavor.as_str())
}

/// What speaks against machine code from a directory.
fn distrust(found: &Metadata, user: u32) -> Option<String> {
    const ADVICE: &str = "give it to the user that runs this and `chmod 700` it";
    if !found.is_dir() {
        return Some("it is not a directory".to_owned());
    }
    if found.uid() != user {
        return Some(format!(
            "it belongs to user {}, and this process runs as user {user}; {ADVICE}",
            found.uid()
        ));
    }
    let others = found.mode() & 0o022;
    (others != 0).then(|| {
        format!(
            "its mode {:03o} lets others write to it; {ADVICE}",
            found.mode() & 0o777
        )
    })
}

/// What speaks against the directory that it is in: whoever may rename it may put another one in its place.
fn distrust_parent(path: &Path, found: &Metadata, user: u32) -> Option<String> {
    const STICKY: u32 = 0o1000;
    const ADVICE: &str =
        "use a directory in one that only the user that runs this, or root, can change";
    if found.uid() != user && found.uid() != 0 {
        return Some(format!(
            "{}, which it is in, belongs to user {}; {ADVICE}",
            path.display(),
            found.uid()
        ));
    }
    // In `/tmp` and its like, only a file's owner may rename it.
    let open = found.mode() & 0o022 != 0 && found.mode() & STICKY == 0;
    open.then(|| {
        format!(
            "{}, which it is in, has mode {:03o}, so that others can replace it; {ADVICE}",
            path.display(),
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

    fn open(path: &Path) -> Result<Cache, EngineError> {
        Cache::open(path, DEFAULT_SPACE)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_replace_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("cache");
        for mode in [0o777, 0o770, 0o720] {
            chmod(parent.path(), mode);
            let error = open(&path).unwrap_err().to_string();
            let says = format!("which it is in, has mode {mode:o}");
            assert!(error.contains(&says), "{error}");
        }
        for mode in [0o1777, 0o755, 0o700] {
            chmod(parent.path(), mode);
            open(&path).unwrap();
        }
        let found = fs::metadata(parent.path()).unwrap();
        let others = found.uid() != 0;
        let why = distrust_parent(parent.path(), &found, found.uid() + 1);
        assert_eq!(why.is_some(), others, "{why:?}");
    }

    #[test]
    fn a_directory_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        chmod(directory.path(), 0o770);
        let error = open(directory.path()).unwrap_err().to_string();
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
            open(file.path()),
            Err(EngineError::Cache { .. } | EngineError::UntrustedCache { .. })
        ));
    }
}
