//! An HTTP/2 client that sends and receives bodies part by part.

use std::convert::Infallible;

use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response, request};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::*;

type Part = Result<Frame<Bytes>, Infallible>;
type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// One connection. The stream's end is the connection's.
pub(super) struct Client {
    sender: http2::SendRequest<Sent>,
    pub connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(1 << 20)
            .handshake(TokioIo::new(io))
            .await
            .unwrap();
        Self {
            sender,
            connection: tokio::spawn(connection),
        }
    }

    pub async fn of(world: &World) -> Self {
        Self::over(world.connect().await).await
    }

    /// Sends a request with this body.
    pub fn send(
        &mut self,
        request: request::Builder,
        body: Sent,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        self.sender.send_request(request.body(body).unwrap())
    }

    /// Status and body of a GET.
    pub async fn get(&mut self, host: &str, target: &str) -> (u16, String) {
        let response = self.send(get(host, target), empty()).await.unwrap();
        let status = response.status().as_u16();
        assert!(!response.headers().contains_key("connection"));
        (status, text(response).await.unwrap())
    }

    /// Ready when the connection has ended.
    pub async fn ended(self) {
        let Self { sender, connection } = self;
        let _ = timeout(Duration::from_secs(10), connection).await.unwrap();
        drop(sender);
    }
}

pub(super) fn get(host: &str, target: &str) -> request::Builder {
    Request::get(format!("http://{host}{target}"))
}

pub(super) fn empty() -> Sent {
    http_body_util::Empty::new().boxed_unsync()
}

pub(super) fn whole(bytes: impl Into<Bytes>) -> Sent {
    http_body_util::Full::new(bytes.into()).boxed_unsync()
}

/// A body that is sent part by part, and its other end.
pub(super) fn parts() -> (mpsc::Sender<Part>, Sent) {
    let (sender, receiver) = mpsc::channel(0);
    (sender, StreamBody::new(receiver).boxed_unsync())
}

pub(super) fn data(bytes: impl Into<Bytes>) -> Part {
    Ok(Frame::data(bytes.into()))
}

pub(super) fn trailers(name: &'static str, value: &str) -> Part {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().unwrap());
    Ok(Frame::trailers(trailers))
}

/// The next part of a response, if it has one.
pub(super) async fn next(response: &mut Response<Incoming>) -> Option<Bytes> {
    let frame = timeout(Duration::from_secs(10), response.body_mut().frame());
    frame
        .await
        .unwrap()
        .map(|f| f.unwrap().into_data().unwrap())
}

/// The whole body as text; an error if it did not come to its end.
pub(super) async fn text(response: Response<Incoming>) -> hyper::Result<String> {
    let body = timeout(Duration::from_secs(30), response.into_body().collect());
    let body = body.await.unwrap()?.to_bytes();
    Ok(String::from_utf8(body.into()).unwrap())
}
