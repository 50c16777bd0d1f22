//! `/livez`, `/readyz` and `/metrics`.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

use super::metrics;

/// The main loop beats every second; after this long without a beat the agent is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// Probes and scrapers need few connections; more are refused by waiting.
const CONNECTIONS: usize = 64;

/// The agent's health, written by its main loop.
#[derive(Clone)]
pub(super) struct Health(Arc<State>);

struct State {
    synced: AtomicBool,
    draining: AtomicBool,
    beat: Mutex<Instant>,
}

impl Health {
    pub fn new() -> Self {
        Self(Arc::new(State {
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            beat: Mutex::new(Instant::now()),
        }))
    }

    /// The main loop is alive.
    pub fn beat(&self) {
        *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The agent has seen all its workloads once.
    pub fn synced(&self) {
        self.0.synced.store(true, Ordering::Relaxed);
    }

    /// The agent is going away.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn live(&self) -> Result<(), &'static str> {
        let beat = *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner);
        if beat.elapsed() < STUCK {
            Ok(())
        } else {
            Err("the main loop is stuck")
        }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err("draining");
        }
        if !self.0.synced.load(Ordering::Relaxed) {
            return Err("the API server has not listed this node's workloads yet");
        }
        self.live()
    }
}

/// A bound admin listener.
pub(super) struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Admin {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Self {
            addr: listener.local_addr()?,
            listener,
        })
    }

    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until the task is aborted.
    pub async fn serve(self, health: Health, registry: Arc<Registry>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: they come back.
                    tracing::warn!(%error, "admin listener");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (health, registry) = (health.clone(), registry.clone());
            let service = service_fn(move |request| {
                let response = answer(&request, &health, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                // A client that went away is no news.
                let _ = connection.await;
                drop(place);
            });
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    health: &Health,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/livez" => probe(health.live()),
        "/readyz" => probe(health.ready()),
        "/metrics" => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics::render(registry),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is /livez, /readyz and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

fn probe(result: Result<(), &'static str>) -> (StatusCode, &'static str, String) {
    match result {
        Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            format!("{why}\n"),
        ),
    }
}
