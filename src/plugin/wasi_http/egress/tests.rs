//! Against servers on loopback, without a guest: what `wasi:http` hands over is what is handed over here.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, broadcast, mpsc},
};

use super::{outside::Resolve, *};
use crate::plugin::{Notice, testing::workload};

mod limits;
mod tls;

// === fixtures ===

/// Answers look-ups from a list, one after another, the last one for ever; and counts them.
struct Names(Mutex<VecDeque<Vec<IpAddr>>>, AtomicUsize);

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let answers = answers
            .iter()
            .map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect());
        Arc::new(Self(Mutex::new(answers.collect()), AtomicUsize::new(0)))
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Resolve for Names {
    fn resolve(
        &self,
        _: String,
        _: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        Box::pin(async move {
            match answer {
                Some(answer) => Ok(answer),
                // No list at all: a resolver that never answers.
                None => std::future::pending().await,
            }
        })
    }
}

/// The workload `test` and its components' rules.
struct World {
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    sender: broadcast::Sender<Notice>,
    notices: broadcast::Receiver<Notice>,
}

impl World {
    fn new(outside: &Outside) -> Self {
        let sender = Notices::channel();
        Self {
            pool: Arc::new(Pool::new(outside)),
            counters: Arc::default(),
            notices: sender.subscribe(),
            sender,
        }
    }

    fn component(&self, rules: &[&str]) -> Arc<Egress> {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let label = Label {
            namespace: "default".into(),
            workload: "test".into(),
            component: "main".into(),
        };
        let notices = Notices::new(&workload("test"), &self.sender);
        let egress = Egress::new(rules, &self.pool, &self.counters, label, notices);
        Arc::new(egress)
    }

    /// The notices since the last look.
    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok())
            .map(|notice| {
                format!(
                    "{} {}/{}: {}",
                    notice.reason, notice.namespace, notice.name, notice.message
                )
            })
            .collect()
    }
}

fn empty() -> WasiBody {
    full("")
}

fn full(text: &'static str) -> WasiBody {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn request(method: Method, url: &str, body: WasiBody) -> Request<WasiBody> {
    Request::builder()
        .method(method)
        .uri(url)
        .body(body)
        .unwrap()
}

/// Makes a call as a guest does.
async fn send(
    egress: &Arc<Egress>,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>> {
    let mut hooks = Hooks(Some(egress.clone()));
    let sent = hooks.send_request(request, Some(options), Box::new(std::future::pending()));
    let (response, _sending) = Box::into_pin(sent).await?;
    Ok(response)
}

/// The text of the answer to a GET.
async fn get(egress: &Arc<Egress>, url: &str) -> Result<String> {
    let request = request(Method::GET, url, empty());
    text(send(egress, request, RequestOptions::default()).await?).await
}

async fn text(response: Response<WasiBody>) -> Result<String> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

type Reply = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

fn reply(text: &'static str) -> Reply {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

/// A server that counts its connections.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Whose connections are served by `serve`.
    async fn raw<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, counted.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Self { port, connections }
    }

    /// Of HTTP/1.1, with keep-alive.
    async fn http<F>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::raw(move |stream, _| http_1(stream, answer.clone())).await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// By a name, which a test's resolver knows.
    fn named(&self) -> String {
        format!("http://a.test:{}/", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn http_1<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answer: impl Fn(Request<Incoming>) -> F + Send,
) where
    F: Future<Output = Reply> + Send,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, work)
        .await
        .expect("it takes too long")
}

// === connections ===

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::http(|_| async { reply("hello") }).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..20 {
        assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
    }
    assert_eq!((server.connections(), world.pool.open()), (1, 1));
    // A response that nobody reads takes its connection along.
    let large: &str = "x".repeat(1 << 20).leak();
    let streams = Server::http(move |_| async move { reply(large) }).await;
    let unread = request(Method::GET, &streams.url(), empty());
    drop(
        send(&main, unread, RequestOptions::default())
            .await
            .unwrap(),
    );
    assert_eq!(get(&main, &streams.url()).await.unwrap().len(), 1 << 20);
    assert_eq!(streams.connections(), 2);
}

#[tokio::test]
async fn a_connection_made_on_one_runtime_is_not_used_from_another() {
    let server = Server::http(|_| async { reply("hello") }).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
    for expected in [2, 3] {
        let (caller, url) = (main.clone(), server.url());
        let elsewhere = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                for _ in 0..3 {
                    get(&caller, &url).await.unwrap();
                }
            });
            // The runtime ends here, and its connection with it.
        });
        within(tokio::task::spawn_blocking(|| elsewhere.join().unwrap()))
            .await
            .unwrap();
        assert_eq!(server.connections(), expected);
        assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
        assert_eq!((server.connections(), world.pool.open()), (expected, 1));
    }
}

#[tokio::test]
async fn a_closed_connection_is_noticed_and_the_call_repeated_where_that_is_safe() {
    // Answers the first request of each connection, reads the second one and hangs up.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = Server::raw(move |mut stream, _| {
        let log = log.clone();
        async move {
            for answered in [true, false] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"body") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") && head.starts_with(b"POST") {
                        // Its body is to follow.
                        head.push(b' ');
                    }
                }
                let method = String::from_utf8_lossy(&head[..4]).trim().to_owned();
                log.lock().unwrap().push((method, answered));
                if answered {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            }
        }
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..2 {
        assert_eq!(get(&main, &server.url()).await.unwrap(), "ok");
    }
    let log = |method: &str, answered| (method.to_owned(), answered);
    assert_eq!(
        *seen.lock().unwrap(),
        [log("GET", true), log("GET", false), log("GET", true)]
    );
    // One with a body may have been processed: the guest decides.
    let post = request(Method::POST, &server.url(), full("body"));
    let failed = send(&main, post, RequestOptions::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(failed, Error::ConnectionTerminated), "{failed:?}");
    assert_eq!(seen.lock().unwrap()[3..], [log("POST", false)]);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_up_while_idle_costs_nothing() {
    let server = Server::raw(|stream, _| async {
        // Without saying that it will close.
        let (mut reader, mut writer) = stream.into_split();
        let _ = reader.read(&mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        writer.write_all(answer).await.unwrap();
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..10 {
        // With a body, so that nothing can be repeated once it is sent.
        let post = request(Method::POST, &server.url(), full("body"));
        let response = send(&main, post, RequestOptions::default()).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        within(async {
            while world.pool.open() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_and_trailers_pass() {
    let server = Server::http(|request| async {
        let announced = HeaderValue::from_static("x-sum");
        let mut response = Response::new(request.into_body().boxed_unsync());
        response
            .headers_mut()
            .insert(http::header::TRAILER, announced);
        response
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = stream::unfold(receiver, |mut frames| async {
        frames.recv().await.map(|frame| (Ok(frame), frames))
    });
    let mut post = request(
        Method::POST,
        &server.url(),
        StreamBody::new(frames).boxed_unsync(),
    );
    let te = HeaderValue::from_static("trailers");
    post.headers_mut().insert(http::header::TE, te);
    let announced = HeaderValue::from_static("x-sum");
    post.headers_mut().insert(http::header::TRAILER, announced);
    let response = send(&main, post, RequestOptions::default());
    let mut response = within(response).await.unwrap();
    // Each piece comes back before the next one is sent, so nobody collects them.
    for piece in ["one", "two", "three"] {
        sender.send(Frame::data(piece.into())).await.unwrap();
        let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    let trailers =
        HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("3"))]);
    sender
        .send(Frame::trailers(trailers.clone()))
        .await
        .unwrap();
    drop(sender);
    let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
}

#[tokio::test]
async fn a_generation_that_ends_takes_its_connections_along() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut stream, number| {
        let closed = closed.clone();
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            // The first one is answered and stays open, the second one's answer has no end.
            let length = if number == 0 { 2 } else { 1000 };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let ended = stream.read(&mut [0; 1024]).await.unwrap_or(0);
            closed.send((number, ended)).unwrap();
        }
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let call = || {
        send(
            &main,
            request(Method::GET, &server.url(), empty()),
            RequestOptions::default(),
        )
    };
    let (idle, busy) = tokio::join!(call(), call());
    let (idle, busy) = (idle.unwrap(), busy.unwrap());
    let length = |response: &Response<WasiBody>| response.body().size_hint().exact();
    let (idle, busy) = if length(&idle) == Some(2) {
        (idle, busy)
    } else {
        (busy, idle)
    };
    assert_eq!(text(idle).await.unwrap(), "ok");
    world.pool.close();
    let mut ended = [
        within(closes.recv()).await.unwrap(),
        within(closes.recv()).await.unwrap(),
    ];
    ended.sort_unstable();
    assert_eq!(ended, [(0, 0), (1, 0)]);
    assert!(within(text(busy)).await.is_err());
    let late = get(&main, &server.url()).await.unwrap_err();
    assert!(matches!(late, Error::ConnectionTerminated), "{late:?}");
    assert_eq!(world.pool.open(), 0);
}

#[tokio::test]
async fn what_becomes_of_a_request_is_told_to_who_asks() {
    let server = Server::http(|request| async {
        let _ = request.into_body().collect().await;
        reply("ok")
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let broken = || {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"some"))),
            Err(Error::HttpRequestBodySize(Some(4))),
        ];
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        request(Method::POST, &server.url(), body)
    };
    let failed = send(&main, broken(), RequestOptions::default()).await;
    let failed = failed.err().unwrap();
    assert!(
        matches!(failed, Error::HttpRequestBodySize(Some(4))),
        "{failed:?}"
    );
    let mut hooks = Hooks(Some(main));
    let good = request(Method::POST, &server.url(), full("all of it"));
    let sent = hooks.send_request(good, None, Box::new(std::future::pending()));
    let (response, sending) = Box::into_pin(sent).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    within(Box::into_pin(sending)).await.unwrap();
}

// === addresses ===

#[tokio::test]
async fn names_are_looked_up_once_and_connected_to_where_they_were_judged() {
    // Closes each connection after its answer, so that each call needs a new one.
    let server = Server::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
    })
    .await;
    // The second answer is the owner's attempt.
    let names = Names::new(&[&["127.0.0.1"], &["::ffff:169.254.169.254"]]);
    let mut world = World::new(&Outside::new().resolver(names.clone()));
    let main = world.component(&["a.test", "127.0.0.1"]);
    assert_eq!(get(&main, &server.named()).await.unwrap(), "ok");
    assert_eq!(names.asked(), 1);
    assert!(world.told().is_empty());
    let failed = get(&main, &server.named()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    assert_eq!(names.asked(), 2);
    let counts = world.counters.snapshot();
    assert_eq!((counts.denied, counts.prohibited), (0, 1));
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "EgressDenied default/test: component \"main\"",
        &format!(
            "http://a.test:{}: ::ffff:169.254.169.254 is among the link-local addresses",
            server.port
        ),
        &format!("`http://169.254.169.254:{}`", server.port),
    ] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
}

#[tokio::test]
async fn addresses_that_no_rule_names_are_not_connected_to() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&["*"], &["127.0.0.1"], false),
        (&["a.test"], &["::ffff:127.0.0.1"], false),
        (
            &["a.test"],
            &["169.254.169.254", "fe80::1", "0.0.0.0", "::"],
            false,
        ),
        (&["a.test", "127.0.0.1"], &["127.0.0.1"], true),
        // The ones that are good are used, in their order, until one answers.
        (
            &["a.test", "127.0.0.0/8"],
            &["169.254.169.254", "127.0.0.9", "127.0.0.1"],
            true,
        ),
    ];
    for (rules, addresses, wanted) in cases {
        let world = World::new(&Outside::new().resolver(Names::new(&[addresses])));
        let main = world.component(rules);
        let before = server.connections();
        let answer = get(&main, &server.named()).await;
        match answer {
            Ok(text) => assert!(*wanted && text == "ok", "{rules:?} {addresses:?}"),
            Err(Error::DestinationIpProhibited) => {
                assert!(!wanted, "{rules:?} {addresses:?}");
                assert_eq!(server.connections(), before, "{rules:?} {addresses:?}");
            }
            Err(error) => panic!("{rules:?} {addresses:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn the_rules_of_one_component_are_not_its_neighbours() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let world = World::new(&Outside::new().resolver(Names::new(&[&["127.0.0.1"]])));
    let may = world.component(&["a.test", "127.0.0.1"]);
    let may_not = world.component(&["a.test"]);
    assert_eq!(get(&may, &server.named()).await.unwrap(), "ok");
    // There is an idle connection now, which leads to where this one may not.
    let failed = get(&may_not, &server.named()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    assert_eq!(get(&may, &server.named()).await.unwrap(), "ok");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_operators_networks_stay_closed() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let mut outside = Outside::new();
    outside.networks = ["private".parse().unwrap()].into();
    let mut world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    let failed = get(&main, &server.url()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    let told = world.told();
    assert!(
        told[0].contains("`private`") && told[0].contains("--block-network"),
        "{told:?}"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn denials_are_told_once_for_each_destination_and_not_without_end() {
    let mut world = World::new(&Outside::new());
    let main = world.component(&["example.com"]);
    for _ in 0..3 {
        let failed = get(&main, "http://127.0.0.1:1/").await.unwrap_err();
        assert!(matches!(failed, Error::HttpRequestDenied), "{failed:?}");
    }
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("add `http://127.0.0.1:1` to its localResources.allowedHosts"),
        "{told:?}"
    );
    for port in 1..=200 {
        get(&main, &format!("https://other.test:{port}/"))
            .await
            .unwrap_err();
    }
    assert_eq!(world.told().len(), 9);
    assert_eq!(world.counters.snapshot().denied, 203);
    assert_eq!(world.pool.outside.totals.snapshot().denied, 203);
}

/// What a connection costs that another thread's runtime drives, which is why none is used so: see [`pool`].
#[test]
#[ignore = "a measurement: cargo test --release --lib calls_over_another_runtime -- --ignored --nocapture"]
fn calls_over_another_runtime_cost() {
    const CALLS: u32 = 20_000;
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Arc::new(builder.enable_all().build().unwrap())
    };
    let (serving, driving, calling) = (runtime(), runtime(), runtime());
    let server = serving.block_on(Server::http(|_| async { reply("hello") }));
    for runtime in [serving, driving.clone()] {
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    }
    let connect = |port| async move {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    };
    let call = |mut sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>| async move {
        let began = std::time::Instant::now();
        for _ in 0..CALLS {
            let request = Request::get("/")
                .header("host", "a")
                .body(Full::default())
                .unwrap();
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        began.elapsed() / CALLS
    };
    for _ in 0..3 {
        let own = calling.block_on(async { call(connect(server.port).await).await });
        let other = driving.spawn(connect(server.port));
        let other = calling.block_on(async { call(other.await.unwrap()).await });
        println!("a call: {own:?} over its own runtime's connection, {other:?} over another one's");
    }
}
