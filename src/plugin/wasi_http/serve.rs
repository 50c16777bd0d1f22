//! What all connections share: routes, who has them, and how a request finds its way.

use std::{
    borrow::Cow,
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::Body as HttpBody;
use tokio::sync::Notify;

use super::{
    answer::Answer,
    body::Body,
    call::Call,
    counters::{Counters, HttpSnapshot},
    handler::Handler,
    routes::{Change, Claim, Claims, Standing, Token},
    table::Table,
};
use crate::spec::WorkloadId;

/// The incoming side.
pub(super) struct Ingress {
    pub request_timeout: Duration,
    table: Table<Handler>,
    registry: Mutex<Registry>,
}

/// Who claims what; changed when a workload starts or stops, never by a request.
#[derive(Default)]
struct Registry {
    claims: Claims,
    claimants: HashMap<Token, Claimant>,
    counters: HashMap<WorkloadId, Weak<Counters>>,
}

struct Claimant {
    handler: Arc<Handler>,
    workload: WorkloadId,
    signal: Arc<Notify>,
}

impl Ingress {
    pub fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            table: Table::new(),
            registry: Mutex::default(),
        }
    }

    /// Claims routes for a handler. It answers them at once if it can have all of them, in place of an older generation of its
    /// workload.
    pub fn claim(&self, claim: Claim, handler: Arc<Handler>, signal: Arc<Notify>) -> Token {
        let mut registry = lock(&self.registry);
        let workload = claim.workload.clone();
        let (token, change) = registry.claims.insert(claim);
        registry.claimants.insert(
            token,
            Claimant {
                handler,
                workload,
                signal,
            },
        );
        self.apply(&registry, change);
        token
    }

    /// Gives up the routes of a claim, which others may be waiting for; once is enough.
    pub fn release(&self, token: Token) {
        let mut registry = lock(&self.registry);
        let change = registry.claims.remove(token);
        self.apply(&registry, change);
    }

    /// Forgets a claim that was released; until then its requests are counted.
    pub fn forget(&self, token: Token) {
        lock(&self.registry).claimants.remove(&token);
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
        let of_workload = registry
            .claimants
            .values()
            .filter(|claimant| *claimant.workload == *workload);
        Some(
            counters.snapshot(
                of_workload
                    .map(|claimant| u64::from(claimant.handler.flight.count()))
                    .sum(),
            ),
        )
    }

    fn apply(&self, registry: &Registry, change: Change) {
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

    /// Answers one request.
    pub async fn serve<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let Some(host) = host(&request) else {
            return Ok(Answer::NoHost.response());
        };
        let path = request.uri().path();
        // A generation can end between being found and being called; then another one has the route, or nobody.
        let mut answer = Answer::NoRoute;
        for _ in 0..4 {
            let Some(handler) = self.table.find(&host, path) else {
                break;
            };
            if let Some(call) = Call::begin(handler) {
                drop(host);
                return Ok(call.answer(request).await);
            }
            answer = Answer::Stopping;
        }
        Ok(answer.response())
    }
}

/// The host that a request is for: in lower case, without a port or a final dot.
fn host<B>(request: &Request<B>) -> Option<Cow<'_, str>> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut all = request.headers().get_all(header::HOST).iter();
            let host = all.next()?.to_str().ok()?;
            // More than one would leave open who is meant.
            if all.next().is_some() || host.is_empty() {
                return None;
            }
            host
        }
    };
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split_once(']')?.0,
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _port)| host),
    };
    // Guests get the whole text as their authority, so it must be one: a name or an address, and a port.
    if !authority
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b))
    {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Some(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    })
}

/// Locks; nothing panics while a lock is held here, so what it protects is whole even then.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn of(target: &str, hosts: &[&str]) -> Option<String> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        host(&request.body(()).unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn hosts() {
        let cases: [(&str, &[&str], Option<&str>); 12] = [
            ("/", &["a.com"], Some("a.com")),
            ("/", &["A.com:8080"], Some("a.com")),
            ("/", &["a.com."], Some("a.com")),
            ("/", &["[::1]:80"], Some("::1")),
            ("http://b.com/x", &["a.com"], Some("b.com")),
            ("/", &[], None),
            ("/", &[""], None),
            ("/", &["a.com", "b.com"], None),
            ("/", &["a.com/x"], None),
            ("/", &["u@a.com"], None),
            ("/", &["a b"], None),
            ("/", &["[::1"], None),
        ];
        for (target, hosts, wanted) in cases {
            assert_eq!(of(target, hosts).as_deref(), wanted, "{target} {hosts:?}");
        }
    }
}
