//! One request: a fresh instance in a task of its own, and how it ended.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::{Method, Request, Response};
use hyper::body::Body as HttpBody;
use tokio::{
    task::unconstrained,
    time::{self, Instant},
};

use self::task::{End, StopOnDrop, run};
use super::{
    answer::Answer,
    body::{Body, Expected, announced, has_body},
    counters::{Counters, count},
    guest::call_p2,
    handler::{Export, Handler},
    instances::{Instance, NoRoom, Proxy},
    limit::{self, Over},
    outbox::{Outbox, Sent},
    outcome::Outcome,
};
use crate::plugin::{
    StoreState,
    lane::{self, Laned},
};

mod task;

/// What a request's guest and its response share. As long as it lives the request is in flight.
pub(super) struct Call {
    handler: Arc<Handler>,
    outcome: AtomicU8,
    ended: AtomicBool,
    /// The guest's task, if it waits for the response's end, as only one of WASI 0.3 does.
    waiting: AtomicWaker,
    pub outbox: Outbox,
}

/// A request that a guest is to answer. Dropping it stops the guest, and so does dropping the response's body unread.
pub(super) struct Asked {
    call: Arc<Call>,
    method: Method,
    /// Whether the request's body is too large, where that is not known yet.
    over: Option<Arc<Over>>,
    guest: StopOnDrop,
}

/// Why a guest is not waited for any more.
enum Ended<T> {
    With(T),
    /// Its time is over.
    Late,
    /// Its workload was stopped.
    Cut,
}

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
                outbox: Outbox::default(),
            })
        })
    }

    /// Has a guest answer a request, whose body may have `max_body` bytes; or answers it if that is too large.
    #[expect(
        clippy::result_large_err,
        reason = "what is waited for is as large, and boxing it would cost each request"
    )]
    pub fn ask<B>(
        self: Arc<Self>,
        request: Request<B>,
        max_body: u64,
    ) -> Result<Asked, Response<Body>>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error> + Send,
    {
        let Some((request, over)) = limit::bound(request, max_body) else {
            return Err(self.too_large());
        };
        let method = request.method().clone();
        // Made before the task, and so dropped with it even if that never begins.
        let end = End(self.clone());
        let work = move || run(end, request);
        let task = match &self.handler.shared {
            None => Laned::single(work, &self.handler.lane),
            Some(_) => Laned::waiting(work, &self.handler.lane),
        };
        let guest = StopOnDrop(Some(tokio::spawn(task).abort_handle()));
        Ok(Asked {
            call: self,
            method,
            over,
            guest,
        })
    }

    fn unanswered(&self, why: &str) -> Response<Body> {
        let times = count(&self.handler.counters.unanswered);
        self.handler.label.log_failure(times, "NoAnswer", &why);
        self.in_place(Answer::Unanswered)
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

    /// Runs the guest in an instance that nobody else uses meanwhile, which `take` finds. False if there is none for it. Its
    /// time begins now, unless it has begun already and has a `deadline`. The request is taken where it is: as an argument,
    /// futures would keep one more copy of it at each step.
    async fn run_alone<B, F>(
        self: &Arc<Self>,
        request: &mut Option<Box<Request<B>>>,
        deadline: Option<Instant>,
        take: impl FnOnce() -> F,
    ) -> bool
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<wasmtime_wasi_http::Error>,
        F: Future<Output = Option<Instance>>,
    {
        let handler = &self.handler;
        let mut taken = None;
        let mut answered = true;
        // Declared after the instance, and so dropped before it: whoever finds the instance gone also finds why.
        let end = End(self.clone());
        let ended = {
            // Pinned here, and not in what waits for it: the task would have room for each place that it is moved through.
            let guest = pin!(async {
                let instance = taken.insert(take().await.ok_or(NoRoom)?);
                let (store, proxy) = instance.started(&handler.instances.export).await?;
                match proxy {
                    Proxy::P2(proxy) => {
                        answered = call_p2(self, proxy, store, request).await?;
                        Ok(())
                    }
                    Proxy::P3(service) => self.call_p3(service, store, request).await,
                }
            });
            self.watch(deadline, guest).await
        };
        let result = match ended {
            Ended::With(result) => Some(result),
            // Its time went by before there was an instance: no guest is to blame.
            Ended::Late if taken.is_none() => Some(Err(NoRoom.into())),
            Ended::Late => None,
            Ended::Cut => {
                count(&handler.counters.stopped);
                end.set(Outcome::Stopped);
                return taken.is_some();
            }
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
        let outcome = self.handler.judge(result.as_ref(), limits);
        end.set(outcome);
        let ran = taken.is_some() && outcome != Outcome::Full;
        if outcome == Outcome::Done
            && answered
            && let Some(instance) = taken.take()
        {
            handler.instances.give_back(instance);
        }
        ran
    }

    /// Waits until a guest ends, its time is over or its workload is stopped. One that returns at once, or only gives way to
    /// its own tasks, sets no timer and takes no place in a queue.
    async fn watch<T>(
        &self,
        deadline: Option<Instant>,
        mut guest: Pin<&mut impl Future<Output = T>>,
    ) -> Ended<T> {
        let mut cut = pin!(self.handler.flight.cut());
        // Reads the clock when it is first asked. A guest that uses up Tokio's budget in each turn is late, too.
        let mut late = pin!(unconstrained(async {
            match deadline {
                Some(deadline) => time::sleep_until(deadline).await,
                None => time::sleep(self.handler.timeout).await,
            }
        }));
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = guest.as_mut().poll(cx) {
                    return Poll::Ready(Ended::With(result));
                }
                // Asked again at once: by way of its queue it would cost a request 2 µs, and this happens once in one.
                if !self.give_way() {
                    break;
                }
            }
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Cut);
            }
            late.as_mut().poll(cx).map(|()| Ended::Late)
        })
        .await
    }

    /// What the request is for.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    /// The guest has given up its thread. True if it should be asked to go on.
    pub fn give_way(&self) -> bool {
        self.outbox.give_way(lane::is_interrupted())
    }

    /// Says how the guest ended; the first word counts. If there is no response yet, there will be none.
    pub fn finish(&self, outcome: Outcome) {
        let _ = self.outcome.compare_exchange(
            Outcome::Running as u8,
            outcome as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        self.outbox.close();
        self.wake_guest();
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
        self.outbox.discard();
        self.ended.store(true, Ordering::Release);
        self.wake_guest();
    }

    fn wake_guest(&self) {
        if matches!(self.handler.instances.export, Export::P3(_)) {
            self.waiting.wake();
        }
    }

    /// Ready when nobody asks for more of the response, or nobody waits for it any more.
    pub fn poll_ended(&self, cx: &std::task::Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.ended.load(Ordering::Acquire) || self.outcome() != Outcome::Running {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Asked {
    /// The guest's answer, or the host's in its place.
    pub async fn answer(self) -> Response<Body> {
        let head = poll_fn(|cx| match &self.over {
            Some(over) if over.poll(cx).is_ready() => Poll::Ready(Err(())),
            _ => self.call.outbox.poll(cx).map(Ok),
        });
        let Ok(head) = head.await else {
            return self.call.too_large();
        };
        match head {
            Some(Ok(response)) => self.pass_on(response),
            Some(Err(code)) => self.call.unanswered(&code),
            None => match self.call.outcome() {
                Outcome::Running | Outcome::Done => {
                    self.call.unanswered("it returned without a response")
                }
                failed => self.call.in_place(failed.answer()),
            },
        }
    }

    /// A guest's response, unless its body cannot be what its head says.
    fn pass_on(self, response: Response<Sent>) -> Response<Body> {
        let Self { call, method, .. } = &self;
        let (head, body) = response.into_parts();
        let announced = announced(&head.headers);
        let has_body = has_body(method, head.status);
        if has_body {
            let fault = match &body {
                Sent::Whole(body) => body.fault(announced),
                Sent::GoesOn(_) => call.outbox.fault(announced),
            };
            match (fault, call.outcome()) {
                (None, _) => {}
                (Some(fault), Outcome::Running | Outcome::Done) => return call.unanswered(&fault),
                (Some(_), failed) => return call.in_place(failed.answer()),
            }
        }
        call.handler.counters.answered(head.status);
        let expected = Expected {
            length: announced,
            has_body,
            head_only: *method == Method::HEAD,
        };
        let body = Body::of_guest(body, self.call, self.guest.keep(), self.over, expected);
        Response::from_parts(head, body)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.handler.flight.leave();
    }
}
