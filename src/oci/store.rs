//! The node's image store: blobs by digest, what each reference stands for, and who may use it.
//!
//! ```text
//! blobs/sha256/HEX    bytes whose SHA-256 is HEX; they never change
//! origins/HEX         whence the bytes came: see Origin
//! refs/HEX            what a reference stands for, and who proved that they may read it: see Record
//! salt                32 random bytes, readable by the agent only
//! tmp/                downloads under way, a directory for each process
//! ```
//!
//! # Guarantees
//! A file other than those in `tmp` is whole or absent: it is written elsewhere, synced, and renamed. Small files end in a
//! checksum of the rest; one that is torn all the same counts as absent. Nothing is believed because it could not be read.
//!
//! # Who may use what is here
//! A private image that one workload pulled is not to be had by another from the node's disk. So a reference's record keeps
//! the credentials that opened it (salted hashes, no text), and a blob's origin keeps the repositories that really sent its
//! bytes. Naming a digest proves nothing: a registry of the attacker's own can list any digest in a manifest.

mod record;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use rustls::crypto::ring::default_provider;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};

use super::manifest::Layer;
use crate::spec::{Credential, Digest, ImageRef};

use record::Origin;
pub(crate) use record::{Access, CredentialHash, Record};

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StoreError {
    /// What was tried: `write`, `read`, …
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    /// Whether the disk, or the agent's share of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// The store of one node. Its functions block: call them off the async threads.
pub(crate) struct Store {
    root: PathBuf,
    salt: Vec<u8>,
    /// Temporary files of this process; removed with it.
    scratch: TempDir,
    /// Held as long as `scratch` is in use.
    _in_use: File,
    /// One change of an origin or a record at a time.
    changes: Mutex<()>,
}

impl Store {
    /// Opens or makes the store at `root`, and removes what processes that are gone left half done.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        for dir in ["blobs/sha256", "origins", "refs", "tmp"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|e| failed("make", &dir, e))?;
        }
        let gate = root.join("lock");
        let locked = File::create(&gate).and_then(|file| file.lock().map(|()| file));
        let _opening = locked.map_err(|e| failed("lock", &gate, e))?;
        let tmp = root.join("tmp");
        sweep(&tmp);
        let scratch = TempDir::new_in(&tmp).map_err(|e| failed("make a directory in", &tmp, e))?;
        let in_use =
            File::create(scratch.path().join("lock")).and_then(|file| file.lock().map(|()| file));
        let in_use = in_use.map_err(|e| failed("lock", scratch.path(), e))?;
        let salt = salt(root)?;
        Ok(Self {
            root: root.to_owned(),
            salt,
            scratch,
            _in_use: in_use,
            changes: Mutex::default(),
        })
    }

    /// The store's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes of a digest are, if they are here.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the layer is here, whole, and sent by `repository` to somebody with this access (or by anyone to everyone).
    /// With `hash`, a blob of the wrong content is removed. The size is the word of whoever asks, and removes nothing.
    pub(crate) fn holds(
        &self,
        layer: &Layer,
        repository: &str,
        access: &Access,
        hash: bool,
    ) -> bool {
        let path = self.blob(&layer.digest);
        let Ok(meta) = fs::metadata(&path) else {
            return false;
        };
        if meta.len() != layer.size {
            return false;
        }
        if hash && !has_digest(&path, &layer.digest) {
            tracing::warn!(digest = %layer.digest, "a blob of the image store is damaged and is fetched again");
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "the damaged blob cannot be removed");
            }
            return false;
        }
        let origin: Origin = self.read(&self.origin(&layer.digest)).unwrap_or_default();
        origin.allows(repository, access)
    }

    /// A file for a download.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let dir = self.scratch.path();
        NamedTempFile::new_in(dir).map_err(|e| failed("make a file in", dir, e))
    }

    /// Keeps a finished download whose size and digest were checked.
    pub(crate) fn keep(
        &self,
        file: NamedTempFile,
        digest: &Digest,
        repository: &str,
        access: &Access,
    ) -> Result<(), StoreError> {
        put(file, &self.blob(digest))?;
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.origin(digest);
        let mut origin: Origin = self.read(&path).unwrap_or_default();
        if origin.add(repository, access) {
            self.write(&path, &origin)
        } else {
            Ok(())
        }
    }

    /// What is known of a reference.
    pub(crate) fn recall(&self, reference: &ImageRef) -> Option<Record> {
        let name = reference.to_string();
        self.read::<Record>(&self.reference(&name))
            .filter(|record| record.reference == name)
    }

    /// Notes that a reference is in use, by the time of its record.
    pub(crate) fn touch(&self, reference: &ImageRef) {
        let path = self.reference(&reference.to_string());
        let touched = File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%error, path = %path.display(), "the use of an image cannot be noted");
        }
    }

    /// Digests of manifests and of their layers that are here, those used last first; at most this many.
    pub(crate) fn newest(&self, most: usize) -> Vec<Digest> {
        let used = |entry: fs::DirEntry| {
            let used = entry.metadata().and_then(|meta| meta.modified()).ok()?;
            Some((used, entry.path()))
        };
        let records = fs::read_dir(self.root.join("refs"));
        let mut records: Vec<_> = records
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(used)
            .collect();
        records.sort_unstable_by(|a, b| b.cmp(a));
        let mut digests = Vec::new();
        for (_, path) in records {
            let Some(record) = self.read::<Record>(&path) else {
                continue;
            };
            let layer = record.layer().digest;
            if self.blob(&layer).exists() {
                for digest in [record.manifest, layer] {
                    if !digests.contains(&digest) {
                        digests.push(digest);
                    }
                }
            }
            if digests.len() >= most {
                break;
            }
        }
        digests.truncate(most);
        digests
    }

    /// Notes what a reference stands for, and that this access was proved. Proofs for what it stood for before are dropped.
    pub(crate) fn remember(
        &self,
        reference: &ImageRef,
        manifest: &Digest,
        layer: &Layer,
        access: &Access,
    ) -> Result<(), StoreError> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self
            .recall(reference)
            .filter(|r| r.manifest == *manifest && r.layer() == *layer);
        let mut record = old
            .clone()
            .unwrap_or_else(|| Record::new(reference, manifest, layer));
        record.prove(access);
        if old.as_ref() == Some(&record) {
            return Ok(());
        }
        self.write(&self.reference(&record.reference), &record)
    }

    /// The hash by which a credential for a registry is remembered.
    pub(crate) fn hash(&self, registry: &str, credential: &Credential) -> CredentialHash {
        let parts = match credential {
            Credential::Basic { username, password } => ["basic", username, password.expose()],
            Credential::Bearer(token) => ["bearer", "", token.expose()],
            Credential::Identity(token) => ["identity", "", token.expose()],
        };
        let mut hash = Sha256::new();
        hash.update(&self.salt);
        // Lengths keep `ab` + `c` apart from `a` + `bc`.
        for part in [registry].into_iter().chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        CredentialHash::new(Digest::from_hash(&hash.finalize()))
    }

    fn origin(&self, digest: &Digest) -> PathBuf {
        self.root.join("origins").join(digest.hex())
    }

    fn reference(&self, name: &str) -> PathBuf {
        self.root
            .join("refs")
            .join(Digest::of(name.as_bytes()).hex())
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a record of the image store cannot be read");
                return None;
            }
        };
        let record = record::open(&bytes);
        if record.is_none() {
            tracing::warn!(path = %path.display(), "a record of the image store is damaged and is dropped");
        }
        record
    }

    fn write<T: serde::Serialize>(&self, path: &Path, record: &T) -> Result<(), StoreError> {
        let mut file = self.temporary()?;
        let sealed = record::seal(record).map_err(|e| failed("write", path, e))?;
        file.write_all(&sealed)
            .map_err(|e| failed("write", path, e))?;
        put(file, path)
    }
}

/// Makes a finished temporary file permanent.
fn put(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    file.as_file()
        .sync_all()
        .map_err(|e| failed("write", path, e))?;
    file.persist(path)
        .map_err(|e| failed("write", path, e.error))?;
    // The name is on disk only when its directory is.
    let dir = path.parent().unwrap_or(path);
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| failed("write", path, e))
}

/// Removes the temporary directories of processes that are gone: those whose lock is free.
fn sweep(tmp: &Path) {
    for dir in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let dir = dir.path();
        let free = match File::open(dir.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if free && let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(%error, path = %dir.display(), "a left-over of the image store cannot be removed");
        }
    }
}

/// The salt, made when the store is. Without one (or with a torn one) no old proof is believed.
fn salt(root: &Path) -> Result<Vec<u8>, StoreError> {
    const LENGTH: usize = 32;
    let path = root.join("salt");
    match fs::read(&path) {
        Ok(salt) if salt.len() == LENGTH => return Ok(salt),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("read", &path, e)),
    }
    let mut salt = vec![0; LENGTH];
    let random = default_provider().secure_random.fill(&mut salt);
    random.map_err(|_| {
        failed(
            "make",
            &path,
            io::Error::other("the system gives no random bytes"),
        )
    })?;
    // Temporary files are made readable by their owner only.
    let mut file = NamedTempFile::new_in(root).map_err(|e| failed("write", &path, e))?;
    file.write_all(&salt)
        .map_err(|e| failed("write", &path, e))?;
    put(file, &path)?;
    Ok(salt)
}

/// Whether a file's content has this digest.
fn has_digest(path: &Path, digest: &Digest) -> bool {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Digest::from_hash(&hash.finalize()) == *digest,
            Ok(n) => hash.update(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError {
        action,
        path: path.to_owned(),
        source,
    }
}
