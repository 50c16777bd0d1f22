//! What is sent, when, and with which length.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use futures::{
    channel::mpsc,
    stream::{self, StreamExt as _},
};
use http_body_util::{BodyExt as _, StreamBody};

use super::*;

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn was(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

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
    let woken = Arc::<Woken>::default();
    let waker = woken.clone().into();
    let filled = outbox.fill(&mut Context::from_waker(&waker));
    assert_eq!(filled, Filled::Enough, "it is not whole");
    assert!(woken.was(), "there is more");
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
    let next = || match outbox.poll_frame(&mut cx()) {
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
    let (guest, server) = (Arc::<Woken>::default(), Arc::<Woken>::default());
    let (guests, servers) = (guest.clone().into(), server.clone().into());
    let guests = &mut Context::from_waker(&guests);
    assert_eq!(outbox.fill(guests), Filled::Nothing, "it is full");
    assert!(!guest.was());
    assert_eq!(lengths(&outbox), [QUEUE / 4; 4]);
    assert!(guest.was(), "there is room");
    let waits = outbox.poll_frame(&mut Context::from_waker(&servers));
    assert!(waits.is_pending() && !server.was());
    assert_eq!(outbox.fill(guests), Filled::Some);
    assert!(server.was(), "there is more");
    drop(pieces);
    assert_eq!(outbox.fill(guests), Filled::Whole);
    assert!(!outbox.is_at_end());
    assert_eq!(lengths(&outbox), [QUEUE / 4]);
    assert!(outbox.is_at_end() && matches!(outbox.poll_frame(&mut cx()), Poll::Ready(None)));
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
    // Written in its last turn, and not taken in yet.
    pieces.unbounded_send(2).unwrap();
    outbox.close();
    for length in [1, 2] {
        let Poll::Ready(Some(Ok(frame))) = outbox.poll_frame(&mut cx()) else {
            panic!("what was written is sent")
        };
        assert_eq!(frame.data_ref().map(Bytes::len), Some(length));
    }
    assert!(matches!(
        outbox.poll_frame(&mut cx()),
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
    let (_pieces, response) = response();
    outbox.hold(response, false);
    assert!(!outbox.give_way(false));
    outbox.close();
    assert_eq!(sent(&outbox), Some(None));
}
