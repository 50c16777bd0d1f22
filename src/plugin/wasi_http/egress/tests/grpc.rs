//! gRPC: HTTP/2 whether or not TLS says so.

use tokio::sync::Notify;

use super::{
    tls::{authority, server as tls_server, world as tls_world},
    *,
};

const TYPE: HeaderValue = HeaderValue::from_static("application/grpc+proto");

/// Of HTTP/2 for clients that begin with it, and of HTTP/1.1 for others, as servers inside a cluster.
async fn server() -> Server {
    Server::raw(|stream, _| async move {
        // `PRI * HTTP/2.0`; no method of HTTP/1.1 that is used here begins so.
        let mut first = [0; 2];
        if stream.peek(&mut first).await.is_ok() && first == *b"PR" {
            http_2(stream, echo).await;
        } else {
            http_1(stream, echo).await;
        }
    })
    .await
}

/// A call as a client of gRPC makes it.
fn call(url: &str, body: WasiBody) -> Request<WasiBody> {
    let mut post = request(Method::POST, url, body);
    let headers = post.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, TYPE);
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    post
}

fn status() -> HeaderMap {
    HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static("0"),
    )])
}

async fn ask(egress: &Arc<Egress>, url: &str) -> Result<Response<WasiBody>> {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(status())),
    ];
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    within(send(egress, call(url, body), RequestOptions::default())).await
}

#[tokio::test]
async fn messages_stream_both_ways_and_the_status_comes_last() {
    let server = server().await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = stream::unfold(receiver, |mut frames| async {
        frames.recv().await.map(|frame| (Ok(frame), frames))
    });
    let post = call(&server.url(), StreamBody::new(frames).boxed_unsync());
    let response = send(&main, post, RequestOptions::default());
    let mut response = within(response).await.unwrap();
    let said = format!("HTTP/2.0 127.0.0.1:{}", server.port);
    assert_eq!(response.headers()["x-said"], said);
    assert_eq!(response.headers()["x-te"], "trailers");
    for piece in ["one", "two", "three"] {
        sender.send(Frame::data(piece.into())).await.unwrap();
        let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    sender.send(Frame::trailers(status())).await.unwrap();
    drop(sender);
    let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), status());
}

#[tokio::test]
async fn calls_share_a_connection_that_no_other_call_uses() {
    let server = server().await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let plain = || async {
        let put = request(Method::PUT, &server.url(), full("body"));
        let response = within(send(&main, put, RequestOptions::default())).await;
        response.unwrap()
    };
    let version = |response: &Response<WasiBody>| {
        let said = response.headers()["x-said"].to_str().unwrap();
        said.split_once(' ').unwrap().0.to_owned()
    };
    let (before, first) = (plain().await, ask(&main, &server.url()).await.unwrap());
    assert_eq!(version(&before), "HTTP/1.1");
    assert_eq!(text(before).await.unwrap(), "body");
    let all = futures::future::join_all((0..20).map(|_| ask(&main, server.url().leak()))).await;
    for response in all.into_iter().map(Result::unwrap).chain([first]) {
        assert_eq!(version(&response), "HTTP/2.0");
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers(), Some(&status()));
        assert_eq!(body.to_bytes(), "body");
    }
    let after = plain().await;
    assert_eq!(version(&after), "HTTP/1.1");
    assert_eq!(text(after).await.unwrap(), "body");
    assert_eq!((server.connections(), world.pool.open()), (2, 2));
}

#[tokio::test]
async fn its_connections_are_within_the_same_limit() {
    let server = server().await;
    let mut outside = Outside::new();
    outside.max_connections = 1;
    let world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..2 {
        // The one connection is given up for one of the other kind.
        assert_eq!(get(&main, &server.url()).await.unwrap(), "");
        let url = server.url();
        let calls = futures::future::join_all((0..10).map(|_| ask(&main, &url))).await;
        for response in calls {
            assert_eq!(text(response.unwrap()).await.unwrap(), "body");
        }
        assert_eq!(world.pool.open(), 1);
    }
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn over_tls_it_takes_http_2_or_fails() {
    for (protocols, wanted) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        // A server that would choose the other one.
        (&["http/1.1", "h2"], "HTTP/2.0"),
        (&["http/1.1"], "TlsAlertReceived { alert_id: Some(120)"),
        (&[], "HttpProtocolError"),
    ] {
        let (roots, config) = authority("a.test", protocols);
        let server = tls_server(config).await;
        let world = tls_world(roots);
        let main = world.component(&["a.test", "127.0.0.1"]);
        let url = format!("https://a.test:{}/", server.port);
        // What it fails on is none of the others' business.
        let other = request(Method::POST, &url, full("body"));
        let other = within(send(&main, other, RequestOptions::default())).await;
        assert_eq!(text(other.unwrap()).await.unwrap(), "body", "{protocols:?}");
        for _ in 0..2 {
            let said = match ask(&main, &url).await {
                Ok(response) => response.headers()["x-said"].to_str().unwrap().to_owned(),
                Err(failed) => format!("{failed:?}"),
            };
            assert!(said.starts_with(wanted), "{protocols:?}: {said}");
        }
    }
}

/// Says this in answer to the first words, which of HTTP/1.1 are a method and a version that it has not.
async fn answers_bluntly(words: &'static [u8]) -> Server {
    Server::raw(move |mut stream, _| async move {
        let mut first = [0; 24];
        let _ = stream.read_exact(&mut first).await;
        let _ = stream.write_all(words).await;
        // What else comes is read, or the connection is reset, which may overtake the words.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn a_server_of_http_1_alone_does_not_understand_it() {
    let server = Server::http(echo).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    // hyper's hangs up.
    let failed = ask(&main, &server.url()).await.err().unwrap();
    assert!(matches!(failed, Error::ConnectionTerminated), "{failed:?}");
    assert_eq!(get(&main, &server.url()).await.unwrap(), "");
    within(async {
        while world.pool.open() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_in_http_1_breaks_the_protocol() {
    for words in [
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n",
        "HTTP/1.0 400 Bad Request\r\n\r\n",
    ] {
        let server = answers_bluntly(words.as_bytes()).await;
        let world = World::new(&Outside::new());
        let main = world.component(&["127.0.0.1"]);
        let failed = ask(&main, &server.url()).await.err().unwrap();
        assert!(matches!(failed, Error::HttpProtocolError), "{failed:?}");
    }
}

/// Reads what it is sent, says that it speaks HTTP/2, and never answers a question.
async fn deaf() -> (Server, Arc<Notify>) {
    let lost = Arc::new(Notify::new());
    let told = lost.clone();
    let server = Server::raw(move |mut stream, _| {
        let lost = told.clone();
        async move {
            const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
            stream.write_all(SETTINGS).await.unwrap();
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            lost.notify_one();
        }
    })
    .await;
    (server, lost)
}

#[tokio::test]
async fn a_silent_stream_is_left_in_peace_for_longer() {
    let soon = Duration::from_millis(100);
    for (silence_grpc, lost) in [(Duration::from_secs(3600), false), (soon, true)] {
        let (server, gone) = deaf().await;
        let mut outside = Outside::new();
        outside.pings = Pings {
            silence: soon,
            silence_grpc,
            answer: soon,
        };
        let world = World::new(&outside);
        let main = world.component(&["127.0.0.1"]);
        let url = server.url();
        let asked = ask(&main, &url);
        if lost {
            assert!(within(asked).await.is_err());
            within(gone.notified()).await;
        } else {
            // Many times what it would take.
            let early = tokio::time::timeout(soon * 15, asked).await;
            assert!(early.is_err(), "it was given up");
        }
    }
    // Servers count from five minutes on, unless they were told otherwise.
    assert!(Pings::default().silence_grpc > Duration::from_secs(300));
}
