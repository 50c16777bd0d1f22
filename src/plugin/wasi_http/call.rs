//! One request: a fresh instance in a task of its own, and how it ended.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use futures::{future::BoxFuture, task::AtomicWaker};
use http::{Request, Response, uri};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use tokio::{sync::oneshot, task::AbortHandle, time};
use wasmtime::{
    AsContextMut as _, PoolConcurrencyLimitError, Store, Trap,
    component::{Accessor, Resource},
};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpHooks, WasiHttpView as _,
    p2::{self, bindings::http::types::Scheme, types::HostResponseOutparam},
    p3,
};

use super::{
    answer::Answer,
    authority,
    body::Body,
    counters::{Counters, count},
    handler::{Export, Handler},
    instances::{NoRoom, Proxy},
    lane::Laned,
    limit,
};
use crate::{engine::InstanceLimits, fault::Reason, plugin::StoreState};

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outcome {
    /// It has not.
    Running,
    /// It returned.
    Done,
    /// It trapped, or the host panicked on its behalf.
    Trapped,
    /// It trapped after it was refused memory.
    OutOfMemory,
    /// It used up its fuel.
    OutOfFuel,
    /// It was stopped at its deadline.
    OutOfTime,
    /// There was no room for an instance.
    Full,
    /// It was stopped, because its workload was or because nobody waits for its answer.
    Stopped,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Running,
        Self::Done,
        Self::Trapped,
        Self::OutOfMemory,
        Self::OutOfFuel,
        Self::OutOfTime,
        Self::Full,
        Self::Stopped,
    ];
}

/// What a request's guest and its response share. As long as it lives the request is in flight.
pub(super) struct Call {
    handler: Arc<Handler>,
    outcome: AtomicU8,
    ended: AtomicBool,
    waiting: AtomicWaker,
}

/// A response's head, with a body that goes on; or the words of an error code that the guest answered with.
pub(super) type Head = Result<Response<WasiBody>, String>;

/// Whether a request's body was sent to the guest as a whole.
type Sent = Result<(), wasmtime_wasi_http::Error>;

impl Call {
    /// Counts a request; none if the handler's generation has ended.
    pub fn begin(handler: Arc<Handler>) -> Option<Arc<Self>> {
        handler.flight.enter().then(|| {
            count(&handler.counters.requests);
            Arc::new(Self {
                handler,
                outcome: AtomicU8::new(Outcome::Running as u8),
                ended: AtomicBool::new(false),
                waiting: AtomicWaker::new(),
            })
        })
    }

    /// Answers a request, whose body may have `max_body` bytes. Dropping the future stops the guest, and so does dropping the
    /// response's body unread.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>, max_body: u64) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error> + Send,
    {
        let Some((request, over)) = limit::bound(request, max_body) else {
            return self.too_large();
        };
        let method = request.method().clone();
        let (sender, receiver) = oneshot::channel();
        let task = Laned::new(self.clone().run(request, sender), self.handler.slow.clone());
        let guest = StopOnDrop(Some(tokio::spawn(task).abort_handle()));
        let head = match &over {
            None => receiver.await,
            Some(over) => tokio::select! {
                biased;
                () = poll_fn(|cx| over.poll(cx)) => return self.too_large(),
                head = receiver => head,
            },
        };
        match head {
            Ok(Ok(response)) => {
                if let Export::P3(_) = self.handler.instances.export {
                    // The guest goes on to write its body; what it has written before the server first asks for it is
                    // sent together with the head, and with the end if it is short.
                    turn().await;
                }
                let (head, body) = response.into_parts();
                self.handler.counters.answered(head.status);
                let body = Body::of_guest(
                    body,
                    self,
                    guest.keep(),
                    (&method, over),
                    (head.status, &head.headers),
                );
                Response::from_parts(head, body)
            }
            Ok(Err(code)) => {
                count(&self.handler.counters.unanswered);
                self.handler.label.log_unanswered(&code);
                self.in_place(Answer::Unanswered)
            }
            Err(_) => self.in_place(self.no_answer()),
        }
    }

    fn too_large(&self) -> Response<Body> {
        count(&self.handler.counters.too_large);
        self.in_place(Answer::TooLarge)
    }

    /// The host's answer in place of the guest's.
    fn in_place(&self, answer: Answer) -> Response<Body> {
        let response = answer.response();
        self.handler.counters.answered(response.status());
        response
    }

    /// The counters of its workload.
    pub fn counters(&self) -> &Counters {
        &self.handler.counters
    }

    /// What to answer in place of a guest that ended first.
    fn no_answer(&self) -> Answer {
        match self.outcome() {
            Outcome::Running | Outcome::Done => {
                count(&self.handler.counters.unanswered);
                self.handler
                    .label
                    .log_unanswered("it returned without a response");
                Answer::Unanswered
            }
            Outcome::Trapped => Answer::Trapped,
            Outcome::OutOfMemory => Answer::OutOfMemory,
            Outcome::OutOfFuel => Answer::OutOfFuel,
            Outcome::OutOfTime => Answer::OutOfTime,
            Outcome::Full => Answer::Full,
            Outcome::Stopped => Answer::Stopping,
        }
    }

    /// The guest's task.
    async fn run<B>(self: Arc<Self>, request: Request<B>, sender: oneshot::Sender<Head>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let Some(shared) = &self.handler.shared else {
            return self.run_alone(request, sender).await;
        };
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let end = End(&self);
        match shared.run(&self, (request, sender)).await {
            Ok(outcome) => end.set(outcome),
            // All of them have as many requests as they may; a further instance is this request's own.
            Err((request, sender)) => self.run_alone(request, sender).await,
        }
    }

    /// Runs the guest in an instance that nobody else uses meanwhile.
    async fn run_alone<B>(&self, request: Request<B>, sender: oneshot::Sender<Head>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let handler = &self.handler;
        let mut taken = None;
        let mut answered = true;
        // Declared after the instance, and so dropped before it: whoever finds the instance gone also finds why.
        let end = End(self);
        let guest = async {
            let instance = taken.insert(handler.instances.take().await.ok_or(NoRoom)?);
            let (store, proxy) = instance.started(&handler.instances.export).await?;
            match proxy {
                Proxy::P2(proxy) => {
                    answered = call_p2(proxy, store, request, sender).await?;
                    Ok(())
                }
                Proxy::P3(service) => self.call_p3(service, store, request, sender).await,
            }
        };
        let result = tokio::select! {
            // A guest that returns at once, which is most of them, sets no timer and takes no place in a queue.
            biased;
            result = guest => Some(result),
            () = handler.flight.cut() => {
                count(&handler.counters.stopped);
                end.set(Outcome::Stopped);
                return;
            }
            () = time::sleep(handler.timeout) => None,
        };
        if let Some(fuel) = taken
            .as_ref()
            .and_then(|instance| StoreState::fuel_used(&instance.store))
        {
            handler.counters.fuel.fetch_add(fuel, Ordering::Relaxed);
        }
        let limits = taken
            .as_ref()
            .map(|instance| instance.store.data().limits());
        let outcome = self.judge(result.as_ref(), limits);
        end.set(outcome);
        if outcome == Outcome::Done
            && answered
            && let Some(instance) = taken.take()
        {
            handler.instances.give_back(instance);
        }
    }

    /// Counts and logs how a guest ended; no result means that its time was over.
    pub fn judge(
        &self,
        result: Option<&wasmtime::Result<()>>,
        limits: Option<&InstanceLimits>,
    ) -> Outcome {
        let Handler {
            counters,
            label,
            timeout,
            ..
        } = &*self.handler;
        let failed = |counter, reason: &str, detail: &dyn fmt::Display, outcome| {
            label.log_failure(count(counter), reason, detail);
            outcome
        };
        match result {
            Some(Ok(())) => Outcome::Done,
            None => {
                let detail = format_args!("stopped after {} s", timeout.as_secs_f32());
                failed(
                    &counters.out_of_time,
                    Reason::DeadlineExceeded.as_str(),
                    &detail,
                    Outcome::OutOfTime,
                )
            }
            Some(Err(error)) if error.is::<PoolConcurrencyLimitError>() || error.is::<NoRoom>() => {
                failed(&counters.rejected, "NoFreeInstance", &error, Outcome::Full)
            }
            Some(Err(error)) if error.downcast_ref() == Some(&Trap::OutOfFuel) => {
                let detail = format_args!("{error:#}");
                failed(
                    &counters.out_of_fuel,
                    Reason::OutOfFuel.as_str(),
                    &detail,
                    Outcome::OutOfFuel,
                )
            }
            Some(Err(error)) if let Some(refusal) = limits.and_then(InstanceLimits::refusal) => {
                let detail = format_args!("{refusal}: {error:#}");
                failed(
                    &counters.out_of_memory,
                    Reason::MemoryLimit.as_str(),
                    &detail,
                    Outcome::OutOfMemory,
                )
            }
            Some(Err(error)) => {
                let detail = format_args!("{error:#}");
                failed(
                    &counters.trapped,
                    Reason::Trapped.as_str(),
                    &detail,
                    Outcome::Trapped,
                )
            }
        }
    }

    async fn call_p3<B>(
        &self,
        service: &p3::bindings::Service,
        store: &mut Store<StoreState>,
        request: Request<B>,
        sender: oneshot::Sender<Head>,
    ) -> wasmtime::Result<()>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let (request, transmitted) = received(store.data_mut().http().hooks, request);
        store
            .run_concurrent(async |accessor| -> wasmtime::Result<()> {
                let head = |head| {
                    let _ = sender.send(head);
                };
                self.serve_p3(service, accessor, (request, transmitted), head)
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
        send: impl FnOnce(Head),
    ) -> wasmtime::Result<()> {
        let request = accessor.with(|mut store| {
            let mut store = store.as_context_mut();
            let hooks = store.data_mut().http().hooks;
            let (request, transmitted) = received(hooks, request);
            let transmitted: BoxFuture<'static, Sent> = Box::pin(transmitted);
            (request, transmitted)
        });
        self.serve_p3(service, accessor, request, send).await
    }

    /// Calls the handler of an instance that runs, and waits until its response is read.
    pub async fn serve_p3(
        &self,
        service: &p3::bindings::Service,
        accessor: &Accessor<StoreState>,
        (request, transmitted): (p3::Request, impl Future<Output = Sent> + Send + 'static),
        send: impl FnOnce(Head),
    ) -> wasmtime::Result<()> {
        send(match service.handle(accessor, request).await? {
            Ok(response) => Ok(accessor
                .with(|mut store| response.into_http(store.as_context_mut(), transmitted))?),
            Err(code) => Err(code.to_string()),
        });
        // The guest writes the body after it has returned, and the host may have to move one that the guest got from elsewhere.
        poll_fn(|cx| self.poll_ended(cx)).await;
        Ok(())
    }

    /// What the request is for.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    /// Says how the guest ended; the first word counts.
    pub fn finish(&self, outcome: Outcome) {
        let _ = self.outcome.compare_exchange(
            Outcome::Running as u8,
            outcome as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// How the guest ended, if it has.
    pub fn outcome(&self) -> Outcome {
        let outcome = usize::from(self.outcome.load(Ordering::Acquire));
        Outcome::ALL
            .get(outcome)
            .copied()
            .unwrap_or(Outcome::Trapped)
    }

    /// Whether the workload was stopped and everything that runs is to end.
    pub fn is_cut(&self) -> bool {
        self.handler.flight.is_closed()
    }

    /// Nobody asks for more of the response.
    pub fn body_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.waiting.wake();
    }

    pub fn poll_ended(&self, cx: &std::task::Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.ended.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
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

/// Lets the tasks that are ready on this thread have their turn. Unlike Tokio's `yield_now` it does not look at sockets.
async fn turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Calls the handler. False if it returned and kept what it should have answered with: nobody may wait for that, and such a
/// guest is not asked again (StarlingMonkey's `fetch` event serves once, and then does this).
async fn call_p2<B>(
    proxy: &p2::bindings::Proxy,
    store: &mut Store<StoreState>,
    request: Request<B>,
    sender: oneshot::Sender<Head>,
) -> wasmtime::Result<bool>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let mut http = store.data_mut().http();
    let scheme = match request.uri().scheme() {
        Some(scheme) if *scheme == uri::Scheme::HTTPS => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = http.new_incoming_request(scheme, request)?;
    let out = http.new_response_outparam_from_callback(move |head| {
        let _ = sender.send(head.map_err(|code| code.to_string()));
    })?;
    let unanswered = out.rep();
    proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut *store, request, out)
        .await?;
    // What was answered with is gone from the table; its number may be another resource's by now.
    let unanswered = Resource::<HostResponseOutparam>::new_own(unanswered);
    let table = store.data_mut().http().table;
    if table.get(&unanswered).is_err() {
        return Ok(true);
    }
    table.delete(unanswered)?;
    Ok(false)
}

impl Drop for Call {
    fn drop(&mut self) {
        self.handler.flight.leave();
    }
}

/// Says how the guest ended even if its task is stopped or panics.
struct End<'a>(&'a Call);

impl End<'_> {
    fn set(&self, outcome: Outcome) {
        self.0.finish(outcome);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if self.0.outcome() == Outcome::Running {
            if std::thread::panicking() {
                count(&self.0.handler.counters.trapped);
                self.set(Outcome::Trapped);
            } else {
                self.set(Outcome::Stopped);
            }
        }
    }
}

/// Stops a task unless it is kept.
struct StopOnDrop(Option<AbortHandle>);

impl StopOnDrop {
    /// From now on somebody else stops it.
    fn keep(mut self) -> Option<AbortHandle> {
        self.0.take()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
