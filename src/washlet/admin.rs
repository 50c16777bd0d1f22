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
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

/// A main loop beats every second; after this long without a beat it is stuck.
const STUCK: Duration = Duration::from_secs(30);
/// Probes and scrapers need few connections; more are refused by waiting.
const CONNECTIONS: usize = 64;

/// The health of an agent or a controller, written by its main loop.
#[derive(Clone)]
pub(super) struct Health(Arc<State>);

struct State {
    /// What is said until it is synced.
    unsynced: &'static str,
    synced: AtomicBool,
    draining: AtomicBool,
    /// What is still to be done before it is ready, if anything is.
    unprepared: Mutex<Option<String>>,
    beat: Mutex<Instant>,
}

impl Health {
    /// Not ready before it is synced; until then, `unsynced` says what is waited for.
    pub fn new(unsynced: &'static str) -> Self {
        Self(Arc::new(State {
            unsynced,
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            unprepared: Mutex::default(),
            beat: Mutex::new(Instant::now()),
        }))
    }

    /// The main loop is alive.
    pub fn beat(&self) {
        *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// It knows all that it has to know to begin.
    pub fn synced(&self) {
        self.0.synced.store(true, Ordering::Relaxed);
    }

    /// Whether it knows all that it has to know to begin.
    pub fn is_synced(&self) -> bool {
        self.0.synced.load(Ordering::Relaxed)
    }

    /// What is still to be done before it is ready; none if nothing is.
    pub fn prepared(&self, unprepared: Option<String>) {
        *self
            .0
            .unprepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = unprepared;
    }

    /// It is going away.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn live(&self) -> Result<(), String> {
        let beat = *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner);
        if beat.elapsed() < STUCK {
            Ok(())
        } else {
            Err("the main loop is stuck".to_owned())
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        if !self.0.synced.load(Ordering::Relaxed) {
            return Err(self.0.unsynced.to_owned());
        }
        let unprepared = self
            .0
            .unprepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(unprepared) = unprepared.clone() {
            return Err(unprepared);
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
            render(registry),
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

/// The registry in the OpenMetrics text format.
fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, registry);
    text
}

fn probe(result: Result<(), String>) -> (StatusCode, &'static str, String) {
    match result {
        Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain",
            format!("{why}\n"),
        ),
    }
}
