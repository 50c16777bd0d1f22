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

use super::{
    outside::{Pings, Resolve},
    *,
};
use crate::plugin::{Notice, testing::workload};

mod grpc;
mod judging;
mod limits;
mod reuse;
mod tls;
mod workloads;

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
            pool: Pool::new(outside, &Arc::default()),
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

async fn http_2<F>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send,
) where
    F: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Answers with the body and its trailers as they come; `x-said` is the version that it was asked in, and for whom.
async fn echo(request: Request<Incoming>) -> Reply {
    let host = request.headers().get("host");
    let host = host.map(|h| h.to_str().unwrap().to_owned());
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
    let said = format!("{:?} {}", request.version(), host.unwrap_or_default());
    let te = request.headers().get(http::header::TE).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    let said = HeaderValue::from_str(&said).unwrap();
    response.headers_mut().insert("x-said", said);
    if let Some(te) = te {
        response.headers_mut().insert("x-te", te);
    }
    response
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, work)
        .await
        .expect("it takes too long")
}

// === connections ===

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
