//! Bytes and the digest that names them, wherever they are.

use std::path::PathBuf;

use bytes::Bytes;

use crate::spec::Digest;

/// Bytes that are here, and their digest.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// For an image: the digest of its manifest or index, which is what `repository@sha256:…` means.
    pub manifest: Option<Digest>,
    /// Where it is.
    pub content: Content,
}

impl Fetched {
    /// These bytes. Hashes them, which takes about a second for a gigabyte.
    #[must_use]
    pub fn in_memory(bytes: Bytes) -> Self {
        Self {
            digest: Digest::of(&bytes),
            manifest: None,
            content: Content::Memory(bytes),
        }
    }
}

/// Where fetched bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// In a file that does not change as long as it exists (an entry of the store).
    File(PathBuf),
}

/// Whether what is on disk may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As the image's pull policy says.
    Policy,
    /// Ask the registry again, unless the policy is `Never`: what is here turned out to be useless. The bytes on disk are
    /// hashed, not only measured.
    Revalidate,
}
