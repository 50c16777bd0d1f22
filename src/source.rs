//! Where a component's bytes come from: memory, a file, or a registry; the result is always a digest and the bytes it names.

#[cfg(feature = "oci")]
use std::sync::Arc;
use std::{io, path::PathBuf};

use crate::{
    fault::{Class, Fault, Reason, Stage},
    spec::Source,
};

pub use crate::content::{Content, Fetched, Freshness};

/// Largest file that is read as a component, in bytes.
const MAX_FILE: u64 = 512 * 1024 * 1024;

/// A source gave no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is larger than a component may be.
    #[error("{} has {size} bytes; a component may have {MAX_FILE}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The image cannot be pulled.
    #[cfg(feature = "oci")]
    #[error(transparent)]
    Pull(Box<crate::oci::PullError>),
    /// This host has no registry client.
    #[error(
        "cannot pull {image}: this host was set up without registries; use a file, or give it one"
    )]
    NoRegistry {
        /// The image.
        image: String,
    },
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::File { source, .. } => {
                let reason = match source.kind() {
                    io::ErrorKind::NotFound => Reason::ImageNotFound,
                    io::ErrorKind::PermissionDenied => Reason::Forbidden,
                    _ => Reason::ErrImagePull,
                };
                Self::new(Stage::Fetch, reason, message).class(Class::Retry)
            }
            FetchError::TooLarge { .. } => {
                Self::new(Stage::Fetch, Reason::ErrImagePull, message).class(Class::Retry)
            }
            #[cfg(feature = "oci")]
            FetchError::Pull(error) => (*error).into(),
            FetchError::NoRegistry { .. } => {
                Self::new(Stage::Fetch, Reason::UnsupportedSpec, message)
            }
        }
    }
}

/// Gets the bytes of any [`Source`]; cheap to clone.
#[derive(Clone, Default)]
pub struct Fetcher {
    #[cfg(feature = "oci")]
    registry: Option<Arc<crate::oci::Puller>>,
}

impl Fetcher {
    /// A fetcher that reads memory and files, and refuses images.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same fetcher, which also pulls images.
    #[cfg(feature = "oci")]
    #[must_use]
    pub fn with_registry(mut self, puller: Arc<crate::oci::Puller>) -> Self {
        self.registry = Some(puller);
        self
    }

    /// Gets the bytes. A file is read anew each time; an image comes from the store if its policy allows it.
    ///
    /// # Errors
    /// [`FetchError`], which converts into a [`Fault`].
    pub async fn fetch(
        &self,
        source: &Source,
        freshness: Freshness,
    ) -> Result<Fetched, FetchError> {
        match source {
            Source::Bytes(bytes) => {
                let bytes = bytes.clone();
                let task = tokio::task::spawn_blocking(move || Fetched::in_memory(bytes)).await;
                task.map_err(|e| unreadable(PathBuf::new(), io::Error::other(e)))
            }
            Source::File(path) => {
                let file = path.clone();
                let task = tokio::task::spawn_blocking(move || read(file)).await;
                task.unwrap_or_else(|e| Err(unreadable(path.clone(), io::Error::other(e))))
            }
            Source::Image(image) => {
                #[cfg(feature = "oci")]
                if let Some(registry) = &self.registry {
                    let pulled = registry.pull(image, freshness).await;
                    return pulled.map_err(|e| FetchError::Pull(Box::new(e)));
                }
                let _ = freshness;
                Err(FetchError::NoRegistry {
                    image: image.reference.to_string(),
                })
            }
        }
    }
}

fn read(path: PathBuf) -> Result<Fetched, FetchError> {
    use io::Read as _;
    let open = || {
        let file = std::fs::File::open(&path)?;
        let size = file.metadata()?.len();
        if size > MAX_FILE {
            return Ok((size, Vec::new()));
        }
        let mut bytes = Vec::new();
        // A file may grow, and a device has no size.
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok((size.max(bytes.len() as u64), bytes))
    };
    match open() {
        Ok((size, _)) if size > MAX_FILE => Err(FetchError::TooLarge { path, size }),
        Ok((_, bytes)) => Ok(Fetched::in_memory(bytes.into())),
        Err(e) => Err(unreadable(path, e)),
    }
}

fn unreadable(path: PathBuf, source: io::Error) -> FetchError {
    FetchError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Digest;
    use bytes::Bytes;

    #[tokio::test]
    async fn memory_and_files_give_their_digest() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.wasm");
        std::fs::write(&path, "abc").expect("a file");
        for source in [
            Source::Bytes(Bytes::from_static(b"abc")),
            Source::File(path),
        ] {
            let fetched = Fetcher::new()
                .fetch(&source, Freshness::Policy)
                .await
                .expect("bytes");
            assert_eq!(fetched.digest, Digest::of(b"abc"));
            assert!(matches!(fetched.content, Content::Memory(bytes) if bytes == "abc"));
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let source = Source::File("/does/not/exist.wasm".into());
        let error = Fetcher::new()
            .fetch(&source, Freshness::Policy)
            .await
            .expect_err("no file");
        let fault = Fault::from(error);
        assert_eq!(
            (fault.stage, fault.reason, fault.class),
            (Stage::Fetch, Reason::ImageNotFound, Class::Retry)
        );
        assert!(fault.message.contains("/does/not/exist.wasm"), "{fault}");
    }

    #[tokio::test]
    async fn a_file_without_end_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("large");
        let file = std::fs::File::create(&path).expect("a file");
        // A hole: takes no space on disk.
        file.set_len(MAX_FILE + 1).expect("a sparse file");
        let error = read(path).expect_err("too large");
        assert!(matches!(error, FetchError::TooLarge { size, .. } if size == MAX_FILE + 1));
    }

    #[tokio::test]
    async fn an_image_needs_a_registry() {
        let image = crate::spec::Image {
            reference: "r.io/a:1".parse().expect("a reference"),
            policy: crate::spec::PullPolicy::Never,
            credentials: Vec::new(),
            unusable_secrets: Vec::new(),
        };
        let error = Fetcher::new()
            .fetch(&Source::Image(image), Freshness::Policy)
            .await
            .expect_err("no registry");
        assert_eq!(Fault::from(error).reason, Reason::UnsupportedSpec);
    }
}
