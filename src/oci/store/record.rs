//! What the store remembers, and the form in which it is written: JSON, and a line with its SHA-256.

use std::{collections::BTreeSet, io};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    oci::manifest::Layer,
    spec::{Digest, ImageRef},
};

/// Credentials remembered for one reference. Passwords that rotate would let the list grow without end; the cost of a
/// forgotten one is one request.
const MAX_CREDENTIALS: usize = 64;

/// Repositories remembered for one blob; the cost of a forgotten one is one download.
const MAX_REPOSITORIES: usize = 256;

/// A salted hash of a credential; equal for equal credentials on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CredentialHash(String);

impl CredentialHash {
    pub(super) fn new(digest: Digest) -> Self {
        Self(digest.hex().to_owned())
    }
}

/// What opened something at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing was needed.
    Anonymous,
    /// This credential.
    Credential(CredentialHash),
}

/// What a reference stands for, and who may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The reference, in normal form.
    pub reference: String,
    /// Digest of its manifest, or index.
    pub manifest: Digest,
    /// Digest of the one WebAssembly layer.
    layer: Digest,
    /// The layer's size in bytes.
    size: u64,
    /// Whether the registry gave it to a stranger.
    anonymous: bool,
    /// Credentials to which the registry gave it, the newest last.
    credentials: Vec<CredentialHash>,
}

impl Record {
    pub(super) fn new(reference: &ImageRef, manifest: &Digest, layer: &Layer) -> Self {
        Self {
            reference: reference.to_string(),
            manifest: manifest.clone(),
            layer: layer.digest.clone(),
            size: layer.size,
            anonymous: false,
            credentials: Vec::new(),
        }
    }

    /// The layer.
    pub(crate) fn layer(&self) -> Layer {
        Layer {
            digest: self.layer.clone(),
            size: self.size,
        }
    }

    /// The proof that somebody with these credentials may use the image, if there is one.
    pub(crate) fn proof<'a>(
        &self,
        mut hashes: impl Iterator<Item = &'a CredentialHash>,
    ) -> Option<Access> {
        if self.anonymous {
            return Some(Access::Anonymous);
        }
        hashes
            .find(|hash| self.credentials.contains(hash))
            .map(|hash| Access::Credential(hash.clone()))
    }

    pub(super) fn prove(&mut self, access: &Access) {
        match access {
            Access::Anonymous => self.anonymous = true,
            Access::Credential(hash) if self.credentials.contains(hash) => {}
            Access::Credential(hash) => {
                if self.credentials.len() >= MAX_CREDENTIALS {
                    self.credentials.remove(0);
                }
                self.credentials.push(hash.clone());
            }
        }
    }
}

/// Whence a blob's bytes came.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Whether somebody sends them to strangers.
    public: bool,
    /// Repositories (`registry/path`) that sent them.
    repositories: BTreeSet<String>,
}

impl Origin {
    /// Whether a reader of `repository` may have the bytes. A stranger may only have what was sent to a stranger.
    pub(super) fn allows(&self, repository: &str, access: &Access) -> bool {
        self.public || (*access != Access::Anonymous && self.repositories.contains(repository))
    }

    /// Adds a source; false if nothing changed.
    pub(super) fn add(&mut self, repository: &str, access: &Access) -> bool {
        let public = *access == Access::Anonymous && !self.public;
        self.public |= public;
        if self.repositories.len() >= MAX_REPOSITORIES {
            self.repositories.pop_first();
        }
        self.repositories.insert(repository.to_owned()) || public
    }
}

/// A record as it is written.
pub(super) fn seal<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record)?;
    let sum = Digest::of(&bytes);
    bytes.extend_from_slice(b"\n");
    bytes.extend_from_slice(sum.as_str().as_bytes());
    Ok(bytes)
}

/// The record in what was read, if that is whole.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().rposition(|&b| b == b'\n')?;
    let (json, sum) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    if Digest::of(json).as_str().as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}
