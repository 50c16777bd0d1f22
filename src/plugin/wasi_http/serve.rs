//! What all connections share: routes and ports, who has them, and how a request finds its way.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Body as HttpBody;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    answer::Answer,
    authority,
    body::Body,
    call::{Asked, Call},
    connection::Way,
    counters::{Counters, HttpSnapshot, Refused, count},
    door::Door,
    handler::Handler,
    instances::WAIT,
    listen::Opener,
    ports::{self, Candidate, Port, Ports},
    route::Route,
    routes::{Change, Claim, Claims, Standing, Token},
    table::Table,
};
use crate::spec::WorkloadId;

/// The incoming side.
pub(super) struct Ingress {
    pub request_timeout: Duration,
    /// Largest body of a request, in bytes.
    max_body: u64,
    /// Longest wait of a request for an instance. Only tests have another one.
    pub wait: Duration,
    /// Requests that belong to no workload.
    pub refused: Refused,
    /// The door of the main port.
    pub door: Door,
    /// Where guests go that take long, once the server listens.
    pub slow: OnceLock<Handle>,
    table: Table<Handler>,
    registry: Mutex<Registry>,
}

/// Who claims what; changed when a workload starts or stops, never by a request.
#[derive(Default)]
struct Registry {
    claims: Claims,
    claimants: HashMap<Token, Claimant>,
    counters: HashMap<WorkloadId, Weak<Counters>>,
    ports: Ports,
    /// All clients are sent away.
    parting: bool,
}

struct Claimant {
    handler: Arc<Handler>,
    workload: WorkloadId,
    signal: Arc<Notify>,
    /// Its port.
    port: Option<u16>,
    /// The ports that it answers at: its own, and former ones for a while.
    ports: Vec<u16>,
}

impl Ingress {
    pub fn new(request_timeout: Duration, max_body: u64) -> Self {
        Self {
            request_timeout,
            max_body,
            wait: WAIT,
            refused: Refused::default(),
            door: Door::default(),
            slow: OnceLock::new(),
            table: Table::new(),
            registry: Mutex::default(),
        }
    }

    /// Ports can be opened from now on.
    pub fn open_with(&self, opener: Opener) {
        lock(&self.registry).ports.open_with(opener);
    }

    /// Claims routes and a port for a handler. It answers them at once if it can have all of them, in place of an older
    /// generation of its workload. Must be called within a Tokio runtime.
    pub fn claim(
        &self,
        claim: Claim,
        port: Option<u16>,
        handler: Arc<Handler>,
        signal: Arc<Notify>,
    ) -> Token {
        let mut registry = lock(&self.registry);
        let workload = claim.workload.clone();
        let (token, change) = registry.claims.insert(claim);
        registry.claimants.insert(
            token,
            Claimant {
                handler,
                workload,
                signal,
                port: None,
                ports: Vec::new(),
            },
        );
        registry.join(token, port);
        self.apply(&mut registry, change);
        token
    }

    /// Gives a claim other routes, and another port beside its former one. Must be called within a Tokio runtime.
    pub fn update(&self, token: Token, routes: Vec<Route>, port: Option<u16>) {
        let mut registry = lock(&self.registry);
        let change = registry.claims.update(token, routes);
        registry.join(token, port);
        self.apply(&mut registry, change);
    }

    /// Gives up a former port of a claim.
    pub fn leave_port(&self, token: Token, port: u16) {
        let mut registry = lock(&self.registry);
        if let Some(claimant) = registry.claimants.get_mut(&token) {
            // It may have become its own again.
            if claimant.port == Some(port) {
                return;
            }
            claimant.ports.retain(|other| *other != port);
        }
        registry.ports.leave(port, token);
        registry.settle(port);
    }

    /// Lets all others come before a claim from now on. Says whether a port would be without it.
    pub fn leave(&self, token: Token) -> bool {
        let mut registry = lock(&self.registry);
        let change = registry.claims.leave(token);
        self.apply(&mut registry, change);
        let ports = registry.ports_of(token);
        for port in &ports {
            registry.settle(*port);
        }
        ports
            .iter()
            .any(|port| registry.answering(*port).contains(&token))
    }

    /// Closes the connections at the ports that would be without a claim, which has left.
    pub async fn close_ports_of(&self, token: Token) {
        let ports = {
            let registry = lock(&self.registry);
            registry.ports.parting(&registry.ports_of(token))
        };
        close(&ports).await;
    }

    /// Closes the connections at a port, if its clients are sent away.
    pub async fn close_port(&self, port: u16) {
        let ports = lock(&self.registry).ports.parting(&[port]);
        close(&ports).await;
    }

    /// Sends all clients away from now on, wherever they come in.
    pub fn part(&self) {
        let mut registry = lock(&self.registry);
        registry.parting = true;
        self.door.part(true);
        for port in registry.ports.numbers() {
            registry.settle(port);
        }
    }

    /// Closes all connections, if clients are sent away.
    pub async fn close_all(&self) {
        let ports = {
            let registry = lock(&self.registry);
            registry.ports.parting(&registry.ports.numbers())
        };
        tokio::join!(close(&ports), async {
            if self.door.is_parting() {
                self.door.close().await;
            }
        });
    }

    /// Gives up the routes and ports of a claim, which others may be waiting for; once is enough.
    pub fn release(&self, token: Token) {
        let mut registry = lock(&self.registry);
        let change = registry.claims.remove(token);
        self.apply(&mut registry, change);
        let ports = registry.claimants.get_mut(&token);
        for port in ports.map(|c| mem::take(&mut c.ports)).unwrap_or_default() {
            registry.ports.leave(port, token);
            registry.settle(port);
        }
    }

    /// Looks at a port again, because its listener has ended or because a try to open it is due.
    pub fn revisit(&self, port: u16) {
        let mut registry = lock(&self.registry);
        if registry.ports.revisit(port) {
            for token in registry.ports.tokens(port) {
                if let Some(claimant) = registry.claimants.get(&token) {
                    claimant.signal.notify_one();
                }
            }
        }
    }

    /// Why a port is not open, if it is not.
    pub fn port_fault(&self, port: u16) -> Option<Arc<str>> {
        lock(&self.registry).ports.fault(port)
    }

    /// Forgets a claim that was released; until then its requests are counted.
    pub fn forget(&self, token: Token) {
        lock(&self.registry).claimants.remove(&token);
    }

    /// Who answers a host.
    #[cfg(test)]
    pub fn handler(&self, host: &str) -> Option<Arc<Handler>> {
        self.table.find(host, "/")
    }

    /// How a claim stands; none if it was released.
    pub fn standing(&self, token: Token) -> Option<Standing> {
        lock(&self.registry).claims.standing(token).cloned()
    }

    /// The counters of a workload, which all its generations share.
    pub fn counters(&self, workload: &WorkloadId) -> Arc<Counters> {
        let mut registry = lock(&self.registry);
        if let Some(counters) = registry.counters.get(workload).and_then(Weak::upgrade) {
            return counters;
        }
        registry
            .counters
            .retain(|_, counters| counters.strong_count() > 0);
        let counters = Arc::<Counters>::default();
        registry
            .counters
            .insert(workload.clone(), Arc::downgrade(&counters));
        counters
    }

    pub fn snapshot(&self, workload: &str) -> Option<HttpSnapshot> {
        let registry = lock(&self.registry);
        let counters = registry.counters.get(workload).and_then(Weak::upgrade)?;
        let mut snapshot = counters.snapshot();
        for claimant in registry.claimants.values() {
            if *claimant.workload == *workload {
                snapshot += claimant.handler.load();
            }
        }
        Some(snapshot)
    }

    /// Counts of all workloads that are called here, by namespace and name. One that is deleted and one that takes its name
    /// count together while both are there.
    pub fn snapshots(&self) -> BTreeMap<(Arc<str>, Arc<str>), HttpSnapshot> {
        let registry = lock(&self.registry);
        let mut snapshots = BTreeMap::<_, HttpSnapshot>::new();
        let mut counted = HashSet::new();
        for Claimant {
            handler, workload, ..
        } in registry.claimants.values()
        {
            let name = (
                handler.label.namespace.clone(),
                handler.label.workload.clone(),
            );
            let snapshot = snapshots.entry(name).or_default();
            *snapshot += handler.load();
            // Its generations share their counters.
            if counted.insert(workload) {
                *snapshot += handler.counters.snapshot();
            }
        }
        snapshots
    }

    fn apply(&self, registry: &mut Registry, change: Change) {
        for token in &change.standings {
            for port in registry.ports_of(*token) {
                registry.settle(port);
            }
        }
        let claimant = |token: &Token| registry.claimants.get(token);
        for (route, holders) in change.routes {
            let handlers = holders
                .iter()
                .filter_map(claimant)
                .map(|claimant| claimant.handler.clone())
                .collect();
            self.table.set(&route, handlers);
        }
        for claimant in change.standings.iter().filter_map(claimant) {
            claimant.signal.notify_one();
        }
    }

    /// Answers one request, by its host and path, or as whoever has the port that it came by. The request itself is gone before
    /// the answer is waited for, which so takes little room.
    pub fn serve<'a, B>(
        &'a self,
        request: Request<B>,
        way: &'a Way,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<'a, B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error> + Send,
    {
        let asked = self.ask(request, way);
        let door = way.door(self);
        async move {
            let mut response = match asked {
                Ok(asked) => asked.answer().await,
                Err(response) => response,
            };
            if door.is_parting() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        }
    }

    /// Has a guest answer, or answers in its place.
    #[expect(
        clippy::result_large_err,
        reason = "what is waited for is as large, and boxing it would cost each request"
    )]
    fn ask<B>(&self, mut request: Request<B>, way: &Way) -> Result<Asked, Response<Body>>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error> + Send,
    {
        if !authority::set_scheme(&mut request, way.is_secure()) {
            return Err(self.refuse(Answer::NoHost));
        }
        let Some(host) = authority::host(&request) else {
            return Err(self.refuse(Answer::NoHost));
        };
        let path = request.uri().path();
        // A generation can end between being found and being called; then another one has the route, or nobody.
        let mut answer = match way {
            Way::Main | Way::Https(_) => Answer::NoRoute,
            Way::Port(_) => Answer::Stopping,
        };
        for _ in 0..4 {
            let found = match way {
                Way::Main | Way::Https(_) => self.table.find(&host, path),
                Way::Port(port) => port.next(),
            };
            let Some(handler) = found else {
                break;
            };
            if let Some(call) = Call::begin(handler) {
                drop(host);
                return call.ask(request, self.max_body);
            }
            answer = Answer::Stopping;
        }
        Err(self.refuse(answer))
    }

    /// Answers a request that is nobody's.
    fn refuse(&self, answer: Answer) -> Response<Body> {
        count(match answer {
            Answer::NoHost => &self.refused.no_host,
            Answer::NoRoute => &self.refused.no_route,
            _ => &self.refused.stopping,
        });
        answer.response()
    }
}

impl Registry {
    fn ports_of(&self, token: Token) -> Vec<u16> {
        let claimant = self.claimants.get(&token);
        claimant.map(|c| c.ports.clone()).unwrap_or_default()
    }

    /// Makes a port the claim's own; a former one goes on for now.
    fn join(&mut self, token: Token, port: Option<u16>) {
        let Some(claimant) = self.claimants.get_mut(&token) else {
            return;
        };
        let former = mem::replace(&mut claimant.port, port);
        if let Some(port) = port {
            if !claimant.ports.contains(&port) {
                claimant.ports.push(port);
                self.ports.join(port, token);
            }
            self.settle(port);
        }
        if let Some(former) = former.filter(|former| port != Some(*former)) {
            self.settle(former);
        }
    }

    /// Decides anew who answers at a port.
    fn settle(&mut self, port: u16) {
        let answering = self.answering(port);
        let handlers = answering
            .iter()
            .filter_map(|token| self.claimants.get(token))
            .map(|claimant| claimant.handler.clone());
        self.ports.set(port, handlers.collect());
        // Whoever is left is on its way out, and clients should be so too.
        let stays = answering.iter().any(|token| {
            let claimant = self.claimants.get(token);
            claimant.is_some_and(|c| c.port == Some(port)) && !self.claims.is_leaving(*token)
        });
        self.ports.part(port, self.parting || !stays);
    }

    /// Who answers at a port.
    fn answering(&self, port: u16) -> Vec<Token> {
        let candidates = self.ports.tokens(port).into_iter().filter_map(|token| {
            Some(Candidate {
                token,
                workload: &self.claimants.get(&token)?.workload,
                holds: self.claims.standing(token)? == &Standing::Holds,
                leaving: self.claims.is_leaving(token),
            })
        });
        ports::answering(candidates.collect())
    }
}

async fn close(ports: &[Arc<Port>]) {
    futures::future::join_all(ports.iter().map(|port| port.door.close())).await;
}

/// Locks; nothing panics while a lock is held here, so what it protects is whole even then.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
