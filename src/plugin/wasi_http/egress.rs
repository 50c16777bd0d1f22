//! Which hosts a component may call, and how it is done.
//!
//! A call is allowed by a rule of the component's `allowedHosts`; then a connection of its workload's [pool] is used, or one is
//! made to an address that was judged: names are looked up once, and the very address that was found good is connected to.
//! Redirects are the guest's own to follow, and are judged as any call.

mod body;
mod connect;
mod denied;
mod exchange;
mod grpc;
mod outside;
mod pool;
mod target;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use futures::FutureExt as _;
use http::{HeaderName, Request, Response, uri::Scheme};
use http_body_util::BodyExt as _;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody,
    WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, p2::bindings::http::types as p2,
    p3::bindings::http::types as p3,
};

use self::{
    denied::Denials,
    exchange::{Exchanged, exchange},
    grpc::is_grpc,
    target::Target,
};
use super::{CLIENT_3, OUTGOING_2, counters::Counters, handler::Label};
use crate::{
    plugin::{
        ComponentFacts, MAX_APART, Notices, Slots, StoreState,
        apart::{self, at_each_place},
    },
    spec::{self, AllowedHost, Prohibited},
};

pub use outside::EgressSnapshot;
pub(super) use {outside::Outside, pool::Pool};

/// What one component may call; the slot that its instances share.
pub(super) struct Egress {
    allowed: Vec<AllowedHost>,
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    denials: Denials,
}

/// The part of a store that belongs to `wasi:http`.
#[derive(Clone)]
pub(in crate::plugin) struct HttpState {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// None, if the workload was bound without this plugin: then nothing may be called.
#[derive(Clone)]
struct Hooks(Option<Arc<Egress>>);

impl HttpState {
    pub fn new(slots: &Slots) -> Self {
        Self {
            context: WasiHttpCtx::new(),
            hooks: Hooks(slots.get_shared()),
        }
    }

    pub fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table,
            ctx: &mut self.context,
        }
    }
}

/// Adds what parts with grants of their own call out by: types are shared, and a call is judged by who makes it.
///
/// # Errors
/// When Wasmtime refuses a definition.
pub(super) fn link_apart(
    linker: &mut Linker<StoreState>,
    component: &ComponentFacts,
) -> wasmtime::Result<()> {
    type ViewOf = for<'a> fn(&'a mut StoreState) -> WasiHttpCtxView<'a>;
    const OF_PARTS: [ViewOf; MAX_APART] = at_each_place!(of_part);
    let mut link = apart::Linking { linker, component };
    let handler = wasmtime_wasi_http::p2::bindings::http::outgoing_handler::add_to_linker_instance::<
        _,
        WasiHttp,
    >;
    link.interface(OUTGOING_2, &OF_PARTS, handler)?;
    let client =
        wasmtime_wasi_http::p3::bindings::http::client::add_to_linker_instance::<_, WasiHttp>;
    link.interface(CLIENT_3, &OF_PARTS, client)
}

fn of_part<const PLACE: usize>(state: &mut StoreState) -> WasiHttpCtxView<'_> {
    state.http_of::<PLACE>()
}

/// What counts a denial among those of the component that these slots are of; nothing if it has no part in `wasi:http`.
pub(in crate::plugin) fn denial_counter(slots: &Slots) -> Box<dyn Fn() + Send + Sync> {
    match slots.get_shared::<Egress>() {
        Some(egress) => Box::new(move || egress.denials.count()),
        None => Box::new(|| ()),
    }
}

impl Egress {
    pub fn new(
        allowed: Vec<AllowedHost>,
        pool: &Arc<Pool>,
        counters: &Arc<Counters>,
        label: Label,
        notices: Notices,
    ) -> Self {
        let totals = pool.outside.totals.clone();
        Self {
            allowed,
            pool: pool.clone(),
            counters: counters.clone(),
            denials: Denials::new(counters.clone(), totals, label, notices),
        }
    }

    /// Whether these are the rules of this component.
    pub fn is_of(&self, component: &str) -> bool {
        *self.denials.label.component == *component
    }
}

/// A call that is allowed, as far as its URL goes.
struct Call {
    egress: Arc<Egress>,
    target: Target,
    /// Over HTTP/2 or not at all.
    grpc: bool,
}

impl Call {
    /// Judges a call; if it is denied, that is counted, and told if it is new.
    fn new(egress: &Arc<Egress>, target: Target, grpc: bool) -> Option<Self> {
        let (scheme, host, port) = (target.scheme(), &target.host, target.port);
        let mut rules = egress.allowed.iter();
        if !rules.any(|rule| rule.allows(scheme, host, port)) {
            egress.denials.denied(&target);
            return None;
        }
        Some(Self {
            egress: egress.clone(),
            target,
            grpc,
        })
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.egress.pool
    }

    /// Why an address may not be connected to, if it may not.
    fn judge(&self, address: IpAddr) -> Option<Prohibited> {
        let Target { host, port, .. } = &self.target;
        let destination = (self.target.scheme(), host.as_str(), *port);
        let networks = &self.pool().outside.networks;
        spec::prohibited(&self.egress.allowed, networks, destination, address)
    }

    /// None of the target's addresses may be connected to.
    fn tell_prohibited(&self, address: IpAddr, why: &Prohibited) {
        self.egress.denials.prohibited(&self.target, address, why);
    }
}

type Sending = Box<dyn Future<Output = Result<()>> + Send>;
type SendResult = Result<(Response<WasiBody>, Sending)>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        processed: Sending,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let Some(target) = Target::of(request.uri()) else {
            return Box::new(async { Err(Error::HttpRequestUriInvalid) });
        };
        let grpc = is_grpc(request.headers());
        let egress = self.0.as_ref();
        let call = egress.and_then(|egress| Call::new(egress, target, grpc));
        let Some(call) = call else {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        // In WASI 0.2 nobody asks how the request went: this has no more to say from the beginning, and Wasmtime would log
        // each failure that it is told of, as often as a guest likes.
        let asked = Box::into_pin(processed).now_or_never().is_none();
        Box::new(async move {
            let Exchanged {
                response,
                sent,
                progress,
            } = exchange(&call, request, options).await?;
            let sending = async move {
                if !asked || sent.await.is_ok() {
                    return Ok(());
                }
                Err(progress.take_error().unwrap_or(Error::ConnectionTerminated))
            };
            Ok((
                response.map(|body| body.boxed_unsync()),
                Box::new(sending) as Box<_>,
            ))
        })
    }

    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
    }

    // The default makes a new filter for each header of each request.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        static FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| Arc::new(is_forbidden));
        FILTER.clone()
    }

    // The defaults log a warning each time, as often as a guest likes.
    fn p2_error_from_hyper(&mut self, _: &hyper::Error) -> p2::ErrorCode {
        p2::ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, error: &io::Error) -> p2::ErrorCode {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => p2::ErrorCode::ConnectionRefused,
            io::ErrorKind::TimedOut => p2::ErrorCode::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                p2::ErrorCode::DestinationIpUnroutable
            }
            _ => p2::ErrorCode::DestinationUnavailable,
        }
    }

    fn p2_error_from_tls(&mut self, _: &io::Error) -> p2::ErrorCode {
        p2::ErrorCode::TlsProtocolError
    }

    fn p3_error_from_hyper(&mut self, _: &hyper::Error) -> p3::ErrorCode {
        p3::ErrorCode::HttpProtocolError
    }

    fn p3_error_from_connect(&mut self, error: &io::Error) -> p3::ErrorCode {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => p3::ErrorCode::ConnectionRefused,
            io::ErrorKind::TimedOut => p3::ErrorCode::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                p3::ErrorCode::DestinationIpUnroutable
            }
            _ => p3::ErrorCode::DestinationUnavailable,
        }
    }

    fn p3_error_from_tls(&mut self, _: &io::Error) -> p3::ErrorCode {
        p3::ErrorCode::TlsProtocolError
    }
}

/// Headers that belong to the connection, which guests neither see nor set.
fn is_forbidden(name: &HeaderName) -> bool {
    static FORBIDDEN: [HeaderName; 9] = DEFAULT_FORBIDDEN_HEADERS;
    FORBIDDEN.contains(name)
}
