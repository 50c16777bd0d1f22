//! Components of WASI 0.3.

use std::future::poll_fn;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Incoming};
use tokio::sync::oneshot;
use wasmtime::{AsContextMut as _, Store, component::Component};
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p3::{
        self,
        bindings::{Service, ServicePre},
    },
};

use super::{super::Failure, Answer, State, linker};

#[derive(Clone)]
pub struct Handler(ServicePre<State>);

impl super::Handler for Handler {
    const CONCURRENT: bool = true;
    type Proxy = Service;
    type Body = Full<Bytes>;
    type Error = Failure;

    fn new(component: &Component) -> wasmtime::Result<Self> {
        let mut linker = linker(component.engine())?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        p3::add_to_linker(&mut linker)?;
        Ok(Self(ServicePre::new(linker.instantiate_pre(component)?)?))
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Service> {
        self.0.instantiate_async(store).await
    }

    /// Sends an answer when it is whole, so that the guest is not woken again for its body. washlet does so with short ones.
    async fn call(
        service: &Service,
        store: &mut Store<State>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Answer<Self>>,
    ) -> wasmtime::Result<()> {
        let hooks = store.data_mut().http().hooks;
        let (request, transmitted) = p3::Request::from_http(hooks, request);
        store
            .run_concurrent(async |accessor| {
                let response = match service.handle(accessor, request).await? {
                    Ok(response) => response,
                    Err(code) => {
                        let _ = answer.send(Err(code.to_string().into()));
                        return Ok(());
                    }
                };
                let response = accessor
                    .with(|mut store| response.into_http(store.as_context_mut(), transmitted))?;
                let (head, body) = response.into_parts();
                let whole = match body.collect().await {
                    Ok(body) => Ok(hyper::Response::from_parts(head, body.to_bytes().into())),
                    Err(error) => Err(error.into()),
                };
                let _ = answer.send(whole);
                // A task goes on after it has returned.
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                Ok(())
            })
            .await?
    }
}
