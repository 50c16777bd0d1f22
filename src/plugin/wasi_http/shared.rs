//! Instances that serve several requests at the same time, as a component of WASI 0.3 can: while one of its tasks awaits, the
//! others go on.
//!
//! Each is driven by a task of its own, on the thread of the request that it was made for; requests are sent to it. The price of
//! sharing is that a guest's tasks cannot be stopped one by one, as Wasmtime can only drop a whole store: when one outlives its
//! time, or its client leaves before it has answered, the instance takes no further requests and ends with those that it has, at
//! the latest when the last of these is out of time. A trap ends all of them.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use http::Request;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{self, Instant},
};
use wasmtime_wasi_http::WasiBody;

use self::{
    drive::{Orders, drive},
    slot::Slot,
};
use super::{
    call::Call,
    counters::count,
    handler::{Export, Handler},
    instances::{Instance, Instances, NoRoom},
    outcome::Outcome,
    serve::lock,
};
use crate::{engine::Full, plugin::lane::Laned, spec};

mod drive;
mod slot;

/// The shared instances of one component.
pub(super) struct Shared {
    instances: Arc<Instances>,
    reuse: spec::Reuse,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    driven: Vec<Arc<Driven>>,
    /// There will be no others.
    closed: bool,
}

/// One instance, as those see it who have requests for it.
struct Driven {
    orders: mpsc::UnboundedSender<Order>,
    state: Mutex<State>,
    /// For the watch over deadlines: a request has begun, or the last one has ended.
    changed: Notify,
    /// For the instance: it takes no further requests.
    retired: Notify,
}

#[derive(Default)]
struct State {
    /// Takes no further requests.
    retired: bool,
    /// Requests that it was given, ever.
    admitted: u32,
    in_flight: HashMap<u64, InFlight>,
}

struct InFlight {
    call: Arc<Call>,
    deadline: Instant,
    /// The guest has it.
    begun: bool,
    ended: oneshot::Sender<Ended>,
}

/// A request for an instance.
struct Order {
    id: u64,
    request: Request<WasiBody>,
}

/// A request that has no instance yet.
struct Asked<'a> {
    call: &'a Arc<Call>,
    deadline: Instant,
    /// None once an instance has it.
    request: Option<Request<WasiBody>>,
}

/// What there is for a request.
enum Granted<'a> {
    /// A shared instance has it, by this number.
    Slot(Slot<'a>, oneshot::Receiver<Ended>),
    Alone(Box<Alone>),
}

/// A request, and an instance that is its own.
pub(super) struct Alone {
    pub request: Request<WasiBody>,
    pub deadline: Instant,
    pub instance: Instance,
}

/// What became of a request.
enum Ended {
    With(Outcome),
    /// The instance ended before it looked at it.
    NotBegun(Box<Request<WasiBody>>),
}

impl Shared {
    /// None, unless the workload asks for it and the component can.
    pub fn of(instances: &Arc<Instances>, reuse: Option<spec::Reuse>) -> Option<Self> {
        let reuse = reuse?;
        let able = matches!(instances.export, Export::P3(_)) && reuse.max_concurrency.get() > 1;
        able.then(|| Self {
            instances: instances.clone(),
            reuse,
            running: Mutex::default(),
        })
    }

    /// Has an instance answer a request, and says how that ended; or gives it back with an instance of its own, if that is all
    /// that there is.
    pub async fn run(
        &self,
        call: &Arc<Call>,
        request: Request<WasiBody>,
    ) -> Result<Outcome, Box<Alone>> {
        let mut asked = Asked {
            call,
            deadline: Instant::now() + call.handler().timeout,
            request: Some(request),
        };
        loop {
            let granted = match self.grant(&mut asked) {
                Ok(granted) => granted,
                // In a box, since few have to wait and each would have room for it.
                Err(_) => match Box::pin(self.wait(&mut asked)).await {
                    Ok(granted) => granted,
                    Err(refused) => return Ok(refused),
                },
            };
            let (slot, mut end) = match granted {
                Granted::Slot(slot, end) => (slot, end),
                Granted::Alone(alone) => return Err(alone),
            };
            let ended = match time::timeout_at(asked.deadline, &mut end).await {
                Ok(ended) => ended,
                Err(_) => match slot.driven.give_up(slot.id) {
                    Some(_) => {
                        let outcome = call.handler().judge(None, None);
                        call.finish(outcome);
                        return Ok(outcome);
                    }
                    None => end.await,
                },
            };
            match ended {
                Ok(Ended::With(outcome)) => return Ok(outcome),
                Ok(Ended::NotBegun(given_back)) => asked.request = Some(*given_back),
                // Its task is gone: the process is ending.
                Err(_) => return Ok(Outcome::Stopped),
            }
        }
    }

    /// What there is for a request, without waiting.
    fn grant<'a>(&self, asked: &mut Asked<'a>) -> Result<Granted<'a>, Full> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        while asked.request.is_some()
            && let Some(driven) = self.driven(asked.call.handler())
        {
            let id = IDS.fetch_add(1, Ordering::Relaxed);
            if let Some(end) = self.admit(&driven, id, asked) {
                let call = asked.call;
                return Ok(Granted::Slot(Slot { driven, id, call }, end));
            }
        }
        let instance = self.instances.try_take()?;
        let request = asked.request.take().ok_or(Full::Workload)?;
        Ok(Granted::Alone(Box::new(Alone {
            request,
            deadline: asked.deadline,
            instance,
        })))
    }

    /// Waits as other requests do, and for as long, until there is something for this one.
    ///
    /// # Errors
    /// It was refused, or cut.
    async fn wait<'a>(&self, asked: &mut Asked<'a>) -> Result<Granted<'a>, Outcome> {
        let (handler, deadline) = (asked.call.handler(), asked.deadline);
        let wait = self.instances.wait_for(|| self.grant(asked));
        tokio::select! {
            biased;
            () = handler.flight.cut() => {
                count(&handler.counters.stopped);
                Err(Outcome::Stopped)
            }
            granted = time::timeout_at(deadline, wait) => granted
                .ok()
                .flatten()
                .ok_or_else(|| handler.judge(Some(&Err(NoRoom.into())), None)),
        }
    }

    /// The least busy instance that may take another request, or a new one.
    fn driven(&self, handler: &Arc<Handler>) -> Option<Arc<Driven>> {
        let mut running = lock(&self.running);
        let Running { driven, closed } = &mut *running;
        driven.retain(|driven| !driven.orders.is_closed());
        let most = self.reuse.max_concurrency.get() as usize;
        let least_busy = driven
            .iter()
            .filter_map(|driven| Some((driven.load().filter(|busy| *busy < most)?, driven)))
            .min_by_key(|(busy, _)| *busy);
        if let Some((_, driven)) = least_busy {
            return Some(driven.clone());
        }
        if *closed || driven.len() >= self.reuse.pool_size.get() as usize {
            return None;
        }
        let instance = self.instances.try_take_for_pool()?;
        let kept = driven.len() < self.reuse.min_instances as usize;
        let orders = Orders::default();
        driven.push(orders.driven.clone());
        let driven = orders.driven.clone();
        let idle = self.reuse.idle.filter(|_| !kept);
        let lane = &handler.lane;
        let handler = handler.clone();
        let task = move || drive(orders, handler, instance, idle);
        tokio::spawn(Laned::shared(task, lane));
        Some(driven)
    }

    /// Lets one retire that has no request, if it need not be kept.
    pub fn give_up_one(&self) -> bool {
        let mut running = lock(&self.running);
        running.driven.retain(|driven| !driven.orders.is_closed());
        let retired = |driven: &&Arc<Driven>| driven.load().is_none();
        let leaving = running.driven.iter().filter(retired).count();
        // The first ones are those that are kept.
        let mut driven = running.driven.iter().rev();
        self.instances.has_spare(leaving) && driven.any(|driven| driven.retire_idle())
    }

    /// Lets all retire, and makes no others.
    pub fn close(&self) {
        let mut running = lock(&self.running);
        running.closed = true;
        for driven in &running.driven {
            driven.retire();
        }
    }

    /// Requests that their guests have.
    #[cfg(test)]
    pub fn begun(&self) -> usize {
        let running = lock(&self.running);
        let begun = |driven: &Arc<Driven>| {
            let state = lock(&driven.state);
            state.in_flight.values().filter(|f| f.begun).count()
        };
        running.driven.iter().map(begun).sum()
    }

    /// Gives an instance a request, unless it has taken its last or its most meanwhile.
    fn admit(
        &self,
        driven: &Driven,
        id: u64,
        asked: &mut Asked<'_>,
    ) -> Option<oneshot::Receiver<Ended>> {
        let mut state = lock(&driven.state);
        if state.retired || state.in_flight.len() >= self.reuse.max_concurrency.get() as usize {
            return None;
        }
        let request = asked.request.take()?;
        if let Err(mpsc::error::SendError(order)) = driven.orders.send(Order { id, request }) {
            asked.request = Some(order.request);
            return None;
        }
        let (ended, end) = oneshot::channel();
        state.in_flight.insert(
            id,
            InFlight {
                call: asked.call.clone(),
                deadline: asked.deadline,
                begun: false,
                ended,
            },
        );
        state.admitted = state.admitted.saturating_add(1);
        let spent = |most: NonZeroU32| state.admitted >= most.get();
        state.retired = self.reuse.max_invocations.is_some_and(spent);
        drop(state);
        driven.changed.notify_one();
        Some(end)
    }
}

impl Driven {
    /// Requests in flight; none if it takes no more.
    fn load(&self) -> Option<usize> {
        let state = lock(&self.state);
        (!state.retired && !self.orders.is_closed()).then(|| state.in_flight.len())
    }

    /// It has ended: what is left of its requests.
    fn end(&self) -> HashMap<u64, InFlight> {
        let mut state = lock(&self.state);
        state.retired = true;
        std::mem::take(&mut state.in_flight)
    }

    fn retire(&self) {
        lock(&self.state).retired = true;
        self.retired.notify_one();
    }

    /// The same if it has nothing to do; false if it has, or did so before.
    fn retire_idle(&self) -> bool {
        let mut state = lock(&self.state);
        let retires = !state.retired && state.in_flight.is_empty();
        state.retired |= retires;
        drop(state);
        if retires {
            self.retired.notify_one();
        }
        retires
    }

    /// Whether it has nothing to do, and will not get anything.
    fn is_done(&self) -> bool {
        let state = lock(&self.state);
        state.retired && state.in_flight.is_empty()
    }

    /// A request's time is over. It goes on as long as the instance has others; none if it has ended.
    fn give_up(&self, id: u64) -> Option<InFlight> {
        let in_flight = lock(&self.state).in_flight.remove(&id)?;
        self.retire();
        // The guest may keep the instance from noticing that by itself.
        self.changed.notify_one();
        Some(in_flight)
    }
}

impl InFlight {
    fn end(self, outcome: Outcome) {
        self.call.finish(outcome);
        let _ = self.ended.send(Ended::With(outcome));
    }
}

/// Gives two requests to an instance that looks at the first one and ends without a word. Whether that was answered, and
/// whether the other was given back.
#[cfg(test)]
pub(super) async fn abandoned(handler: &Arc<Handler>) -> Option<(bool, bool)> {
    use http_body_util::{BodyExt as _, Empty};

    let shared = handler.shared.as_ref()?;
    let mut orders = Orders::default();
    let driven = orders.driven.clone();
    let deadline = Instant::now() + handler.timeout;
    let admit = |id| {
        let call = Call::begin(handler.clone())?;
        let request = Request::new(Empty::new().map_err(|none| match none {}).boxed_unsync());
        let mut asked = Asked {
            call: &call,
            deadline,
            request: Some(request),
        };
        let end = shared.admit(&driven, id, &mut asked)?;
        Some((call, end))
    };
    let ((call, first), (_, second)) = (admit(1)?, admit(2)?);
    orders.queue.try_recv().ok()?;
    drop(orders);
    let answered = matches!(first.await, Ok(Ended::With(Outcome::Stopped)));
    let given_back = matches!(second.await, Ok(Ended::NotBegun(_)));
    Some((
        answered && call.outcome() == Outcome::Stopped,
        given_back && driven.load().is_none(),
    ))
}
