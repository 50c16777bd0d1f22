//! Components of WASI 0.2.

use hyper::{Request, body::Incoming};
use tokio::sync::oneshot;
use wasmtime::{Store, component::Component};
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{
        self,
        bindings::{
            Proxy, ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use super::{Answer, State, linker};

#[derive(Clone)]
pub struct Handler(ProxyPre<State>);

impl super::Handler for Handler {
    const CONCURRENT: bool = false;
    type Proxy = Proxy;
    type Body = HyperOutgoingBody;
    type Error = ErrorCode;

    fn new(component: &Component) -> wasmtime::Result<Self> {
        let mut linker = linker(component.engine())?;
        p2::add_only_http_to_linker_async(&mut linker)?;
        Ok(Self(ProxyPre::new(linker.instantiate_pre(component)?)?))
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Proxy> {
        self.0.instantiate_async(store).await
    }

    async fn call(
        proxy: &Proxy,
        store: &mut Store<State>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Answer<Self>>,
    ) -> wasmtime::Result<()> {
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let answer = http.new_response_outparam(answer)?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(store, request, answer)
            .await
    }
}
