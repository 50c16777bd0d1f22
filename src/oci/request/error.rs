//! Why a request failed, and what that means: a reason, whether another credential may help, and how to mend it.

use std::{fmt, time::Duration};

use reqwest::{Response, StatusCode};

use super::{MAX_ERROR_BODY, Patience, body, detail, retry_after};
use crate::{
    fault::Reason,
    oci::failure::{find, root_cause, seconds},
};

/// How long to stay away from a registry that says "too many requests" without saying for how long.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[error("{host} {problem} ({step})")]
pub struct RequestError {
    /// The host that was asked; not always the image's registry.
    pub host: String,
    /// What it was asked for.
    pub step: Step,
    /// What came of it.
    #[source]
    pub problem: RequestProblem,
}

/// What a host was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A token, for which a registry sent us there.
    Token,
    /// The image's manifest.
    Manifest,
    /// The component's bytes.
    Layer,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "asked for a token",
            Self::Manifest => "asked for the manifest",
            Self::Layer => "asked for the layer",
        })
    }
}

/// What came of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestProblem {
    /// An answer that says no.
    #[error("answered {status}{}", Detail(detail.as_deref()))]
    Status {
        /// The answer's status.
        status: StatusCode,
        /// How long to stay away, if it says so.
        retry_after: Option<Duration>,
        /// The registry's own words.
        detail: Option<String>,
    },
    /// No answer, or no further byte, in time.
    #[error("sent nothing for {}", seconds(*.0))]
    Silent(Duration),
    /// The certificate is not to be trusted.
    #[error("has a certificate that is not accepted: {0}")]
    Certificate(#[source] rustls::Error),
    /// It answers a TLS handshake with something else.
    #[error("does not speak TLS")]
    NotTls,
    /// There was no connection, or it broke.
    #[error("cannot be reached: {}", root_cause(.0))]
    Unreachable(#[source] reqwest::Error),
    /// It does not keep to the protocol.
    #[error("answered with {0}")]
    Protocol(String),
}

/// A registry's own words, in parentheses.
struct Detail<'a>(Option<&'a str>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |detail| write!(f, " (\"{detail}\")"))
    }
}

impl RequestError {
    /// The status of the answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.problem {
            RequestProblem::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Whether another credential could change the answer. 404 is among them, since registries hide what is private.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            (self.step, self.status()),
            (_, Some(401 | 403 | 404)) | (Step::Token, Some(400))
        )
    }

    /// In a word, for a list of tries.
    pub(crate) fn outcome(&self) -> String {
        self.status()
            .map_or_else(|| "no answer".to_owned(), |status| status.to_string())
    }

    pub(crate) fn reason(&self) -> Reason {
        match (self.step, self.status()) {
            (_, Some(401 | 403)) | (Step::Token, Some(400)) => Reason::Unauthorized,
            (Step::Manifest | Step::Layer, Some(404)) => Reason::ImageNotFound,
            (_, Some(408 | 429 | 500..)) | (Step::Token, _) | (_, None) => {
                Reason::RegistryUnavailable
            }
            _ => Reason::ErrImagePull,
        }
    }

    /// How long the host told us to stay away.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match &self.problem {
            RequestProblem::Status {
                status,
                retry_after,
                ..
            } => match retry_after {
                None if *status == StatusCode::TOO_MANY_REQUESTS => Some(DEFAULT_RETRY_AFTER),
                told => *told,
            },
            _ => None,
        }
    }

    /// How to mend it, where that is known.
    pub(crate) fn advice(&self, registry: &str) -> Option<String> {
        let file = format!("{registry}/hosts.toml in the agent's registry certificates directory");
        match &self.problem {
            RequestProblem::Certificate(_) => Some(format!(
                "set `ca` in {file} to the PEM file of the authority that signed it"
            )),
            RequestProblem::NotTls => Some(format!(
                "if plain HTTP is meant, write its address with `http://` into {file}"
            )),
            _ => None,
        }
    }

    /// The error for something that reqwest reports.
    pub(crate) fn from_reqwest(host: &str, step: Step, error: reqwest::Error) -> Self {
        use rustls::Error as Tls;
        let problem = match find::<Tls>(&error) {
            Some(tls @ (Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented)) => {
                RequestProblem::Certificate(tls.clone())
            }
            Some(Tls::InvalidMessage(_)) => RequestProblem::NotTls,
            // The URL may hold a signature of the blob storage.
            _ => RequestProblem::Unreachable(error.without_url()),
        };
        Self {
            host: host.to_owned(),
            step,
            problem,
        }
    }

    pub(crate) fn protocol(host: &str, step: Step, what: impl Into<String>) -> Self {
        Self {
            host: host.to_owned(),
            step,
            problem: RequestProblem::Protocol(what.into()),
        }
    }

    /// The error for an answer that is not a success. Reads the body for the registry's own words, unless they hold one of
    /// the secrets.
    pub(crate) async fn from_response(
        host: &str,
        step: Step,
        response: Response,
        patience: Patience,
        secrets: &[&str],
    ) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = body(response, step, MAX_ERROR_BODY, patience)
            .await
            .unwrap_or_default();
        let detail =
            detail(&body).filter(|d| !secrets.iter().any(|s| !s.is_empty() && d.contains(s)));
        let problem = RequestProblem::Status {
            status,
            retry_after,
            detail,
        };
        Self {
            host: host.to_owned(),
            step,
            problem,
        }
    }
}
