//! What a client sees when no component answers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;

/// The host's own answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The request does not say which host it is for.
    NoHost,
    /// Nobody claims the host and the path.
    NoRoute,
    /// The workload is stopping, and nobody has taken its place.
    Stopping,
    /// All instances are in use.
    Full,
    /// The component trapped.
    Trapped,
    /// The component was refused memory, and trapped.
    OutOfMemory,
    /// The component used up its fuel.
    OutOfFuel,
    /// The component ended without an answer, or with an error in place of one.
    Unanswered,
    /// The component took too long.
    OutOfTime,
    /// The request's body is larger than the server takes.
    TooLarge,
}

impl Answer {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::NoHost => (
                StatusCode::BAD_REQUEST,
                "the request needs exactly one valid Host header\n",
            ),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "no workload here serves this host and path\n",
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the workload is stopping\n",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "all instances are in use\n",
            ),
            Self::Trapped => (StatusCode::INTERNAL_SERVER_ERROR, "the component failed\n"),
            Self::OutOfMemory => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the component ran out of memory\n",
            ),
            Self::OutOfFuel => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the component used up its fuel\n",
            ),
            Self::Unanswered => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the component gave no answer\n",
            ),
            Self::OutOfTime => (
                StatusCode::GATEWAY_TIMEOUT,
                "the component did not answer in time\n",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request's body is larger than this server takes\n",
            ),
        }
    }

    /// The response.
    pub fn response(self) -> Response<Body> {
        let (status, text) = self.parts();
        let mut response = Response::new(Body::text(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self == Self::Stopping {
            // The next try should be free to go elsewhere.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
