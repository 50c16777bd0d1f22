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
use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::Body as HttpBody;
use tokio::{sync::oneshot, task::AbortHandle, time};
use wasmtime::{AsContextMut as _, PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView as _,
    p2::bindings::{ProxyPre, http::types::Scheme},
    p3::{self, bindings::ServicePre},
};

use super::{
    answer::Answer,
    body::Body,
    counters::count,
    handler::{Export, Handler},
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
    /// It was stopped at its deadline.
    OutOfTime,
    /// There was no room for an instance.
    Full,
    /// It was stopped, because its workload was or because nobody waits for its answer.
    Stopped,
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Running,
        Self::Done,
        Self::Trapped,
        Self::OutOfMemory,
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
type Head = Result<Response<WasiBody>, String>;

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

    /// Answers a request. Dropping the future stops the guest, and so does dropping the response's body unread.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let method = request.method().clone();
        let (sender, receiver) = oneshot::channel();
        let guest = StopOnDrop(Some(
            tokio::spawn(self.clone().run(request, sender)).abort_handle(),
        ));
        match receiver.await {
            Ok(Ok(response)) => {
                if let Export::P3(_) = self.handler.export {
                    // The guest goes on to write its body; what it has written before the server first asks for it is
                    // sent together with the head, and with the end if it is short.
                    turn().await;
                }
                let (head, body) = response.into_parts();
                let body = Body::of_guest(
                    body,
                    self,
                    guest.keep(),
                    &method,
                    (head.status, &head.headers),
                );
                Response::from_parts(head, body)
            }
            Ok(Err(code)) => {
                count(&self.handler.counters.unanswered);
                self.handler.label.log_unanswered(&code);
                Answer::Unanswered.response()
            }
            Err(_) => self.no_answer().response(),
        }
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
        let mut store = self.handler.template.store();
        // Declared after the store, and so dropped before it: whoever finds the instance gone also finds why.
        let end = End(&self);
        let handler = &self.handler;
        let guest = async {
            match &handler.export {
                Export::P2(pre) => run_p2(pre, &mut store, request, sender).await,
                Export::P3(pre) => self.run_p3(pre, &mut store, request, sender).await,
            }
        };
        let result = tokio::select! {
            // A guest that returns at once, which is most of them, sets no timer and takes no place in a queue.
            biased;
            result = guest => Some(result),
            () = handler.flight.cut() => { end.set(Outcome::Stopped); return }
            () = time::sleep(handler.timeout) => None,
        };
        end.set(self.judge(result, store.data().limits()));
    }

    /// Counts and logs how a guest ended; no result means that its time was over.
    fn judge(&self, result: Option<wasmtime::Result<()>>, limits: &InstanceLimits) -> Outcome {
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
            Some(Err(error)) if error.is::<PoolConcurrencyLimitError>() => {
                failed(&counters.rejected, "NoFreeInstance", &error, Outcome::Full)
            }
            Some(Err(error)) if limits.was_refused() => {
                let detail = format_args!("limit {} bytes: {error:#}", limits.max_memory());
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

    async fn run_p3<B>(
        &self,
        pre: &ServicePre<StoreState>,
        store: &mut Store<StoreState>,
        request: Request<B>,
        sender: oneshot::Sender<Head>,
    ) -> wasmtime::Result<()>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
    {
        let (request, transmitted) = p3::Request::from_http(store.data_mut().http().hooks, request);
        let service = pre.instantiate_async(&mut *store).await?;
        store
            .run_concurrent(async |accessor| -> wasmtime::Result<()> {
                let head = match service.handle(accessor, request).await? {
                    Ok(response) => Ok(accessor.with(|mut store| {
                        response.into_http(store.as_context_mut(), transmitted)
                    })?),
                    Err(code) => Err(code.to_string()),
                };
                let _ = sender.send(head);
                // A task goes on after it has returned, for example to write the body;
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                // and the host may still have to move a body that the guest got from elsewhere.
                poll_fn(|cx| self.poll_ended(cx)).await;
                Ok(())
            })
            .await?
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

    fn poll_ended(&self, cx: &std::task::Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.ended.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
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

async fn run_p2<B>(
    pre: &ProxyPre<StoreState>,
    store: &mut Store<StoreState>,
    request: Request<B>,
    sender: oneshot::Sender<Head>,
) -> wasmtime::Result<()>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let out = http.new_response_outparam_from_callback(move |head| {
        let _ = sender.send(head.map_err(|code| code.to_string()));
    })?;
    let proxy = pre.instantiate_async(&mut *store).await?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
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
        self.0.outcome.store(outcome as u8, Ordering::Release);
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
