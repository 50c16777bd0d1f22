//! A client on a thread of its own, whose allocations are not counted.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::{self, Runtime};

/// What is sent, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `GET`.
    Http1,
    /// The same, over HTTP/2.
    Http2,
    /// A body of 16 KiB, which comes back.
    Echo,
}

/// A connection.
pub enum Client {
    Http1 {
        stream: TcpStream,
        request: Vec<u8>,
        buffer: Vec<u8>,
    },
    Http2 {
        runtime: Runtime,
        connection: SendRequest<Empty<Bytes>>,
    },
}

impl Client {
    pub fn new(address: SocketAddr, way: Way) -> Self {
        let request = match way {
            Way::Http2 => return Self::http2(address),
            Way::Http1 => b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            Way::Echo => {
                let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16384\r\n\r\n";
                [head.as_bytes(), &[b'x'; 16 << 10]].concat()
            }
        };
        Self::Http1 {
            stream: TcpStream::connect(address).expect("it listens"),
            request,
            buffer: vec![0; 64 << 10],
        }
    }

    fn http2(address: SocketAddr) -> Self {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connection = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await;
            let io = TokioIo::new(stream.expect("it listens"));
            let (requests, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            requests
        });
        Self::Http2 {
            runtime,
            connection,
        }
    }

    /// Sends a request and reads the whole answer.
    pub fn ask(&mut self) {
        match self {
            Self::Http1 {
                stream,
                request,
                buffer,
            } => ask_http1(stream, request, buffer),
            Self::Http2 {
                runtime,
                connection,
            } => runtime.block_on(ask_http2(connection)),
        }
    }
}

fn ask_http1(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) {
    stream.write_all(request).expect("sent");
    let mut got = 0;
    while !buffer.get(..got).is_some_and(is_whole) {
        let rest = buffer.get_mut(got..).expect("a short answer");
        let more = stream.read(rest).expect("an answer");
        assert!(more > 0, "the connection was closed");
        got += more;
    }
    let answer = buffer.get(..got).unwrap_or_default();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
}

/// Whether an answer has come to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() == length.parse::<usize>().expect("a length"),
        None => body.ends_with("0\r\n\r\n"),
    }
}

async fn ask_http2(connection: &mut SendRequest<Empty<Bytes>>) {
    let request = Request::get(Uri::from_static("http://localhost/"))
        .body(Empty::new())
        .expect("a request");
    let answer = connection.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.expect("its body");
    assert!(!body.to_bytes().is_empty());
}
