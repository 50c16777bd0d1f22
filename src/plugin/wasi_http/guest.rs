//! Calling a guest: a request in, and its response into the outbox.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, uri};
use hyper::body::Body as HttpBody;
use tokio::task::unconstrained;
use wasmtime::{
    AsContextMut as _, Store,
    component::{Accessor, Resource},
};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpHooks, WasiHttpView as _,
    p2::{
        self,
        bindings::http::types::Scheme,
        types::{HostIncomingRequest, HostResponseOutparam},
    },
    p3,
};

use super::{authority, call::Call, outbox::Filled};
use crate::plugin::{StoreState, lane};

/// Whether a request's body was sent to the guest as a whole.
type Sent = Result<(), wasmtime_wasi_http::Error>;

impl Call {
    /// Calls a component of WASI 0.3 that nobody else calls meanwhile.
    pub async fn call_p3<B>(
        &self,
        service: &p3::bindings::Service,
        store: &mut Store<StoreState>,
        request: &mut Option<Box<Request<B>>>,
    ) -> wasmtime::Result<()>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let Some(request) = request.take() else {
            return Ok(());
        };
        let (request, transmitted) = received(store.data_mut().http().hooks, *request);
        store
            .run_concurrent(async |accessor| -> wasmtime::Result<()> {
                self.serve_p3(service, accessor, (request, transmitted))
                    .await?;
                // A task goes on after it has returned.
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                Ok(())
            })
            .await?
    }

    /// The same as [`Call::serve_p3`] for a request that is not yet in the instance.
    pub async fn serve_shared(
        &self,
        service: &p3::bindings::Service,
        accessor: &Accessor<StoreState>,
        request: Request<WasiBody>,
    ) -> wasmtime::Result<()> {
        lane::begin_slice();
        let request = accessor.with(|mut store| {
            let mut store = store.as_context_mut();
            let hooks = store.data_mut().http().hooks;
            let (request, transmitted) = received(hooks, request);
            let transmitted: BoxFuture<'static, Sent> = Box::pin(transmitted);
            (request, transmitted)
        });
        self.serve_p3(service, accessor, request).await
    }

    /// Calls the handler of an instance that runs, and waits until its response is here as a whole or has been read. What is
    /// not whole when the guest waits has to be sent by whoever polls this; see [`Call::give_way`].
    pub async fn serve_p3(
        &self,
        service: &p3::bindings::Service,
        accessor: &Accessor<StoreState>,
        (request, transmitted): (p3::Request, impl Future<Output = Sent> + Send + 'static),
    ) -> wasmtime::Result<()> {
        match service.handle(accessor, request).await? {
            Ok(response) => self.outbox.hold(
                accessor
                    .with(|mut store| response.into_http(store.as_context_mut(), transmitted))?,
                true,
            ),
            Err(code) => {
                self.outbox.fail(code.to_string());
                return Ok(());
            }
        }
        // The guest writes the body after it has returned, and the host may have to move one that the guest got from elsewhere.
        poll_fn(|cx| {
            if self.outbox.fill(cx) == Filled::Whole {
                return Poll::Ready(());
            }
            self.poll_ended(cx)
        })
        .await;
        Ok(())
    }
}

/// A request as WASI 0.3 has it, with scheme and authority even if they were not written where HTTP/1.1 need not have them.
fn received<B>(
    hooks: &mut dyn WasiHttpHooks,
    request: Request<B>,
) -> (p3::Request, impl Future<Output = Sent> + Send + 'static)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let authority = authority::of(&request);
    let (mut request, transmitted) = p3::Request::from_http(hooks, request);
    request.scheme.get_or_insert(uri::Scheme::HTTP);
    request.authority = request.authority.or(authority);
    (request, transmitted)
}

/// A request and the place for its answer, in an instance's table.
type Handed = (
    Resource<HostIncomingRequest>,
    Resource<HostResponseOutparam>,
);

/// Calls the handler. False if it returned and kept what it should have answered with, or written the rest of its body with:
/// nobody may wait for that, and such a guest is not asked again (StarlingMonkey's `fetch` event serves once, and then does this).
pub(super) async fn call_p2<B>(
    call: &Arc<Call>,
    proxy: &p2::bindings::Proxy,
    store: &mut Store<StoreState>,
    request: &mut Option<Box<Request<B>>>,
) -> wasmtime::Result<bool>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let Some((request, out)) = prepare_p2(call, store, request)? else {
        return Ok(true);
    };
    let unanswered = out.rep();
    let whole = {
        let handler = proxy.wasi_http_incoming_handler();
        let mut handled = pin!(handler.call_handle(&mut *store, request, out));
        let answered = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = handled.as_mut().poll(cx) {
                    return Poll::Ready(result.map(|()| call.outbox.finish(cx)));
                }
                // As a rule it waits for room for more of its body, which there is now.
                if call.outbox.fill(cx) != Filled::Some || lane::is_interrupted() {
                    return Poll::Pending;
                }
            }
        });
        // Without Tokio's budget, which many small writes use up: to the guest it would look as if there were no room, and here
        // as if there were nothing more. Its slice ends its turn.
        unconstrained(answered).await?
    };
    // What was answered with is gone from the table; its number may be another resource's by now.
    let unanswered = Resource::<HostResponseOutparam>::new_own(unanswered);
    let table = store.data_mut().http().table;
    if table.get(&unanswered).is_err() {
        return Ok(whole);
    }
    table.delete(unanswered)?;
    Ok(false)
}

/// The request and the place for its answer, as the guest gets them. None if the request was taken already.
fn prepare_p2<B>(
    call: &Arc<Call>,
    store: &mut Store<StoreState>,
    request: &mut Option<Box<Request<B>>>,
) -> wasmtime::Result<Option<Handed>>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let Some(request) = request.take() else {
        return Ok(None);
    };
    let mut http = store.data_mut().http();
    let scheme = match request.uri().scheme() {
        Some(scheme) if *scheme == uri::Scheme::HTTPS => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = http.new_incoming_request(scheme, *request)?;
    let answering = Answering(call.clone());
    let out = http.new_response_outparam_from_callback(move |head| {
        let outbox = &answering.0.outbox;
        match head {
            Ok(response) => outbox.hold(response, false),
            Err(code) => outbox.fail(code.to_string()),
        }
    })?;
    Ok(Some((request, out)))
}

/// The guest's right to answer; when it is given up unused, nobody has to wait for the guest's end.
struct Answering(Arc<Call>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.outbox.abandon();
    }
}
