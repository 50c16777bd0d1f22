//! Where a response waits for whoever sends it.
//!
//! A guest hands over the head before it writes the body. What it has written when it has nothing more to do at once goes with
//! the head: most answers are whole by then, so that neither the server nor the guest has to be woken for them again, the client
//! learns how long they are, and a guest that fails meanwhile is answered for with its fault.
//!
//! A body that goes on stays here, and only the guest's task asks for more of it. So a guest writes several pieces in its turn,
//! and the server sends them together in its own.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::serve::lock;

/// Most of a body that is taken in before its head is sent, in bytes; one frame may go beyond.
const AHEAD: usize = 16 << 10;

/// The same after that, until the server takes some. It has as much again, and so has the system.
const QUEUE: usize = 256 << 10;

/// What a frame counts beyond its data, in bytes: many small ones are something, too.
const FRAME: usize = 128;

/// A response's head, and its body as far as that is known; or the words of an error code that the guest answered with.
pub(super) type Head = Result<Response<Sent>, String>;

/// A response's body, as it is when its head is sent.
pub(super) enum Sent {
    /// All of it.
    Whole(Begun),
    /// It goes on, and comes by [`Outbox::poll_frame`]. How long it will be, if that is known.
    GoesOn(SizeHint),
}

/// What there is of a response's body.
pub(super) struct Begun {
    here: VecDeque<Result<Frame<Bytes>, Error>>,
    /// Bytes of data in `here`.
    size: usize,
    /// None when all is here.
    rest: Option<WasiBody>,
}

/// What was taken in of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    Nothing,
    /// Something, so that who waits for room can go on.
    Some,
    /// So much that it is sent now: whoever sends should have a turn.
    Enough,
    /// The last of it.
    Whole,
}

/// The one place for a request's response.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Who sends.
    waiting: AtomicWaker,
    /// The guest's task, when there is no room for more of a body.
    room: AtomicWaker,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// The guest has its thread still, or gives way `again` before it waits.
    Held {
        response: Response<Begun>,
        again: bool,
    },
    /// Whoever sends has not taken it yet.
    Ready(Response<Begun>),
    /// The head was taken.
    GoesOn(Begun),
    Failed(String),
    /// Nothing comes, or nothing more.
    Closed,
}

impl Outbox {
    /// Takes a response, and keeps it until it is whole or the guest waits for something; see [`Outbox::give_way`]. A guest that
    /// has `tasks` gives way between two of them, too.
    pub fn hold(&self, response: Response<WasiBody>, tasks: bool) {
        self.put(State::Held {
            response: response.map(Begun::of),
            again: tasks,
        });
    }

    /// Takes the words of an error code in place of a response.
    pub fn fail(&self, code: String) {
        self.put(State::Failed(code));
    }

    /// The guest has given up its thread: sends what is held, but not the first time if it has tasks; unless it has been
    /// `interrupted`, as it will be again. True if it should be asked to go on.
    pub fn give_way(&self, interrupted: bool) -> bool {
        let mut goes_on = false;
        self.change(|state| match state {
            State::Held { again, .. } if *again && !interrupted => {
                *again = false;
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
            whole = !body.end();
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

    /// The guest has ended: no response comes any more, and one that is held is given up. A body that is not whole stays so.
    pub fn close(&self) {
        self.change(|state| match state {
            State::Empty | State::Held { .. } => {
                *state = State::Closed;
                true
            }
            state => state.body().is_some_and(Begun::end),
        });
    }

    /// Nobody sends any more of the response.
    pub fn discard(&self) {
        let former = mem::replace(&mut *lock(&self.state), State::Closed);
        // Not under the lock: who writes the body learns of it.
        drop(former);
    }

    /// Takes in what there is of the body: for the guest's task, which is woken when there may be more, or room for it. One that
    /// is held is sent when that is all, or enough.
    pub fn fill(&self, cx: &mut Context<'_>) -> Filled {
        let mut filled = Filled::Nothing;
        self.change(|state| {
            let held = matches!(state, State::Held { .. });
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
        self.waiting.register(cx.waker());
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Closed) {
            State::Ready(response) => {
                let (head, body) = response.into_parts();
                let body = if body.is_whole() {
                    Sent::Whole(body)
                } else {
                    let hint = body.size_hint();
                    *state = State::GoesOn(body);
                    Sent::GoesOn(hint)
                };
                Poll::Ready(Some(Ok(Response::from_parts(head, body))))
            }
            State::Failed(code) => Poll::Ready(Some(Err(code))),
            State::GoesOn(_) | State::Closed => Poll::Ready(None),
            waiting => {
                *state = waiting;
                Poll::Pending
            }
        }
    }

    /// More of a body that goes on.
    pub fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
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
        match next {
            None if !body.is_whole() => Poll::Pending,
            next => Poll::Ready(next),
        }
    }

    /// The same as [`Begun::fault`] for a body that goes on.
    pub fn fault(&self, announced: Option<u64>) -> Option<String> {
        lock(&self.state).body()?.fault(announced)
    }

    /// Whether a body that went on is at its end.
    pub fn is_at_end(&self) -> bool {
        match &*lock(&self.state) {
            State::GoesOn(body) => body.is_at_end(),
            _ => true,
        }
    }

    fn put(&self, new: State) {
        self.change(|state| {
            let first = matches!(state, State::Empty);
            if first {
                *state = new;
            }
            first
        });
    }

    /// Changes the state, and tells whoever waits if that says so.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let changed = change(&mut lock(&self.state));
        if changed {
            self.waiting.wake();
        }
    }
}

impl State {
    /// What there is of the response's body, if there is a response.
    fn body(&mut self) -> Option<&mut Begun> {
        match self {
            Self::Held { response, .. } | Self::Ready(response) => Some(response.body_mut()),
            Self::GoesOn(body) => Some(body),
            Self::Empty | Self::Failed(_) | Self::Closed => None,
        }
    }

    /// Sends what is held.
    fn release(&mut self) -> bool {
        match mem::take(self) {
            Self::Held { response, .. } => {
                *self = Self::Ready(response);
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }
}

impl Begun {
    fn of(body: WasiBody) -> Self {
        Self {
            here: VecDeque::new(),
            size: 0,
            rest: Some(body),
        }
    }

    fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Nothing comes any more.
    pub fn is_at_end(&self) -> bool {
        self.here.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// Why it cannot be sent as the body of an answer that announces this length; none if it can, or that is not known yet.
    pub fn fault(&self, announced: Option<u64>) -> Option<String> {
        let length = self.size as u64;
        if let Some(announced) = announced {
            // The server asks for no more than that, whatever comes of the rest.
            if announced == length {
                return None;
            }
            if announced < length
                || matches!(self.here.back(), None | Some(Ok(_))) && self.is_whole()
            {
                return Some(format!(
                    "its content-length is {announced}, and its body has {length} bytes"
                ));
            }
        }
        let error = self.here.back()?.as_ref().err()?;
        Some(error.to_string())
    }

    /// Bytes that it holds.
    fn cost(&self) -> usize {
        self.size + self.here.len() * FRAME
    }

    /// The next of what is here.
    pub fn next(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        let next = self.here.pop_front()?;
        if let Ok(frame) = &next {
            self.size -= frame.data_ref().map_or(0, Bytes::len);
        }
        Some(next)
    }

    /// How long it is, or will be, if that is known.
    pub fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.here.is_empty() => rest.size_hint(),
            Some(_) => SizeHint::default(),
            None => {
                let is_data =
                    |frame: &Result<Frame<Bytes>, Error>| frame.as_ref().is_ok_and(Frame::is_data);
                // With trailers, or a failure, it is not as long as its data.
                if self.here.iter().all(is_data) {
                    SizeHint::with_exact(self.size as u64)
                } else {
                    SizeHint::default()
                }
            }
        }
    }

    /// Takes in what there is; ready when that is all, or `most` bytes.
    fn poll_fill(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        while self.cost() < most
            && let Some(rest) = &mut self.rest
        {
            let frame = ready!(Pin::new(rest).poll_frame(cx));
            match &frame {
                // Nothing to send.
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Some(Ok(frame)) => self.size += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => self.rest = None,
            }
            self.here.extend(frame);
        }
        Poll::Ready(())
    }

    /// Nobody writes any more of it. True if that is news.
    fn end(&mut self) -> bool {
        let goes_on = self.rest.take().is_some();
        if goes_on {
            self.here.push_back(Err(Error::HttpResponseIncomplete));
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::{
        channel::mpsc,
        stream::{self, StreamExt as _},
    };
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    type Pieces = mpsc::UnboundedSender<usize>;

    /// A response whose body comes in pieces of these sizes.
    fn response() -> (Pieces, Response<WasiBody>) {
        let (pieces, sizes) = mpsc::unbounded();
        let frames = sizes.map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; size]))));
        (
            pieces,
            Response::new(StreamBody::new(frames).boxed_unsync()),
        )
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// The length that the server announces; none if it cannot know it.
    fn sent(outbox: &Outbox) -> Option<Option<u64>> {
        match outbox.poll(&cx()) {
            Poll::Ready(head) => Some(match head.unwrap().unwrap().body() {
                Sent::Whole(body) => body.size_hint().exact(),
                Sent::GoesOn(hint) => hint.exact(),
            }),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_whole_before_the_guest_waits_is_sent_as_a_whole() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, true);
        pieces.unbounded_send(3).unwrap();
        assert_eq!(outbox.fill(&mut cx()), Filled::Some);
        assert_eq!(outbox.fill(&mut cx()), Filled::Nothing);
        // Between two of its tasks.
        assert!(outbox.give_way(false));
        assert_eq!(sent(&outbox), None);
        pieces.unbounded_send(4).unwrap();
        drop(pieces);
        assert_eq!(outbox.fill(&mut cx()), Filled::Whole);
        assert_eq!(sent(&outbox), Some(Some(7)));
        assert!(!outbox.give_way(false));
        assert_eq!(outbox.fill(&mut cx()), Filled::Nothing);
    }

    #[test]
    fn a_head_does_not_wait_for_a_guest_that_waits() {
        let outbox = Outbox::default();
        let (_pieces, response) = response();
        outbox.hold(response, true);
        assert!(outbox.give_way(false));
        assert!(!outbox.give_way(false));
        assert_eq!(sent(&outbox), Some(None));
    }

    #[test]
    fn a_head_does_not_wait_for_a_guest_that_computes() {
        let outbox = Outbox::default();
        let (_pieces, response) = response();
        outbox.hold(response, true);
        assert!(!outbox.give_way(true));
        assert_eq!(sent(&outbox), Some(None));
    }

    #[test]
    fn no_more_is_taken_in_than_is_worth_it() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, true);
        for _ in 0..3 {
            pieces.unbounded_send(AHEAD / 2).unwrap();
            pieces.unbounded_send(0).unwrap();
        }
        assert_eq!(outbox.fill(&mut cx()), Filled::Enough, "it is not whole");
        assert_eq!(sent(&outbox), Some(None));
        assert_eq!(lengths(&outbox), [AHEAD / 2, AHEAD / 2]);
    }

    #[test]
    fn what_is_held_when_the_guest_fails_is_not_sent() {
        let outbox = Outbox::default();
        outbox.hold(response().1, true);
        outbox.close();
        assert!(matches!(outbox.poll(&cx()), Poll::Ready(None)));
        outbox.hold(response().1, true);
        assert!(matches!(outbox.poll(&cx()), Poll::Ready(None)));
    }

    /// The lengths of the frames that are there.
    fn lengths(outbox: &Outbox) -> Vec<usize> {
        let next = || match outbox.poll_frame(&cx()) {
            Poll::Ready(frame) => Some(frame?.unwrap().into_data().unwrap().len()),
            Poll::Pending => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_body_that_goes_on_is_taken_in_as_far_as_there_is_room() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, false);
        assert!(!outbox.give_way(false));
        for _ in 0..5 {
            pieces.unbounded_send(QUEUE / 4).unwrap();
        }
        pieces.unbounded_send(0).unwrap();
        // Before the head is taken, and after that.
        assert_eq!(outbox.fill(&mut cx()), Filled::Some);
        assert_eq!(sent(&outbox), Some(None));
        assert_eq!(outbox.fill(&mut cx()), Filled::Nothing, "it is full");
        assert_eq!(lengths(&outbox), [QUEUE / 4; 4]);
        assert_eq!(outbox.fill(&mut cx()), Filled::Some);
        drop(pieces);
        assert_eq!(outbox.fill(&mut cx()), Filled::Whole);
        assert!(!outbox.is_at_end());
        assert_eq!(lengths(&outbox), [QUEUE / 4]);
        assert!(outbox.is_at_end() && matches!(outbox.poll_frame(&cx()), Poll::Ready(None)));
    }

    #[test]
    fn what_a_guest_has_written_is_sent_however_full_it_is() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, false);
        outbox.give_way(false);
        for _ in 0..3 {
            pieces.unbounded_send(QUEUE).unwrap();
        }
        drop(pieces);
        assert_eq!(outbox.fill(&mut cx()), Filled::Some);
        assert!(outbox.finish(&mut cx()), "it is whole");
        outbox.close();
        let Poll::Ready(Some(Ok(response))) = outbox.poll(&cx()) else {
            panic!("it is sent")
        };
        assert!(matches!(response.body(), Sent::Whole(body) if body.size == 3 * QUEUE));
    }

    #[test]
    fn a_body_that_nobody_ends_has_failed() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, false);
        outbox.give_way(false);
        assert_eq!(sent(&outbox), Some(None));
        pieces.unbounded_send(1).unwrap();
        outbox.fill(&mut cx());
        outbox.close();
        assert!(matches!(outbox.poll_frame(&cx()), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(
            outbox.poll_frame(&cx()),
            Poll::Ready(Some(Err(_)))
        ));
        assert!(pieces.is_closed());
    }

    #[test]
    fn what_nobody_sends_is_not_written_any_more() {
        let outbox = Outbox::default();
        let (pieces, response) = response();
        outbox.hold(response, false);
        outbox.give_way(false);
        assert_eq!(sent(&outbox), Some(None));
        outbox.discard();
        assert!(pieces.is_closed() && outbox.is_at_end());
        assert_eq!(outbox.fill(&mut cx()), Filled::Nothing);
    }

    #[test]
    fn a_guest_without_tasks_waits_when_it_gives_way() {
        let outbox = Outbox::default();
        outbox.hold(response().1, false);
        outbox.abandon();
        assert_eq!(sent(&outbox), None, "it has answered");
        assert!(!outbox.give_way(false));
        assert_eq!(sent(&outbox), Some(None));
    }

    #[test]
    fn what_is_held_is_sent_when_the_guest_returns() {
        let outbox = Outbox::default();
        let (_pieces, response) = response();
        outbox.hold(response, false);
        assert!(!outbox.finish(&mut cx()), "its body is not whole");
        let Poll::Ready(Some(Ok(failed))) = outbox.poll(&cx()) else {
            panic!("it is sent")
        };
        assert!(matches!(failed.body(), Sent::Whole(body) if body.fault(None).is_some()));
        let unanswered = Outbox::default();
        assert!(unanswered.finish(&mut cx()));
        unanswered.abandon();
        assert!(matches!(unanswered.poll(&cx()), Poll::Ready(None)));
    }

    #[test]
    fn a_body_has_a_fault_when_it_is_known_to_be_less_than_announced() {
        let (pieces, response) = response();
        let mut body = Begun::of(response.into_body());
        pieces.unbounded_send(3).unwrap();
        assert!(body.poll_fill(AHEAD, &mut cx()).is_pending());
        assert_eq!(body.fault(Some(7)), None, "it goes on");
        assert!(body.fault(Some(2)).is_some());
        drop(pieces);
        assert!(body.poll_fill(AHEAD, &mut cx()).is_ready());
        assert_eq!((body.fault(None), body.fault(Some(3))), (None, None));
        assert!(body.fault(Some(7)).is_some() && body.fault(Some(2)).is_some());

        let error = stream::iter([Err(Error::HttpResponseIncomplete)]);
        let mut body = Begun::of(StreamBody::new(error).boxed_unsync());
        assert!(body.poll_fill(AHEAD, &mut cx()).is_ready());
        assert!(body.fault(None).is_some() && body.fault(Some(1)).is_some());
        assert_eq!(body.fault(Some(0)), None, "it has what was announced");
    }

    #[test]
    fn what_was_sent_stays_when_the_guest_fails() {
        let outbox = Outbox::default();
        outbox.hold(response().1, false);
        assert!(!outbox.give_way(false));
        outbox.close();
        assert_eq!(sent(&outbox), Some(None));
    }
}
