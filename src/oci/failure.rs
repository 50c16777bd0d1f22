//! Why a pull failed: one variant for each step of it, and for each a reason, a class and the way to mend it.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use super::{
    hosts::HostsError, manifest::ManifestError, request::RequestError, store::StoreError,
    transport::TransportError,
};
use crate::{
    fault::{Class, Fault, Reason, Stage},
    spec::{Digest, ImageRef},
};

/// An image could not be pulled. Its message names the image, the registry's answer, every secret that was tried, and what
/// to do; never the content of a secret.
#[derive(Debug, Clone)]
pub struct PullError {
    /// The image.
    pub image: ImageRef,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
    /// Pull secrets that could not be used, each with the reason.
    pub unusable_secrets: Vec<String>,
    /// Pull secrets that are for other images, each with the image that it is for.
    pub unmatched_secrets: Vec<String>,
    /// The step that failed.
    pub failure: Arc<Failure>,
}

/// One try to read from a registry that the registry refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where the credential came from (`secret default/my-registry`); none for a try without one.
    pub origin: Option<String>,
    /// What came of it: an HTTP status, or a word.
    pub outcome: String,
}

/// The step that failed, and how.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The policy is `Never`, and the image is not here, or not for this workload.
    #[error("{}", if *.held {
        "the image is on this node, but no credential of the workload is known to open it, and its pull policy is Never"
    } else {
        "the image is not on this node, and its pull policy is Never"
    })]
    NeverPull {
        /// Whether the image is here.
        held: bool,
    },
    /// A file of `certs.d` is unusable.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// `certs.d` names no host that may be asked.
    #[error("no host in the registry's hosts.toml has the capability `{capability}`")]
    NoHost {
        /// `pull` or `resolve`.
        capability: &'static str,
    },
    /// The HTTP client could not be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A registry did not answer, or refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The manifest names nothing that can be run.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The content is not what its digest names.
    #[error("the registry sent {what} that is not {expected}: {found}")]
    Mismatch {
        /// `a manifest` or `a layer`.
        what: &'static str,
        /// The digest that was asked for.
        expected: Digest,
        /// What came instead: another digest, or too few or too many bytes.
        found: String,
    },
    /// The content is larger than allowed.
    #[error("{what} of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// `a manifest`, `a layer` or `a token`.
        what: &'static str,
        /// Its size in bytes, or what has arrived of it.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// The status of the registry's answer, if that is the failure.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Request(e) => e.status(),
            _ => None,
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::NeverPull { .. } => Reason::ErrImageNeverPull,
            Self::Hosts(_) | Self::NoHost { .. } | Self::Transport(_) => {
                Reason::RegistryUnavailable
            }
            Self::Request(e) => e.reason(),
            Self::Manifest(ManifestError::Malformed(_)) | Self::TooLarge { .. } => {
                Reason::ErrImagePull
            }
            Self::Manifest(_) => Reason::UnsupportedMediaType,
            Self::Mismatch { .. } => Reason::DigestMismatch,
            Self::Store(e) if e.is_full() => Reason::FreeDiskSpaceFailed,
            Self::Store(_) => Reason::ErrImagePull,
        }
    }
}

impl PullError {
    /// The word for it. A refusal is [`ReferenceNotFound`](Reason::ReferenceNotFound) if pull secrets are missing or broken:
    /// they are what has to be mended. Registries tell strangers that a private image does not exist, so the same holds for
    /// an image that is not found by a try without credentials.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let reason = self.failure.reason();
        let refused =
            reason == Reason::Unauthorized || (reason == Reason::ImageNotFound && self.anonymous());
        if refused && !self.unusable_secrets.is_empty() {
            Reason::ReferenceNotFound
        } else {
            reason
        }
    }

    /// When to try again. Everything about a pull can be mended outside of the workload (a secret, a tag, a node's files), so
    /// nothing is [`Terminal`](Class::Terminal).
    #[must_use]
    pub fn class(&self) -> Class {
        match &*self.failure {
            Failure::Request(e) => e.retry_after().map_or(Class::Retry, Class::Wait),
            _ => Class::Retry,
        }
    }

    /// Whether no credential was tried.
    fn anonymous(&self) -> bool {
        self.attempts.iter().all(|a| a.origin.is_none())
    }

    /// What was tried, if the registry's refusal makes that worth telling.
    fn tried(&self) -> Option<String> {
        let named: Vec<_> = self
            .attempts
            .iter()
            .filter_map(|a| Some(format!("{}: {}", a.origin.as_ref()?, a.outcome)))
            .collect();
        (!named.is_empty()).then(|| format!("tried {}", named.join(", ")))
    }

    fn advice(&self) -> String {
        let registry = self.image.registry();
        match self.reason() {
            Reason::ReferenceNotFound => {
                format!(
                    "create or correct these pull secrets: {}",
                    self.unusable_secrets.join(", ")
                )
            }
            Reason::Unauthorized if !self.anonymous() => {
                "check user name, password and rights in these secrets".to_owned()
            }
            Reason::Unauthorized if self.unmatched_secrets.is_empty() => {
                "the workload names no pull secret; add one with `imagePullSecret`".to_owned()
            }
            Reason::Unauthorized => {
                format!(
                    "no pull secret is for this image on {registry}: {}",
                    self.unmatched_secrets.join(", ")
                )
            }
            Reason::ImageNotFound if self.anonymous() => {
                "check name and tag; a private image may need a pull secret".to_owned()
            }
            Reason::ImageNotFound => {
                "check name and tag, and that the secret's user may read it".to_owned()
            }
            Reason::UnsupportedMediaType => {
                "push the component as one layer of type `application/wasm`".to_owned()
            }
            Reason::FreeDiskSpaceFailed => "free space in the agent's state directory".to_owned(),
            Reason::ErrImageNeverPull => "use another imagePullPolicy".to_owned(),
            _ => match &*self.failure {
                Failure::Request(e) => e.advice(registry).unwrap_or_default(),
                _ => String::new(),
            },
        }
    }
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot pull {}: {}", self.image, self.failure)?;
        if let Some(tried) = self.tried() {
            write!(f, "; {tried}")?;
        }
        match self.advice() {
            advice if advice.is_empty() => Ok(()),
            advice => write!(f, "; {advice}"),
        }
    }
}

impl Error for PullError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.failure)
    }
}

impl From<PullError> for Fault {
    fn from(error: PullError) -> Self {
        Self::new(Stage::Fetch, error.reason(), error.to_string()).class(error.class())
    }
}

/// The text of the deepest cause, where the operating system or rustls says what happened.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// The first cause of type `T`.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|e| e.downcast_ref())
}

/// An error and its causes. `io::Error` hides the error that it wraps from `source`, so that is asked for by itself.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    /// No chain of causes is this long, unless it is a circle.
    const MOST: usize = 32;
    let next = |e: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *e;
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), next).take(MOST)
}

/// Time for a message: `30 s`, `1.5 s`.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
