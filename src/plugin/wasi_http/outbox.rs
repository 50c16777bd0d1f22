//! Where a response waits for whoever sends it.
//!
//! A guest hands over the head before it writes the body. What it has written when it has nothing more to do at once goes with
//! the head: most answers are whole by then, so that neither the server nor the guest has to be woken for them again, the client
//! learns how long they are, and a guest that fails meanwhile is answered for with its fault.
//!
//! A body that goes on stays here, and only the guest's task asks for more of it. So a guest writes several pieces in its turn,
//! and the server sends them together in its own.

mod begun;
#[cfg(test)]
mod tests;

use std::{
    mem,
    sync::{
        Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::task::coop;
use wasmtime_wasi_http::{Error, WasiBody};

pub(super) use self::begun::Begun;
use super::serve::lock;

/// Most of a body that is taken in before its head is sent, in bytes; one frame may go beyond.
const AHEAD: usize = 16 << 10;

/// The same after that, until the server takes some. It has as much again, and so has the system.
const QUEUE: usize = 128 << 10;

/// A response's head, and its body as far as that is known; or the words of an error code that the guest answered with.
pub(super) type Head = Result<Response<Sent>, String>;

/// A response's body, as it is when its head is sent.
pub(super) enum Sent {
    /// All of it.
    Whole(Begun),
    /// It goes on, and comes by [`Outbox::poll_frame`]. How long it will be, if that is known.
    GoesOn(SizeHint),
}

/// What was taken in of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    Nothing,
    /// Something, so that who waits for room can go on.
    Some,
    /// So much that it is sent now: whoever sends should have a turn, after which the guest's task is asked again.
    Enough,
    /// The last of it.
    Whole,
}

/// The one place for a request's response.
#[derive(Default)]
pub(super) struct Outbox {
    /// What can be said of the state without its lock; set under it.
    phase: AtomicU8,
    state: Mutex<State>,
    /// Who sends.
    waiting: AtomicWaker,
    /// The guest's task, when there is no room for more of a body.
    room: AtomicWaker,
}

/// How far a response is; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    /// Nothing is there to be taken.
    Waiting,
    /// Something is.
    Ready,
    /// All of it is.
    Whole,
    /// There is nothing more to take, nor to give up.
    Over,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// Whoever sends has not taken it yet.
    Here {
        response: Response<Begun>,
        held: Held,
    },
    /// The head was taken.
    GoesOn(Begun),
    Failed(String),
    /// Nothing comes, or nothing more.
    Closed,
}

/// Whether a response waits for the guest, which has its thread still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    /// Until the guest gives way.
    Once,
    /// Until it gives way twice, since it does so between two of its tasks.
    Twice,
}

impl Outbox {
    /// Takes a response, and keeps it until it is whole or the guest waits for something; see [`Outbox::give_way`]. A guest that
    /// has `tasks` gives way between two of them, too.
    pub fn hold(&self, response: Response<WasiBody>, tasks: bool) {
        self.put(|| State::Here {
            response: response.map(Begun::of),
            held: if tasks { Held::Twice } else { Held::Once },
        });
    }

    /// Takes the words of an error code in place of a response.
    pub fn fail(&self, code: String) {
        self.put(|| State::Failed(code));
    }

    /// The guest has given up its thread: sends what is held, but not the first time if it has tasks; unless it has been
    /// `interrupted`, as it will be again. True if it should be asked to go on.
    pub fn give_way(&self, interrupted: bool) -> bool {
        let mut goes_on = false;
        self.change(|state| match state {
            State::Here { held, .. } if *held == Held::Twice && !interrupted => {
                *held = Held::Once;
                goes_on = true;
                false
            }
            state => state.release(),
        });
        goes_on
    }

    /// The guest has returned, and nobody writes what it has not: takes in what there is, however much, and sends what is held.
    /// False if a body is not whole.
    pub fn finish(&self, cx: &mut Context<'_>) -> bool {
        let mut whole = true;
        self.change(|state| {
            let Some(body) = state.body() else {
                return false;
            };
            let _ = body.poll_fill(usize::MAX, cx);
            body.end();
            whole = !body.has_failed();
            state.release();
            true
        });
        whole
    }

    /// Nobody can answer any more; one who has done so has.
    pub fn abandon(&self) {
        self.change(|state| {
            let over = matches!(state, State::Empty);
            if over {
                *state = State::Closed;
            }
            over
        });
    }

    /// The guest has ended: no response comes any more, and one that is held is given up. Of a body that goes on, what the guest
    /// has written is taken in; if that is not all, it stays so.
    pub fn close(&self) {
        if self.has_reached(Phase::Whole) {
            return;
        }
        self.change(|state| match state {
            state if state.is_held() || matches!(state, State::Empty) => {
                *state = State::Closed;
                true
            }
            state => state.body().is_some_and(|body| {
                let most = body.cost() + QUEUE;
                let _ = body.poll_fill(most, &mut Context::from_waker(Waker::noop()));
                body.end();
                true
            }),
        });
    }

    /// Nobody sends any more of the response.
    pub fn discard(&self) {
        if self.has_reached(Phase::Over) {
            return;
        }
        let former = {
            let mut state = lock(&self.state);
            self.reach(Phase::Over);
            mem::replace(&mut *state, State::Closed)
        };
        // Not under the lock: who writes the body learns of it.
        drop(former);
    }

    /// Takes in what there is of the body: for the guest's task, which is woken when there may be more, or room for it. One that
    /// is held is sent when that is all, or enough.
    pub fn fill(&self, cx: &mut Context<'_>) -> Filled {
        let mut filled = Filled::Nothing;
        self.change(|state| {
            let held = state.is_held();
            let Some(body) = state.body() else {
                return false;
            };
            let before = body.here.len();
            let was_whole = body.is_whole();
            let enough = body
                .poll_fill(if held { AHEAD } else { QUEUE }, cx)
                .is_ready();
            let more = body.here.len() > before;
            filled = match (body.is_whole(), more) {
                (true, _) => Filled::Whole,
                (false, true) if held && enough => Filled::Enough,
                (false, true) => Filled::Some,
                (false, false) => Filled::Nothing,
            };
            if held {
                if filled == Filled::Enough {
                    // Nothing else would: there may be more already, and nobody has asked for it.
                    cx.waker().wake_by_ref();
                }
                return enough && state.release();
            }
            if enough {
                self.room.register(cx.waker());
            }
            more || filled == Filled::Whole && !was_whole
        });
        filled
    }

    /// The response; none if none comes.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Option<Head>> {
        if !self.has_reached(Phase::Ready) {
            self.waiting.register(cx.waker());
            if !self.has_reached(Phase::Ready) {
                return Poll::Pending;
            }
        }
        let mut state = lock(&self.state);
        let taken = mem::replace(&mut *state, State::Closed);
        match taken {
            State::Here { response, .. } => {
                let (head, body) = response.into_parts();
                let body = if body.is_whole() {
                    self.reach(Phase::Over);
                    Sent::Whole(body)
                } else {
                    let hint = body.size_hint();
                    *state = State::GoesOn(body);
                    Sent::GoesOn(hint)
                };
                Poll::Ready(Some(Ok(Response::from_parts(head, body))))
            }
            State::Failed(code) => Poll::Ready(Some(Err(code))),
            // It was taken already, or none comes.
            _ => Poll::Ready(None),
        }
    }

    /// More of a body that goes on.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        // A fast client and a fast guest must not keep the thread from others.
        let budget = ready!(coop::poll_proceed(cx));
        self.waiting.register(cx.waker());
        let mut state = lock(&self.state);
        let State::GoesOn(body) = &mut *state else {
            return Poll::Ready(None);
        };
        let full = body.cost() >= QUEUE;
        let next = body.next();
        if full && body.cost() < QUEUE {
            self.room.wake();
        }
        if next.is_none() && !body.is_whole() {
            return Poll::Pending;
        }
        budget.made_progress();
        Poll::Ready(next)
    }

    /// The same as [`Begun::fault`] for a body that goes on.
    pub fn fault(&self, announced: Option<u64>) -> Option<String> {
        lock(&self.state).body()?.fault(announced)
    }

    /// Whether the guest has answered, if only with an error.
    pub fn has_answer(&self) -> bool {
        !matches!(&*lock(&self.state), State::Empty)
    }

    /// Whether a body that went on is at its end.
    pub fn is_at_end(&self) -> bool {
        match &*lock(&self.state) {
            State::GoesOn(body) => body.is_at_end(),
            _ => true,
        }
    }

    fn put(&self, new: impl FnOnce() -> State) {
        self.change(|state| {
            let first = matches!(state, State::Empty);
            if first {
                *state = new();
            }
            first
        });
    }

    /// Changes the state, and tells whoever waits if that says so.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let changed = {
            let mut state = lock(&self.state);
            let changed = change(&mut state);
            self.reach(state.phase());
            changed
        };
        if changed {
            self.waiting.wake();
        }
    }

    fn has_reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// Must be called under the state's lock.
    fn reach(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

impl State {
    fn phase(&self) -> Phase {
        match self {
            Self::Empty => Phase::Waiting,
            Self::Here { held, .. } if *held != Held::No => Phase::Waiting,
            Self::Here { response, .. } if response.body().is_whole() => Phase::Whole,
            Self::Here { .. } | Self::GoesOn(_) | Self::Failed(_) => Phase::Ready,
            Self::Closed => Phase::Over,
        }
    }

    /// What there is of the response's body, if there is a response.
    fn body(&mut self) -> Option<&mut Begun> {
        match self {
            Self::Here { response, .. } => Some(response.body_mut()),
            Self::GoesOn(body) => Some(body),
            Self::Empty | Self::Failed(_) | Self::Closed => None,
        }
    }

    fn is_held(&self) -> bool {
        matches!(self, Self::Here { held, .. } if *held != Held::No)
    }

    /// Sends what is held.
    fn release(&mut self) -> bool {
        match self {
            Self::Here { held, .. } => mem::replace(held, Held::No) != Held::No,
            _ => false,
        }
    }
}
