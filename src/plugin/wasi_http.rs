//! `wasi:http`: serves components over HTTP, and lets them call out where they may.
//!
//! A workload is served when one of its `wasi:http` entries lists `incoming-handler` or `handler`; the entry's `host` and `path`
//! are its route. Which of two workloads has a route that both want is decided by age, see the Errors of [`HttpServer`].
//! Each request gets an instance of its own, in a task of its own, on the thread that has its connection.
//!
//! A workload with a service port answers there too, whatever the Host header; workloads of one port share it.
//!
//! Outgoing requests need no entry; they are denied unless the component's `allowedHosts` has a rule for them.
//!
//! They go over a pool of connections that each workload has for itself, to addresses that were [judged](crate::spec::prohibited).
//!
//! Clients speak HTTP/1.1 or, if they know beforehand, HTTP/2; and over TLS, at an address of its own, either.

mod answer;
mod authority;
mod binding;
mod body;
mod call;
mod connection;
mod counters;
mod door;
mod egress;
mod flight;
mod guest;
mod handler;
mod head_timer;
mod http2;
mod instances;
mod limit;
mod listen;
mod outbox;
mod outcome;
mod patient;
mod ports;
mod route;
mod routes;
mod serve;
mod shared;
mod socket;
mod table;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use wasmtime::component::Linker;

use super::{
    BindRequest, Binding, ComponentFacts, HostPlugin, PluginStartError, StoreState, interface_ids,
};
use crate::{fault::Fault, spec::BlockedNetwork, wit::World};
use egress::Outside;
use listen::Listening;
use serve::Ingress;

pub use counters::{HttpSnapshot, RefusedSnapshot};
pub use egress::EgressSnapshot;
pub(super) use egress::{HttpState, denial_counter};
pub use tls::TlsFiles;
#[cfg_attr(
    not(feature = "washlet"),
    allow(
        unused_imports,
        reason = "for whoever decides about the routes of a cluster"
    )
)]
pub(crate) use {
    route::{HostPattern, Route},
    routes::{Claim, Claims, Standing, Token},
};

const TYPES_2: &str = "wasi:http/types@0.2.12";
const OUTGOING_2: &str = "wasi:http/outgoing-handler@0.2.12";
const INCOMING_2: &str = "wasi:http/incoming-handler@0.2.12";
const TYPES_3: &str = "wasi:http/types@0.3.0";
const CLIENT_3: &str = "wasi:http/client@0.3.0";
const HANDLER_3: &str = "wasi:http/handler@0.3.0";

/// The HTTP server of a host.
///
/// It listens once the host is started, and until it is dropped: then the port is free again and its threads have ended. One
/// thread accepts connections and gives each to the worker that has the fewest; a worker is a thread of its own, by default
/// one for each processor.
///
/// # Errors
/// A workload's fault, while its route belongs to another one, is
/// [`Reason::RouteConflict`](crate::fault::Reason::RouteConflict); it is lifted by itself when the route is released. While its
/// service port cannot be opened, it is [`Reason::PortConflict`](crate::fault::Reason::PortConflict); it is tried again.
pub struct HttpServer {
    options: Options,
    ingress: Arc<Ingress>,
    outside: Outside,
    listening: Mutex<Option<Listening>>,
}

/// How to listen.
#[derive(Debug, Clone)]
struct Options {
    address: SocketAddr,
    workers: Option<NonZeroUsize>,
    max_connections: usize,
    head_timeout: Duration,
    write_timeout: Duration,
    https: Option<(SocketAddr, TlsFiles)>,
    request_timeout: Duration,
    max_body: u64,
}

impl HttpServer {
    /// Time that a request is given, from its head to the end of the guest's work for it, unless its component says
    /// otherwise: what most proxies wait for an answer. A guest that streams for longer needs a limit of its own.
    pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// Largest body of a request, in bytes, unless it is given another: 64 MiB.
    pub const MAX_BODY: u64 = 64 << 20;

    /// Largest head of a request, in bytes: 64 KiB for its line and its headers, of which HTTP/1.1 may have 100. What is larger
    /// is answered by 431.
    pub const MAX_HEAD: u32 = connection::MAX_HEAD;

    /// A server for this address; port 0 is any free one, and `[::]` is every address of both families. Nothing is opened
    /// before the host starts.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            options: Options {
                address,
                workers: None,
                max_connections: 10_000,
                head_timeout: Duration::from_secs(60),
                write_timeout: Duration::from_secs(60),
                https: None,
                request_timeout: Self::REQUEST_TIMEOUT,
                max_body: Self::MAX_BODY,
            },
            ingress: Arc::new(Ingress::new(Self::REQUEST_TIMEOUT, Self::MAX_BODY)),
            outside: Outside::new(),
            listening: Mutex::new(None),
        }
    }

    /// Threads that serve requests; by default one for each processor that the process may use.
    #[must_use]
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// Most connections at a time, 10,000 by default; further ones wait to be accepted. Each takes a file descriptor, and
    /// with buffers some 10 KiB.
    #[must_use]
    pub fn max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.options.max_connections = connections.get();
        self
    }

    /// Serves HTTPS too, at an address of its own: HTTP/2 or HTTP/1.1 over TLS 1.2 or 1.3, with one certificate for all names.
    /// The host does not start without a certificate that can be used.
    #[must_use]
    pub fn https(mut self, address: SocketAddr, files: TlsFiles) -> Self {
        self.options.https = Some((address, files));
        self
    }

    /// Largest body of a request, in bytes; see [`HttpServer::MAX_BODY`]. What is larger is answered by 413, as soon as that is
    /// known; if the response has begun by then, it is cut. Bodies are passed on as they come, so this bounds what a request may
    /// cost and no memory of the host's.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.options.max_body = bytes;
        self.with_ingress()
    }

    /// Most time without any progress for a client to take what it is sent, 60 s by default; then its connection is closed, or
    /// its stream reset where only that one lies.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.options.write_timeout = timeout;
        self
    }

    /// Most time for the head of a request to arrive, 60 s by default; also the time after which a connection without a
    /// request is closed.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.options.head_timeout = timeout;
        self
    }

    /// Time for requests whose component does not say otherwise; see [`HttpServer::REQUEST_TIMEOUT`].
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self.with_ingress()
    }

    fn with_ingress(mut self) -> Self {
        let Options {
            request_timeout,
            max_body,
            ..
        } = self.options;
        self.ingress = Arc::new(Ingress::new(request_timeout, max_body));
        self
    }

    /// Networks that no component may connect to, whatever its `allowedHosts` say; by default none. (Loopback, link-local and
    /// other [ranges](crate::spec::BlockedRange) are blocked without this, where no rule names them.)
    #[must_use]
    pub fn block_networks(mut self, networks: impl IntoIterator<Item = BlockedNetwork>) -> Self {
        self.outside.networks = networks.into_iter().collect();
        self
    }

    /// Most connections that each workload may have open for its own calls, 128 by default. Further calls wait for one, as
    /// long as they may take to connect; then they fail with `connection-limit-reached`.
    #[must_use]
    pub fn max_outgoing_connections(mut self, connections: NonZeroUsize) -> Self {
        self.outside.max_connections = connections.get();
        self
    }

    /// The address that it listens on, with the real port; none before the host is started.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        serve::lock(&self.listening)
            .as_ref()
            .map(Listening::address)
    }

    /// The address that it serves HTTPS on, with the real port; none before the host is started, and without
    /// [`HttpServer::https`].
    #[must_use]
    pub fn https_addr(&self) -> Option<SocketAddr> {
        serve::lock(&self.listening)
            .as_ref()
            .and_then(Listening::https_address)
    }

    /// Asks all clients to come back over other connections, which may lead elsewhere: from now on each answer says
    /// `Connection: close`, and HTTP/2 clients are told to go away at their next one. Requests are answered as before.
    pub fn send_away(&self) {
        self.ingress.part();
    }

    /// Closes the connections of clients that were [sent away](Self::send_away): those without a request at once, the others
    /// after its answer. Ready when none of them takes another request.
    pub async fn close_connections(&self) {
        self.ingress.close_all().await;
    }

    /// Requests that were refused before they had found a workload.
    #[must_use]
    pub fn refused(&self) -> RefusedSnapshot {
        self.ingress.refused.snapshot()
    }

    /// Counts of all workloads that are called here, by namespace and name.
    #[must_use]
    pub fn snapshots(&self) -> BTreeMap<(Arc<str>, Arc<str>), HttpSnapshot> {
        self.ingress.snapshots()
    }

    /// Calls out of all workloads.
    #[must_use]
    pub fn egress(&self) -> EgressSnapshot {
        self.outside.totals.snapshot()
    }

    /// Counts of one workload, by its id; none if this server knows no such workload.
    #[must_use]
    pub fn snapshot(&self, workload: &str) -> Option<HttpSnapshot> {
        self.ingress.snapshot(workload)
    }
}

impl HostPlugin for HttpServer {
    fn id(&self) -> &'static str {
        "wasi-http"
    }

    fn world(&self) -> World {
        World {
            imports: interface_ids(&[TYPES_2, OUTGOING_2, TYPES_3, CLIENT_3]),
            exports: interface_ids(&[INCOMING_2, HANDLER_3]),
        }
    }

    fn link(
        &self,
        linker: &mut Linker<StoreState>,
        component: &ComponentFacts,
    ) -> wasmtime::Result<()> {
        let imports = |names: &[&str]| interface_ids(names).iter().any(|id| component.imports(id));
        if imports(&[TYPES_2, OUTGOING_2]) {
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
        }
        if component.flavor.is_concurrent() && imports(&[TYPES_3, CLIENT_3]) {
            wasmtime_wasi_http::p3::add_to_linker(linker)?;
        }
        egress::link_apart(linker, component)
    }

    fn bind<'a>(
        &'a self,
        request: BindRequest<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>> {
        Box::pin(async move {
            Ok(
                Box::new(binding::Bound::new(&self.ingress, &self.outside, &request)?)
                    as Box<dyn Binding>,
            )
        })
    }

    fn start(&self) -> BoxFuture<'_, Result<(), PluginStartError>> {
        Box::pin(async move {
            let mut listening = serve::lock(&self.listening);
            if listening.is_none() {
                let opened = Listening::open(&self.options, &self.ingress).map_err(|error| {
                    PluginStartError {
                        plugin: self.id(),
                        message: error.message,
                        source: error.source,
                    }
                })?;
                tracing::info!(address = %opened.address(), "listening for HTTP");
                if let Some(address) = opened.https_address() {
                    tracing::info!(%address, "listening for HTTPS");
                }
                *listening = Some(opened);
            }
            Ok(())
        })
    }
}
