//! One request and the head of its response, over a connection of the pool or a new one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::TrySendError,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody};

use super::{
    Call,
    body::{Outgoing, Progress, Received},
    connect::connect,
    pool::{Closed, Key, Lease, Room},
};
use crate::plugin::wasi_http::counters::count;

/// Time to connect, unless the component says otherwise.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for the head of the response, and between pieces of its body, unless the component says otherwise. The time of the
/// request that the component answers is over much earlier.
const SILENCE: Duration = Duration::from_secs(600);
/// Whatever a component says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that a component gives a call.
struct Limits {
    connect: Duration,
    first_byte: Duration,
    between: Duration,
}

/// A response, and what becomes of its request.
pub(super) struct Exchanged {
    pub response: Response<Received>,
    /// Comes when all of the request was read.
    pub sent: oneshot::Receiver<()>,
    pub progress: Arc<Progress>,
}

/// Sends a request. It is sent once more, over a new connection, if an idle one turned out to be closed: nothing of it was
/// sent then, or it is one without a body that may be repeated.
pub(super) async fn exchange(
    call: &Call,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Exchanged> {
    let limits = Limits::of(options.unwrap_or_default());
    let (parts, body) = request.into_parts();
    let url = Url::of(&parts.uri)?;
    let (body, progress, sent) = Outgoing::new(body);
    let mut request = Request::from_parts(parts, body);
    let mut fresh = false;
    loop {
        let (mut lease, reused) = lease(call, fresh, limits.connect).await?;
        url.prepare(&mut request, matches!(lease, Lease::Http2(_)));
        let spare = (reused && request.method().is_idempotent()).then(|| copy(&request));
        let unasked = matches!(lease, Lease::Http1(_)) && is_sent_bare(&request);
        let answer = timeout(limits.first_byte, lease.send(request)).await;
        let mut failed = match answer.map_err(|_| Error::ConnectionReadTimeout)? {
            Ok(response) => {
                let received =
                    |body| Received::new(body, call.pool().clone(), lease, limits.between);
                return Ok(Exchanged {
                    response: response.map(received),
                    sent,
                    progress,
                });
            }
            Err(failed) => failed,
        };
        let unsent = failed.take_message();
        let error = failed.into_error();
        request = match (unsent, spare) {
            (Some(unsent), _) if reused => unsent,
            (_, Some(spare)) if (unasked || progress.is_bodyless()) && is_loss(&error) => spare,
            _ => {
                if call.grpc && is_unlike_http2(&error) {
                    tracing::debug!(
                        host = call.target.host,
                        %error,
                        "gRPC needs HTTP/2, which the server does not speak"
                    );
                }
                return Err(progress.take_error().unwrap_or_else(|| failure(&error)));
            }
        };
        fresh = true;
    }
}

/// A connection, and whether it was used before.
async fn lease(call: &Call, fresh: bool, limit: Duration) -> Result<(Lease, bool)> {
    let deadline = Instant::now() + limit;
    let key = Key::new(&call.target, call.grpc);
    let room = call
        .pool()
        .room(&key, fresh, |address| call.judge(address).is_none());
    match timeout_at(deadline, room).await {
        Err(_) => {
            count(&call.egress.counters.limited);
            let totals = &call.pool().outside.totals;
            totals.limited.fetch_add(1, Ordering::Relaxed);
            Err(Error::ConnectionLimitReached)
        }
        Ok(Err(Closed)) => Err(Error::ConnectionTerminated),
        Ok(Ok(Room::Connection(lease))) => Ok((lease, true)),
        Ok(Ok(Room::Place(place))) => {
            let lease = connect(call, place, &key, deadline).await?;
            Ok((lease, false))
        }
    }
}

impl Limits {
    fn of(options: RequestOptions) -> Self {
        let limit = |given: Option<Duration>, default| given.unwrap_or(default).min(LONGEST);
        Self {
            connect: limit(options.connect_timeout, CONNECT),
            first_byte: limit(options.first_byte_timeout, SILENCE),
            between: limit(options.between_bytes_timeout, SILENCE),
        }
    }
}

/// A request's URL in the forms that connections want.
struct Url {
    absolute: Uri,
    path: Uri,
    host: HeaderValue,
}

impl Url {
    fn of(uri: &Uri) -> Result<Self> {
        let invalid = |_| Error::HttpRequestUriInvalid;
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        // Whoever wrote a user's name there did not mean it for the server's name.
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let path = match uri.path_and_query() {
            Some(path) if !path.as_str().is_empty() => path.clone(),
            _ => PathAndQuery::from_static("/"),
        };
        let absolute = Uri::builder()
            .scheme(uri.scheme_str().unwrap_or("http"))
            .authority(host)
            .path_and_query(path.clone());
        Ok(Self {
            absolute: absolute.build().map_err(|_| Error::HttpRequestUriInvalid)?,
            path: path.into(),
            host: HeaderValue::from_str(host).map_err(invalid)?,
        })
    }

    fn prepare(&self, request: &mut Request<Outgoing>, http2: bool) {
        if http2 {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = self.absolute.clone();
            // The URL says it already.
            request.headers_mut().remove(header::HOST);
        } else {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = self.path.clone();
            let host = self.host.clone();
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

/// Whether HTTP/1.1 sends a request without its body, if it has one.
fn is_sent_bare(request: &Request<Outgoing>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && request.body().size_hint().exact().is_none()
}

/// The same request without a body.
fn copy(request: &Request<Outgoing>) -> Request<Outgoing> {
    let empty = Empty::<Bytes>::new().map_err(|never| match never {});
    let (body, ..) = Outgoing::new(empty.boxed_unsync());
    let mut copy = Request::new(body);
    *copy.method_mut() = Method::clone(request.method());
    *copy.headers_mut() = request.headers().clone();
    copy
}

impl Lease {
    async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> std::result::Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match self {
            Self::Http1(connection) => connection.sender.try_send_request(request).await,
            Self::Http2(stream) => {
                let mut sender = stream.connection.sender.clone();
                sender.try_send_request(request).await
            }
        }
    }
}

/// Whether an error says that the connection was lost, rather than that one side did something wrong.
fn is_loss(error: &hyper::Error) -> bool {
    !(error.is_user() || error.is_parse() || error.is_timeout())
}

/// Why there was no response, in WASI's words.
fn failure(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Error::ConnectionTerminated
    } else if error.is_user() || error.is_parse() || is_unlike_http2(error) {
        Error::HttpProtocolError
    } else {
        // From the socket, or the other side's last words.
        Error::ConnectionTerminated
    }
}

/// Whether the other side was found to break the rules of HTTP/2, as one does that answers in HTTP/1.1.
fn is_unlike_http2(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(|cause| cause.is_go_away() && cause.is_library())
}

/// Why a response has no end, in WASI's words.
pub(super) fn body_failure(error: &hyper::Error) -> Error {
    if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else {
        Error::HttpResponseIncomplete
    }
}
