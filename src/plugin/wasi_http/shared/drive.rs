//! What drives a shared instance: its requests, one after the other begun and all of them polled together.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, mpsc},
    task::unconstrained,
    time::{self, Instant},
};

use super::{
    super::{
        call::Call,
        counters::count,
        handler::Handler,
        instances::{Instance, Proxy},
        outcome::Outcome,
        serve::lock,
    },
    Driven, Ended, InFlight, Order,
};

/// What an instance has to do, and has not told the end of.
pub(super) struct Orders {
    pub driven: Arc<Driven>,
    pub queue: mpsc::UnboundedReceiver<Order>,
}

impl Default for Orders {
    fn default() -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let driven = Arc::new(Driven {
            orders,
            state: Mutex::default(),
            changed: Notify::new(),
            retired: Notify::new(),
        });
        Self { driven, queue }
    }
}

impl Orders {
    /// Takes no more, and gives back what the instance has not looked at. What is left is for the caller to end.
    fn close(&mut self) -> impl Iterator<Item = InFlight> + use<> {
        self.queue.close();
        let mut left = self.driven.end();
        while let Ok(Order { id, request }) = self.queue.try_recv() {
            if let Some(InFlight { ended, .. }) = left.remove(&id) {
                let _ = ended.send(Ended::NotBegun(Box::new(request)));
            }
        }
        left.into_values()
    }
}

impl Drop for Orders {
    /// Its task was dropped, or panicked: nobody else would answer, and clients would wait for as long as they may.
    fn drop(&mut self) {
        for in_flight in self.close() {
            if std::thread::panicking() {
                count(&in_flight.call.counters().trapped);
                in_flight.end(Outcome::Trapped);
            } else {
                in_flight.end(Outcome::Stopped);
            }
        }
    }
}

/// Runs an instance until it retires, fails or is cut. True: a guest has run.
pub(super) async fn drive(
    mut orders: Orders,
    handler: Arc<Handler>,
    mut instance: Instance,
    idle: Option<Duration>,
) -> bool {
    let Orders { driven, queue } = &mut orders;
    let driven = &**driven;
    let work = async {
        let (store, proxy) = instance.started(&handler.instances.export).await?;
        let Proxy::P3(service) = proxy else {
            return Ok(());
        };
        store
            .run_concurrent(async |accessor| -> wasmtime::Result<()> {
                let mut requests = FuturesUnordered::new();
                while !driven.is_done() {
                    tokio::select! {
                        Some(order) = queue.recv() => {
                            let Order { id, request } = order;
                            let Some(call) = driven.begin(id) else { continue };
                            let (driven, handler) = (&driven, &handler);
                            requests.push(async move {
                                let serving = call.serve_shared(service, accessor, request);
                                let result = while_wanted(&call, serving).await;
                                if result.is_ok() {
                                    driven.ended(id, handler, idle);
                                }
                                result
                            });
                        }
                        Some(result) = requests.next() => result?,
                        () = driven.retired.notified() => {}
                    }
                }
                Ok(())
            })
            .await?
    };
    let (result, cut) = tokio::select! {
        biased;
        result = driven.giving_way(work) => (Some(result), false),
        () = handler.flight.cut() => (None, true),
        () = driven.overdue(idle) => (None, false),
    };
    // Before the instance is dropped, so that whoever finds it gone also finds why.
    for in_flight in orders.close() {
        let outcome = if cut {
            count(&handler.counters.stopped);
            Outcome::Stopped
        } else {
            let limits = instance.store.data().limits();
            handler.judge(result.as_ref(), Some(limits))
        };
        in_flight.end(outcome);
    }
    true
}

/// Waits for a request's end, or until nobody else does: its guest goes on, but the request is over.
async fn while_wanted(
    call: &Call,
    serving: impl Future<Output = wasmtime::Result<()>>,
) -> wasmtime::Result<()> {
    let mut serving = pin!(serving);
    poll_fn(|cx| match serving.as_mut().poll(cx) {
        Poll::Pending => call.poll_ended(cx).map(Ok),
        ended => ended,
    })
    .await
}

impl Driven {
    /// A request that begins; none if nobody waits for it any more.
    fn begin(&self, id: u64) -> Option<Arc<Call>> {
        let mut state = lock(&self.state);
        let in_flight = state.in_flight.get_mut(&id)?;
        in_flight.begun = true;
        Some(in_flight.call.clone())
    }

    /// Has responses sent when the instance gives up its thread, which is asked to go on where that may make one whole.
    async fn giving_way<T>(&self, instance: impl Future<Output = T>) -> T {
        let mut instance = pin!(instance);
        poll_fn(|cx| {
            loop {
                let polled = instance.as_mut().poll(cx);
                if polled.is_ready() || !self.give_way() {
                    return polled;
                }
            }
        })
        .await
    }

    fn give_way(&self) -> bool {
        let state = lock(&self.state);
        let calls = state.in_flight.values().map(|f| &f.call);
        calls.fold(false, |again, call| call.give_way() | again)
    }

    fn ended(&self, id: u64, handler: &Handler, idle: Option<Duration>) {
        let (in_flight, is_last) = {
            let mut state = lock(&self.state);
            (state.in_flight.remove(&id), state.in_flight.is_empty())
        };
        if let Some(in_flight) = in_flight {
            in_flight.end(Outcome::Done);
        }
        handler.instances.slot_freed(is_last);
        // Nobody has to know since when an instance is idle that is kept for ever.
        if is_last && idle.is_some() {
            self.changed.notify_one();
        }
    }

    /// Ready when nothing that is in flight may go on, or nothing is and nothing comes. Meanwhile it lets the instance retire, if
    /// a request is out of time or none has come for as long as an idle instance is kept.
    async fn overdue(&self, idle: Option<Duration>) {
        while !self.is_done() {
            let (first, last) = {
                let state = lock(&self.state);
                let deadlines = || state.in_flight.values().map(|f| f.deadline);
                (deadlines().min(), deadlines().max())
            };
            let now = Instant::now();
            if last.is_some_and(|last| last <= now) {
                return;
            }
            if first.is_some_and(|first| first <= now) {
                self.retire();
            }
            let is_idle = last.is_none();
            let next = match (first, last) {
                (Some(first), _) if first > now => Some(first),
                (_, Some(last)) => Some(last),
                _ => idle.map(|idle| now + idle),
            };
            // Guests may use up Tokio's budget.
            let next = unconstrained(async {
                match next {
                    Some(next) => time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            });
            tokio::select! {
                () = self.changed.notified() => {}
                // One that was in flight then may have ended long before its deadline, and says nothing of idleness.
                () = next => if is_idle { self.retire_idle(); },
            }
        }
    }
}
