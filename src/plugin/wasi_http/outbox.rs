//! Where a response waits for whoever sends it, and for its body if that is short.
//!
//! A guest hands over the head before it writes the body. What it has written when it has nothing more to do at once goes with
//! the head: most answers are whole by then, so that neither the server nor the guest has to be woken for them again, the client
//! learns how long they are, and a guest that fails meanwhile is answered for with its fault.

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

/// Most of a body that is taken in before anybody asks for it, in bytes; one frame may go beyond.
const AHEAD: usize = 16 << 10;

/// A response's head, with a body that may go on; or the words of an error code that the guest answered with.
pub(super) type Head = Result<Response<Begun>, String>;

/// A response's body, and what there is of it already.
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
    /// The last of it.
    Whole,
}

/// The one place for a request's response.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    waiting: AtomicWaker,
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
    Sent(Head),
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
        self.put(State::Sent(Err(code)));
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
            State::Held { .. } => state.release(),
            _ => false,
        });
        goes_on
    }

    /// Sends what is held: the guest has returned.
    pub fn release(&self) {
        self.change(State::release);
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

    /// No response comes any more; one that is held is given up.
    pub fn close(&self) {
        self.change(|state| {
            let over = matches!(state, State::Empty | State::Held { .. });
            if over {
                *state = State::Closed;
            }
            over
        });
    }

    /// Takes in what there is of the body of a response that is held, which is sent when that is all of it, or enough.
    pub fn fill(&self, cx: &mut Context<'_>) -> Filled {
        let mut filled = Filled::Nothing;
        self.change(|state| {
            let State::Held { response, .. } = state else {
                return false;
            };
            let body = response.body_mut();
            let before = body.here.len();
            let ready = body.poll_fill(cx).is_ready();
            if body.is_whole() {
                filled = Filled::Whole;
            } else if body.here.len() > before {
                filled = Filled::Some;
            }
            ready && state.release()
        });
        filled
    }

    /// The response; none if none comes.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Option<Head>> {
        self.waiting.register(cx.waker());
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, State::Closed) {
            State::Sent(head) => Poll::Ready(Some(head)),
            State::Closed => Poll::Ready(None),
            waiting => {
                *state = waiting;
                Poll::Pending
            }
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
    /// Sends what is held.
    fn release(&mut self) -> bool {
        match mem::take(self) {
            Self::Held { response, .. } => {
                *self = Self::Sent(Ok(response));
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

    /// Why it cannot be sent as the body of an answer that announces this length; none if it can, or that is not known yet.
    pub fn fault(&self, announced: Option<u64>) -> Option<String> {
        if let Some(Err(error)) = self.here.back() {
            return Some(error.to_string());
        }
        let announced =
            announced.filter(|length| self.is_whole() && *length != self.size as u64)?;
        let length = self.size;
        Some(format!(
            "its content-length is {announced}, and its body has {length} bytes"
        ))
    }

    /// Takes in what there is; ready when that is all, or enough.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.size < AHEAD
            && let Some(rest) = &mut self.rest
        {
            let frame = ready!(Pin::new(rest).poll_frame(cx));
            match &frame {
                Some(Ok(frame)) => self.size += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => self.rest = None,
            }
            self.here.extend(frame);
        }
        Poll::Ready(())
    }
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(frame) = this.here.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.here.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.here.is_empty() => rest.size_hint(),
            Some(_) => SizeHint::default(),
            None => {
                let sizes = self.here.iter().map(|frame| match frame {
                    Ok(frame) => Some(frame.data_ref()?.len() as u64),
                    Err(_) => None,
                });
                // With trailers, or a failure, it is not as long as its data.
                let sum: Option<u64> = sizes.sum();
                sum.map(SizeHint::with_exact).unwrap_or_default()
            }
        }
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
            Poll::Ready(head) => Some(head.unwrap().unwrap().body().size_hint().exact()),
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
        }
        assert_eq!(outbox.fill(&mut cx()), Filled::Some, "it is not whole");
        let Poll::Ready(Some(Ok(response))) = outbox.poll(&cx()) else {
            panic!("it is sent")
        };
        assert_eq!(response.body().here.len(), 2);
        assert_eq!(response.body().size_hint().exact(), None);
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
        outbox.release();
        assert_eq!(sent(&outbox), Some(None));
        let unanswered = Outbox::default();
        unanswered.release();
        unanswered.abandon();
        assert!(matches!(unanswered.poll(&cx()), Poll::Ready(None)));
    }

    #[test]
    fn a_body_has_a_fault_when_it_is_known_to_be_less_than_announced() {
        let (pieces, response) = response();
        let mut body = Begun::of(response.into_body());
        pieces.unbounded_send(3).unwrap();
        assert!(body.poll_fill(&mut cx()).is_pending());
        assert_eq!(body.fault(Some(7)), None, "it goes on");
        drop(pieces);
        assert!(body.poll_fill(&mut cx()).is_ready());
        assert_eq!((body.fault(None), body.fault(Some(3))), (None, None));
        assert!(body.fault(Some(7)).is_some() && body.fault(Some(2)).is_some());

        let error = stream::iter([Err(Error::HttpResponseIncomplete)]);
        let mut body = Begun::of(StreamBody::new(error).boxed_unsync());
        assert!(body.poll_fill(&mut cx()).is_ready());
        assert!(body.fault(None).is_some());
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
