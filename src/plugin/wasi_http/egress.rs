//! Which hosts a component may call, and what happens when it calls another.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderName, Request, Response, Uri, uri::Scheme};
use http_body_util::BodyExt as _;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody,
    WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, p2::bindings::http::types as p2,
    p3::bindings::http::types as p3,
};

use super::{
    counters::{Counters, count},
    handler::Label,
};
use crate::{plugin::Slots, spec::AllowedHost};

/// Time to connect, unless the component says otherwise.
const CONNECT: Duration = Duration::from_secs(10);

/// Destinations that are logged once each; beyond, denials are only counted.
const LOGGED: usize = 64;

/// What one component may call; the slot that its instances share.
pub(super) struct Egress {
    allowed: Vec<AllowedHost>,
    counters: Arc<Counters>,
    label: Label,
    logged: Mutex<HashSet<String>>,
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

impl Egress {
    pub fn new(allowed: Vec<AllowedHost>, counters: Arc<Counters>, label: Label) -> Self {
        Self {
            allowed,
            counters,
            label,
            logged: Mutex::default(),
        }
    }

    /// Whether these are the rules of this component.
    pub fn is_of(&self, component: &str) -> bool {
        *self.label.component == *component
    }

    /// Whether the component may call this; if not, it is counted, and logged if it is new.
    fn allows(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let port = uri
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 });
        if self
            .allowed
            .iter()
            .any(|entry| entry.allows(scheme, host, port))
        {
            return true;
        }
        count(&self.counters.denied);
        let rule = format!("{scheme}://{host}:{port}");
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < LOGGED && logged.insert(rule.clone()) {
            let Label {
                namespace,
                workload,
                component,
            } = &self.label;
            tracing::warn!(
                %namespace, %workload, %component, rule,
                "outgoing request denied; if it is wanted, add the rule to the component's allowedHosts"
            );
        }
        false
    }
}

type SendResult = Result<(
    Response<WasiBody>,
    Box<dyn Future<Output = Result<()>> + Send>,
)>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        if !self
            .0
            .as_ref()
            .is_some_and(|egress| egress.allows(request.uri()))
        {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let mut options = options.unwrap_or_default();
        options.connect_timeout.get_or_insert(CONNECT);
        Box::new(async move {
            let (response, io) =
                wasmtime_wasi_http::default_send_request(request, Some(options)).await?;
            Ok((
                response.map(|body| body.boxed_unsync()),
                Box::new(io) as Box<_>,
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
