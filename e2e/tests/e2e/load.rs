//! Steady load: a few clients that ask again and again over connections that they keep, and count what came of it.
//!
//! A client keeps its connection until the server says that it ends, as clients behind a Service do, wherever that leads now.
//! A client of its own rather than a ready-made one, which would hide a broken connection by trying again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

const CLIENTS: usize = 4;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest time for an answer; one that takes longer counts as failed.
const ANSWER: Duration = Duration::from_secs(10);
/// However long the test takes, the load ends.
const MAX_REQUESTS: usize = 10_000;
const MAX_TIME: Duration = Duration::from_secs(150);

/// Where the next connection goes.
pub type Address = Arc<dyn Fn() -> SocketAddr + Send + Sync>;

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: JoinSet<Tally>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200.
    pub answers: usize,
    /// All that was no whole answer with status 200.
    pub failures: Vec<String>,
    /// Connections that were made.
    pub connections: usize,
    /// The bodies in the order in which each client got them, repetitions left out.
    pub told: Vec<Vec<String>>,
    /// The longest time for one answer.
    pub slowest: Duration,
}

// === impl Load ===

impl Load {
    /// Begins to ask for a path of a host name, which should answer already.
    pub fn start(address: SocketAddr, host: &str, path: &str) -> Self {
        Self::follow(Arc::new(move || address), host, path)
    }

    /// The same where the address of new connections may change.
    pub fn follow(address: Address, host: &str, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (stop, asked) = (stop.clone(), asked.clone());
            let request = (host.to_owned(), path.to_owned());
            clients.spawn(client(address.clone(), request, stop, asked));
        }
        Self {
            stop,
            asked,
            clients,
        }
    }

    /// Waits until this many more requests have been answered, well or not.
    pub async fn more(&self, requests: usize) -> Result<()> {
        let goal = self.asked.load(Ordering::Relaxed) + requests;
        washlet_e2e::eventually("more requests", ANSWER * 2, async || {
            let asked = self.asked.load(Ordering::Relaxed);
            Ok(if asked >= goal { Ok(()) } else { Err(asked) })
        })
        .await
    }

    /// Ends it, and fails unless every single request was answered, each client over its one connection.
    pub async fn stop_without_failure(self) -> Result<Tally> {
        let tally = self.stop_without_failed_requests().await?;
        ensure!(
            tally.connections == CLIENTS,
            "{} connections for {CLIENTS} clients",
            tally.connections
        );
        Ok(tally)
    }

    /// Ends it, and fails unless every single request was answered, over however many connections.
    pub async fn stop_without_failed_requests(self) -> Result<Tally> {
        let tally = self.stop().await?;
        ensure!(
            tally.failures.is_empty(),
            "{} of {} requests failed: {:?}",
            tally.failures.len(),
            tally.failures.len() + tally.answers,
            tally.failures
        );
        eprintln!(
            "{}: {} requests, 0 failed, slowest {:?}, {} connections",
            std::thread::current().name().unwrap_or("a test"),
            tally.answers,
            tally.slowest,
            tally.connections
        );
        Ok(tally)
    }

    /// Ends it, and tells what came of it.
    pub async fn stop(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            let tally = tally.context("a client of the load")?;
            all.answers += tally.answers;
            all.connections += tally.connections;
            all.failures.extend(tally.failures);
            all.told.extend(tally.told);
            all.slowest = all.slowest.max(tally.slowest);
        }
        Ok(all)
    }
}

// === one client ===

type Sender = SendRequest<Empty<Bytes>>;

async fn client(
    address: Address,
    (host, path): (String, String),
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> Tally {
    let (started, mut tally, mut told) = (Instant::now(), Tally::default(), Vec::new());
    let mut connection: Option<Sender> = None;
    for _ in 0..MAX_REQUESTS {
        if stop.load(Ordering::Relaxed) || started.elapsed() > MAX_TIME {
            break;
        }
        let begun = Instant::now();
        let answer = ask(
            &mut connection,
            &mut tally.connections,
            &address,
            &host,
            &path,
        );
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(body)) => {
                tally.answers += 1;
                tally.slowest = tally.slowest.max(begun.elapsed());
                if told.last() != Some(&body) {
                    told.push(body);
                }
            }
            Ok(Err(error)) => {
                connection = None;
                tally.failures.push(format!("{error:#}"));
            }
            Err(_) => {
                connection = None;
                tally.failures.push(format!("no answer within {ANSWER:?}"));
            }
        }
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    tally.told.push(told);
    tally
}

async fn ask(
    connection: &mut Option<Sender>,
    connections: &mut usize,
    address: &Address,
    host: &str,
    path: &str,
) -> Result<String> {
    let sender = match connection {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            *connections += 1;
            connection.insert(connect(address()).await?)
        }
    };
    sender.ready().await.context("the connection broke")?;
    let request = Request::get(path).header("host", host);
    let response = sender
        .send_request(request.body(Empty::new()).context("a request")?)
        .await
        .context("no response")?;
    let status = response.status();
    let last = response.headers().get("connection").cloned();
    let body = response.into_body().collect().await;
    let body = body.context("half a response")?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    ensure!(status == 200, "{status}: {body}");
    if last.is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(b"close")) {
        *connection = None;
    }
    Ok(body)
}

async fn connect(address: SocketAddr) -> Result<Sender> {
    let stream = TcpStream::connect(address).await.context("connecting")?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .context("connecting")?;
    // Ends with the sender; what breaks it, the sender sees.
    tokio::spawn(connection);
    Ok(sender)
}

#[tokio::test]
async fn what_fails_is_counted() -> Result<()> {
    let closed = washlet_e2e::ports::free()?;
    let load = Load::start(([127, 0, 0, 1], closed).into(), "app.test", "/");
    load.more(CLIENTS).await?;
    ensure!(load.stop_without_failure().await.is_err());
    Ok(())
}
