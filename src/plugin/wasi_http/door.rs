//! How connections come in at a port, and how their clients are sent elsewhere before it closes.
//!
//! First each answer asks the client to come back over another connection; what it asks for is done as before. In the end the
//! connections that are left are closed: at once where no request is in flight, else after its answer.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time};

use super::serve::lock;

/// Answers send clients away.
const PARTING: u32 = 1;
/// One more time that connections were closed.
const CLOSED: u32 = 2;
/// Longest time for all connections to learn that they are to close; they are on threads that may be busy.
const TOLD_LIMIT: Duration = Duration::from_secs(1);

/// The door of a port.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// One word, which is all that a request reads.
    state: AtomicU32,
    visits: Mutex<Visits>,
    told: Notify,
}

/// Connections that were not told to close, in the order in which they came.
#[derive(Debug, Default)]
struct Visits {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// One connection.
pub(super) struct Visit<'a> {
    door: &'a Door,
    state: State,
}

/// A connection's state.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Its task has not run yet.
    New,
    /// It was told nothing, and when it came this many connections had been closed.
    Open { id: u64, closed: u32 },
    /// It was told to close, and may still take a request that was on its way.
    Closing { id: u64 },
    /// It takes no request any more.
    Closed,
}

/// A connection that can be closed when it has nothing to do.
pub(super) trait Graceful {
    type End;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End>;

    /// Closes it: at once, or after the answers to the requests in flight.
    fn close(&mut self);

    /// Ready when it takes no request any more, after it was closed.
    fn poll_settled(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// What comes before a connection's first request.
struct Before<'a, F> {
    future: Pin<&'a mut F>,
    closed: bool,
}

impl<F: Future> Graceful for Before<'_, F> {
    type End = Option<F::Output>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End> {
        match self.future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.closed => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn close(&mut self) {
        self.closed = true;
    }
}

impl Door {
    /// Sends clients away from now on, or no more.
    pub fn part(&self, parting: bool) {
        if parting {
            self.state.fetch_or(PARTING, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!PARTING, Ordering::Relaxed);
        }
    }

    /// Whether answers are to send clients away.
    pub fn is_parting(&self) -> bool {
        self.state.load(Ordering::Relaxed) & PARTING != 0
    }

    /// A connection comes in.
    pub fn enter(&self) -> Visit<'_> {
        Visit {
            door: self,
            state: State::New,
        }
    }

    /// Closes the connections that are there. Ready when none of them takes another request, or is too busy to be told.
    pub async fn close(&self) {
        let next = {
            let visits = lock(&self.visits);
            self.state.fetch_add(CLOSED, Ordering::Relaxed);
            visits.wakers.values().for_each(Waker::wake_by_ref);
            visits.next
        };
        let told = async {
            loop {
                let mut told = std::pin::pin!(self.told.notified());
                told.as_mut().enable();
                let first = lock(&self.visits).wakers.keys().next().copied();
                if first.is_none_or(|first| first >= next) {
                    return;
                }
                told.await;
            }
        };
        if time::timeout(TOLD_LIMIT, told).await.is_err() {
            tracing::debug!("a connection was too busy to be told to close");
        }
    }

    fn register(&self, waker: &Waker) -> State {
        let mut visits = lock(&self.visits);
        let id = visits.next;
        visits.next += 1;
        visits.wakers.insert(id, waker.clone());
        State::Open {
            id,
            closed: self.state.load(Ordering::Relaxed) / CLOSED,
        }
    }
}

impl Visit<'_> {
    /// Waits for something before there can be a request; none if the connection was told to close first.
    pub async fn before<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut before = Before {
            future: pin!(future),
            closed: false,
        };
        poll_fn(|cx| self.poll(&mut before, cx)).await
    }

    /// Drives a connection. It is to be polled by one task alone.
    pub fn poll<C: Graceful>(&mut self, connection: &mut C, cx: &mut Context<'_>) -> Poll<C::End> {
        // First what has come in: a request that is there is not turned away.
        let polled = connection.poll(cx);
        if polled.is_ready() {
            return polled;
        }
        match self.state {
            State::New => self.state = self.door.register(cx.waker()),
            State::Open { id, closed }
                if closed != self.door.state.load(Ordering::Relaxed) / CLOSED =>
            {
                connection.close();
                self.state = State::Closing { id };
                let polled = connection.poll(cx);
                self.settle(connection, cx);
                return polled;
            }
            State::Closing { .. } => self.settle(connection, cx),
            State::Open { .. } | State::Closed => {}
        }
        Poll::Pending
    }

    fn settle<C: Graceful>(&mut self, connection: &mut C, cx: &mut Context<'_>) {
        if connection.poll_settled(cx).is_ready() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let State::Open { id, .. } | State::Closing { id } = self.state {
            self.state = State::Closed;
            lock(&self.door.visits).wakers.remove(&id);
            self.door.told.notify_waiters();
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt as _;

    use super::*;

    /// Ends when it is closed without a request in flight.
    #[derive(Default)]
    struct Fake {
        busy: Cell<bool>,
        closing: bool,
        /// A request may be on its way.
        unsettled: Cell<bool>,
    }

    impl Graceful for Fake {
        type End = ();

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.closing && !self.busy.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }

        fn close(&mut self) {
            self.closing = true;
        }

        fn poll_settled(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.unsettled.get() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        }
    }

    async fn step(visit: &mut Visit<'_>, connection: &mut Fake) -> bool {
        poll_fn(|cx| Poll::Ready(visit.poll(connection, cx).is_ready())).await
    }

    #[tokio::test]
    async fn closing_waits_until_those_who_are_there_know() {
        let door = Door::default();
        let (mut idle, mut busy) = (Fake::default(), Fake::default());
        busy.busy.set(true);
        let (mut first, mut second) = (door.enter(), door.enter());
        assert!(!step(&mut first, &mut idle).await);
        assert!(!step(&mut second, &mut busy).await);

        let mut close = pin!(door.close());
        assert!(close.as_mut().now_or_never().is_none());
        // Who comes after that is not meant.
        let (mut late, mut other) = (door.enter(), Fake::default());
        assert!(!step(&mut late, &mut other).await);
        assert!(step(&mut first, &mut idle).await, "it has nothing to do");
        drop(first);
        assert!(close.as_mut().now_or_never().is_none());
        assert!(
            !step(&mut second, &mut busy).await,
            "it has to answer first"
        );
        assert!(close.as_mut().now_or_never().is_some());
        busy.busy.set(false);
        assert!(step(&mut second, &mut busy).await);
        assert!(!step(&mut late, &mut other).await && !other.closing);
    }

    #[tokio::test]
    async fn a_request_that_may_be_on_its_way_is_waited_for() {
        let door = Door::default();
        let (mut visit, mut connection) = (door.enter(), Fake::default());
        connection.busy.set(true);
        connection.unsettled.set(true);
        assert!(!step(&mut visit, &mut connection).await);
        let mut close = pin!(door.close());
        assert!(close.as_mut().now_or_never().is_none());
        assert!(!step(&mut visit, &mut connection).await && connection.closing);
        assert!(close.as_mut().now_or_never().is_none());
        connection.unsettled.set(false);
        assert!(!step(&mut visit, &mut connection).await);
        assert!(close.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn before_its_first_request_a_connection_ends_when_it_is_told() {
        let door = Door::default();
        let mut visit = door.enter();
        assert_eq!(visit.before(async { 1 }).await, Some(1));
        let mut before = Box::pin(visit.before(std::future::pending::<()>()));
        assert!(before.as_mut().now_or_never().is_none());
        let mut close = pin!(door.close());
        assert!(close.as_mut().now_or_never().is_none());
        assert_eq!(before.as_mut().now_or_never(), Some(None));
        drop(before);
        drop(visit);
        assert!(close.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_connection_that_is_never_polled_is_not_waited_for() {
        let door = Door::default();
        let (mut visit, mut connection) = (door.enter(), Fake::default());
        assert!(!step(&mut visit, &mut connection).await);
        let begun = time::Instant::now();
        door.close().await;
        assert!(begun.elapsed() >= TOLD_LIMIT);
        drop(visit);
        assert!(door.close().now_or_never().is_some());
    }

    #[test]
    fn parting_can_be_taken_back() {
        let door = Door::default();
        assert!(!door.is_parting());
        door.part(true);
        door.part(true);
        assert!(door.is_parting());
        door.part(false);
        assert!(!door.is_parting());
    }
}
