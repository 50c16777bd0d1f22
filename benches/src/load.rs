//! The load: requests over connections that are kept, as many as can be done or as many as were asked for.
//!
//! One thread, and no more than is needed of HTTP/1.1: with a library in between, the load would be slower than the servers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    task::LocalSet,
    time,
};

use crate::figure::quantile;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is not left to the runtime's timer.
const TIMER: Duration = Duration::from_millis(3);

/// A request, by turns one of several.
#[derive(Clone)]
pub struct Request {
    address: SocketAddr,
    texts: std::rc::Rc<[Vec<u8>]>,
}

impl Request {
    /// `GET path` of a host.
    pub fn get(address: SocketAddr, host: &str, path: &str) -> Self {
        Self::of(
            address,
            [format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes()],
        )
    }

    /// `GET /` of many hosts by turns.
    pub fn of_hosts(address: SocketAddr, hosts: impl Iterator<Item = String>) -> Self {
        Self::of(
            address,
            hosts.map(|host| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes()),
        )
    }

    /// `POST /` with a body.
    pub fn post(address: SocketAddr, host: &str, body: &[u8]) -> Self {
        let mut text = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        text.extend_from_slice(body);
        Self::of(address, [text])
    }

    /// The first of these requests, for a thread that makes its own.
    pub fn first(&self) -> Option<(SocketAddr, &[u8])> {
        Some((self.address, self.texts.first()?))
    }

    /// By turns one of several requests, as they are sent.
    pub fn of(address: SocketAddr, texts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            address,
            texts: texts.into_iter().collect(),
        }
    }
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers with status 200.
    pub answered: u64,
    /// Other answers, and connections that were cut.
    pub failed: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Time that it took.
    pub seconds: f64,
    /// Seconds for each answer, sorted.
    pub latencies: Vec<f64>,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// Bytes of bodies a second.
    pub fn throughput(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// Seconds within which a share of all answers came.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.latencies.extend(other.latencies);
    }
}

/// As many requests as `connections` can do one after the other, for a time. Any answer but 200 is an error.
pub fn closed(request: &Request, connections: usize, seconds: f64) -> Result<Outcome> {
    let outcome = run(async {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let clients = (0..connections).map(|index| {
            let request = request.clone();
            async move {
                let mut outcome = Outcome::default();
                let mut connection = Connection::open(request.address).await?;
                let mut turn = index;
                let mut now = Instant::now();
                while now < until {
                    let text = text_of(&request, turn);
                    turn += 1;
                    let begun = now;
                    let answer = time::timeout(PATIENCE, connection.ask(text)).await;
                    let answer = answer.context("no answer")??;
                    now = Instant::now();
                    ensure!(answer.status == 200, "answered {}", answer.status);
                    outcome.answered += 1;
                    outcome.bytes += answer.bytes;
                    outcome.latencies.push((now - begun).as_secs_f64());
                }
                Ok(outcome)
            }
        });
        gather(clients.collect()).await
    })?;
    ensure!(outcome.answered > 0, "nothing was answered");
    Ok(outcome)
}

/// `rate` requests a second for a time, whether or not earlier ones were answered. A request that waits for a connection has
/// begun when it should have. All connections have been opened and used once before the first: to open many at a time takes a
/// millisecond, which would be the p99 of a short round.
pub fn open(request: &Request, connections: usize, rate: f64, seconds: f64) -> Result<Outcome> {
    run(async {
        let mut opened = Vec::with_capacity(connections);
        for index in 0..connections {
            let mut connection = None;
            if attempt(&mut connection, request, index).await.is_err() {
                connection = None;
            }
            opened.push(connection);
        }
        let start = Instant::now() + Duration::from_millis(20);
        let clients = opened
            .into_iter()
            .enumerate()
            .map(|(index, mut connection)| {
                let request = request.clone();
                async move {
                    let mut outcome = Outcome::default();
                    for number in (index..).step_by(connections) {
                        let after = number as f64 / rate;
                        if after > seconds {
                            break;
                        }
                        let due = start + Duration::from_secs_f64(after);
                        let now = Instant::now();
                        if due > now {
                            // The runtime's timer counts whole milliseconds, and may be two late; the rest is waited for in
                            // between others.
                            let coarse = (due - now).saturating_sub(TIMER);
                            if !coarse.is_zero() {
                                time::sleep(coarse).await;
                            }
                            while Instant::now() < due {
                                tokio::task::yield_now().await;
                            }
                        }
                        let answer = attempt(&mut connection, &request, number).await;
                        match answer {
                            Ok(answer) if answer.status == 200 => {
                                outcome.answered += 1;
                                outcome.bytes += answer.bytes;
                                outcome.latencies.push(due.elapsed().as_secs_f64());
                            }
                            Ok(_) => outcome.failed += 1,
                            Err(_) => {
                                outcome.failed += 1;
                                connection = None;
                            }
                        }
                    }
                    Ok(outcome)
                }
            });
        gather(clients.collect()).await
    })
}

/// Requests that are expected to fail, over and over, until `stop` is set.
pub async fn pester(request: Request, stop: std::rc::Rc<std::cell::Cell<bool>>) {
    let mut connection = None;
    while !stop.get() {
        if attempt(&mut connection, &request, 0).await.is_err() {
            connection = None;
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One answer's body.
pub fn once(request: &Request) -> Result<String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(request.address).await?;
        let answer = time::timeout(PATIENCE, connection.ask(text_of(request, 0))).await??;
        ensure!(answer.status == 200, "answered {}", answer.status);
        Ok(String::from_utf8_lossy(&connection.body).into_owned())
    })
}

/// Waits until a request has another answer than 404: a server listens before its workloads have started.
pub fn wait_for_route(request: &Request) -> Result<()> {
    let begun = Instant::now();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        loop {
            let mut connection = Connection::open(request.address).await?;
            let answer = time::timeout(PATIENCE, connection.ask(text_of(request, 0))).await??;
            if answer.status != 404 {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "there is no such route");
            time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// An open load while others are pestered on a thread of the same core.
pub fn open_beside(
    request: &Request,
    pests: &[Request],
    connections: usize,
    rate: f64,
    seconds: f64,
) -> Result<Outcome> {
    let pests: Vec<(SocketAddr, Vec<Vec<u8>>)> = pests
        .iter()
        .map(|pest| (pest.address, pest.texts.to_vec()))
        .collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = run(async {
                let local = std::rc::Rc::new(std::cell::Cell::new(false));
                let all = pests.into_iter().map(|(address, texts)| {
                    tokio::task::spawn_local(pester(Request::of(address, texts), local.clone()))
                });
                let all: Vec<_> = all.collect();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    time::sleep(Duration::from_millis(20)).await;
                }
                local.set(true);
                all.iter().for_each(tokio::task::JoinHandle::abort);
                Ok(Outcome::default())
            });
        });
        std::thread::sleep(Duration::from_millis(300));
        let outcome = open(request, connections, rate, seconds);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    })
}

fn text_of(request: &Request, turn: usize) -> &[u8] {
    let turn = turn.checked_rem(request.texts.len()).unwrap_or(0);
    request.texts.get(turn).map_or(&[], Vec::as_slice)
}

async fn attempt(
    connection: &mut Option<Connection>,
    request: &Request,
    turn: usize,
) -> Result<Answer> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::open(request.address).await?),
    };
    time::timeout(PATIENCE, connection.ask(text_of(request, turn))).await?
}

fn run(load: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let mut outcome = LocalSet::new().block_on(&runtime, load)?;
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.latencies.sort_unstable_by(f64::total_cmp);
    Ok(outcome)
}

async fn gather<F>(clients: Vec<F>) -> Result<Outcome>
where
    F: Future<Output = Result<Outcome>> + 'static,
{
    let tasks: Vec<_> = clients.into_iter().map(tokio::task::spawn_local).collect();
    let mut all = Outcome::default();
    for task in tasks {
        all.add(task.await??);
    }
    Ok(all)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    bytes: u64,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(64 << 10),
            body: Vec::new(),
        })
    }

    /// Sends a request, and reads its answer while it is sent: neither side may wait for the other with full buffers.
    async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.buffer.clear();
        self.body.clear();
        if request.len() <= 16 << 10 {
            self.stream.write_all(request).await?;
            return read(&mut self.stream, &mut self.buffer, &mut self.body).await;
        }
        let (mut reader, mut writer) = self.stream.split();
        let (buffer, body) = (&mut self.buffer, &mut self.body);
        let (sent, answer) =
            tokio::join!(writer.write_all(request), read(&mut reader, buffer, body));
        sent?;
        answer
    }
}

/// Reads one answer.
async fn read(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> Result<Answer> {
    let (status, length, mut at) = loop {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the connection was closed"
        );
        if let Some(head) = head(buffer)? {
            break head;
        }
    };
    match length {
        Some(length) => {
            // Only counted: what a body says matters to `once` alone, whose answers are small.
            let mut got = buffer.len() - at;
            body.extend_from_slice(buffer.get(at..).unwrap_or_default());
            while got < length {
                buffer.clear();
                let more = stream.read_buf(buffer).await?;
                ensure!(more > 0, "the connection was closed");
                got += more;
            }
            Ok(Answer {
                status,
                bytes: length as u64,
            })
        }
        None => {
            let mut bytes = 0;
            loop {
                let size = loop {
                    if let Some((size, next)) = chunk_size(buffer, at)? {
                        at = next;
                        break size;
                    }
                    more(stream, buffer, &mut at).await?;
                };
                while buffer.len() < at + size + 2 {
                    more(stream, buffer, &mut at).await?;
                }
                if size == 0 {
                    return Ok(Answer { status, bytes });
                }
                if body.len() < 4 << 10 {
                    body.extend_from_slice(buffer.get(at..at + size).unwrap_or_default());
                }
                bytes += size as u64;
                at += size + 2;
            }
        }
    }
}

/// Reads more behind what is not looked at yet.
async fn more(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    at: &mut usize,
) -> Result<()> {
    if *at > 256 << 10 {
        buffer.drain(..*at);
        *at = 0;
    }
    ensure!(
        stream.read_buf(buffer).await? > 0,
        "the connection was closed"
    );
    Ok(())
}

/// Status, length of the body (none if it is chunked) and where it begins; none if the head is not whole.
fn head(buffer: &[u8]) -> Result<Option<(u16, Option<usize>, usize)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(buffer.get(..end).unwrap_or_default())?;
    let status = text.get(9..12).context("no status")?.parse()?;
    let mut length = None;
    let mut chunked = false;
    for line in text.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
    if !chunked && length.is_none() {
        bail!("an answer without a length");
    }
    Ok(Some((status, length.filter(|_| !chunked), end + 4)))
}

/// The size of the chunk that begins at `at`, and where its bytes begin; none if that is not here yet.
fn chunk_size(buffer: &[u8], at: usize) -> Result<Option<(usize, usize)>> {
    let rest = buffer.get(at..).unwrap_or_default();
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let digits = std::str::from_utf8(rest.get(..end).unwrap_or_default())?;
    Ok(Some((usize::from_str_radix(digits, 16)?, at + end + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reading(text: &str) -> Result<(u16, u64, String)> {
        let (mut buffer, mut body) = (Vec::new(), Vec::new());
        let answer = read(&mut text.as_bytes(), &mut buffer, &mut body).await?;
        Ok((answer.status, answer.bytes, String::from_utf8(body)?))
    }

    #[tokio::test]
    async fn answers_are_read_whole() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(reading(sized).await.unwrap(), (200, 5, "hello".to_owned()));
        let chunked =
            "HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(
            reading(chunked).await.unwrap(),
            (503, 5, "hello".to_owned())
        );
        assert!(
            reading("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
                .await
                .is_err()
        );
        assert!(reading("HTTP/1.1 200 OK\r\n\r\n").await.is_err());
    }
}
