//! Two lanes: a guest that takes long at a time moves to threads of low priority, so that the short requests of its thread do not
//! queue behind it each time that it comes round.
//!
//! A guest begins on the thread of its connection, which is where most end, without a hand-over; unless the last ones of the same
//! component took long, so that one who asks again and again for what takes long has no part of others' time for each. What a
//! guest waits for stays where it is: sockets and timers wake it wherever it runs. Services and jobs, which have no connection,
//! begin on a thread of the host's runtime.

use std::{
    cell::Cell,
    future::{self, Future},
    io, mem,
    num::NonZeroUsize,
    panic,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::{
    runtime::{self, Handle, Runtime},
    task::JoinHandle,
};

use self::standing::{Record, Standing, Stopwatch};
use super::boxed::in_place;
use crate::engine::ticks;

pub mod priority;
mod standing;
#[cfg(test)]
mod tests;

/// Ticks that end a slice: it has at least a whole one. With the first tick, each would be found guilty that is just at work
/// then, and a request that is moved for nothing is late.
const SLICE_TICKS: u64 = 2;

/// Ticks after which a task of the slow lane that has taken nothing long meanwhile goes back: about a second.
const PAROLE: u64 = 200;

thread_local! {
    static SLICE: Cell<Slice> = const { Cell::new(Slice::until(0)) };
}

/// What a guest may have of its thread before it gives way to others.
#[derive(Clone, Copy)]
struct Slice {
    /// The tick at which it ends.
    until: u64,
    /// The tick at which its task gives way at the latest, whoever is at work.
    yields: u64,
    /// A guest was interrupted at its end.
    over: bool,
}

impl Slice {
    const fn until(until: u64) -> Self {
        Self {
            until,
            yields: until,
            over: false,
        }
    }

    /// The slice as it is for a guest that is interrupted.
    const fn interrupted(self, now: u64) -> Self {
        Self {
            over: self.over || now >= self.until,
            ..self
        }
    }
}

/// Asked at a tick, when a guest is interrupted: whether it gives way to others. An instance that is kept is interrupted
/// when it is called for the first time after a tick, however long ago that was; it goes on.
pub fn slice_is_over() -> bool {
    let now = ticks();
    let slice = SLICE.get().interrupted(now);
    SLICE.set(slice);
    slice.over || now >= slice.yields
}

/// Whether a guest was interrupted at the end of its slice, in the turn that goes on.
pub fn is_interrupted() -> bool {
    SLICE.get().over
}

/// Asked by what may go on for long without the guest, which is then not interrupted: pending, once in a turn, when the guest's
/// slice is over. Where there are no turns it is always ready.
pub fn poll_slice(cx: &Context<'_>) -> Poll<()> {
    let slice = SLICE.get();
    if slice.until == 0 || ticks() < slice.until {
        return Poll::Ready(());
    }
    SLICE.set(Slice {
        over: true,
        ..slice
    });
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// A guest begins that shares its task with others.
pub fn begin_slice() {
    SLICE.set(Slice {
        until: ticks() + SLICE_TICKS,
        ..SLICE.get()
    });
}

/// The threads of guests that take long.
pub struct SlowLane(Option<Runtime>);

/// Where the guests of one component run.
pub struct Lane {
    /// None if there is only one lane.
    slow: Option<Handle>,
    record: Record,
}

/// A guest's task.
pub enum Laned<S> {
    /// On the thread of its connection.
    Fast(Task<S>),
    /// In the slow lane.
    Slow(Moved<S>),
}

/// A guest's task, wherever it is.
pub struct Task<S> {
    work: Work<S>,
    lane: Arc<Lane>,
    /// It is about one request. What others take at a time may be many short ones.
    single: bool,
}

/// What a guest's task does before it has begun: a function that makes its future, whose output is true if a guest has run.
pub trait Start: Send + 'static {
    /// Begins.
    fn start(self) -> BoxFuture<'static, bool>;
}

/// What a guest's task does. Its future has some kilobytes, so it is made when it is polled first: most end by that, and the
/// next one has the same memory, which is in the processor's cache.
enum Work<S> {
    New(S),
    Begun(BoxFuture<'static, bool>),
    /// It goes on elsewhere.
    Gone,
}

/// A task elsewhere, which may come back; dropping it ends that.
pub struct Moved<S>(JoinHandle<Option<Task<S>>>);

impl SlowLane {
    /// As many threads as there are for short requests.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let build = || {
            runtime::Builder::new_multi_thread()
                .worker_threads(threads.get())
                .thread_name("washlet-slow")
                .enable_all()
                .on_thread_start(priority::of_slow_lane)
                .build()
        };
        // Tokio panics if the system refuses a thread.
        let runtime = panic::catch_unwind(build)
            .unwrap_or_else(|_| Err(io::Error::other("the system refuses a thread")))?;
        Ok(Self(Some(runtime)))
    }

    /// Where to send tasks.
    pub fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Not by dropping it, which would wait for guests; they yield at each tick, and are then dropped.
            runtime.shutdown_background();
        }
    }
}

impl Lane {
    /// Begins with trust.
    pub fn new(slow: Option<Handle>) -> Arc<Self> {
        Arc::new(Self {
            slow,
            record: Record::default(),
        })
    }
}

impl<S, F> Start for S
where
    S: FnOnce() -> F + Send + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    fn start(self) -> BoxFuture<'static, bool> {
        Box::into_pin(in_place(self))
    }
}

impl<S: Start> Work<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Self::New(_) = self
            && let Self::New(start) = mem::replace(self, Self::Gone)
        {
            *self = Self::Begun(start.start());
        }
        match self {
            Self::Begun(work) => work.as_mut().poll(cx),
            Self::New(_) | Self::Gone => Poll::Ready(false),
        }
    }
}

impl<S: Start> Laned<S> {
    /// The task of one request, which moves to the slow lane, if there is one, when it takes long; or begins there. Its output
    /// says whether a guest has run: what is refused says nothing of those.
    pub fn single(work: S, lane: &Arc<Lane>) -> Self {
        Self::new(work, lane, true)
    }

    /// The same for a task of many requests, which only moves when one of them uses up its slice.
    pub fn shared(work: S, lane: &Arc<Lane>) -> Self {
        Self::new(work, lane, false)
    }

    /// A task that waits for another one's guest.
    pub fn waiting(work: S, lane: &Arc<Lane>) -> Self {
        Self::Fast(Task::new(work, lane, false))
    }

    fn new(work: S, lane: &Arc<Lane>, single: bool) -> Self {
        let task = Task::new(work, lane, single);
        match &lane.slow {
            Some(slow) if lane.record.standing().is_suspect() => {
                Self::Slow(Moved(slow.spawn(task.on_parole(true))))
            }
            _ => Self::Fast(task),
        }
    }
}

impl<S: Start> Task<S> {
    fn new(work: S, lane: &Arc<Lane>, single: bool) -> Self {
        Self {
            work: Work::New(work),
            lane: lane.clone(),
            single,
        }
    }

    /// Polls the guest for a slice; ready when it has ended.
    fn poll(&mut self, cx: &mut Context<'_>, exact: bool) -> Turn {
        let watch = self.single.then(|| Stopwatch::start(exact));
        SLICE.set(Slice::until(ticks() + SLICE_TICKS));
        let polled = self.work.poll(cx);
        // A task may be polled within another one, which has not used up anything by that.
        let over = SLICE.replace(Slice::until(0)).over;
        Turn {
            polled,
            over,
            long: over || watch.is_some_and(|watch| watch.is_long()),
        }
    }

    /// Polls the guest where short requests wait for it.
    fn poll_here(&mut self, cx: &mut Context<'_>) -> Here {
        let record = &self.lane.record;
        let standing = record.standing();
        let exact = standing != Standing::TRUSTED;
        let turn = self.poll(cx, exact);
        let record = &self.lane.record;
        let mut goes = turn.over;
        if turn.over {
            record.suspect();
        } else if turn.long {
            goes = record.judge(standing, true).is_suspect();
        } else if turn.polled == Poll::Ready(true) && self.single && exact {
            record.judge(standing, false);
        }
        match turn.polled {
            Poll::Ready(_) => Here::Ended,
            Poll::Pending if goes => Here::Goes,
            Poll::Pending => Here::Stays,
        }
    }

    /// The task, if there is another lane.
    fn take(&mut self) -> Option<(Handle, Self)> {
        let slow = self.lane.slow.as_ref()?;
        let task = Self {
            work: mem::replace(&mut self.work, Work::Gone),
            lane: self.lane.clone(),
            single: self.single,
        };
        Some((slow.clone(), task))
    }

    /// Goes on in the slow lane; comes back when it has behaved for a while, and not when it has ended. One that `begins` there
    /// and takes nothing long wins some of its component's trust back; one that has moved there was judged for that.
    async fn on_parole(mut self, begins: bool) -> Option<Self> {
        let mut since = ticks();
        let mut behaves = true;
        let ran = future::poll_fn(|cx| {
            let turn = self.poll(cx, true);
            if turn.long {
                since = ticks();
                behaves = false;
            }
            if let Poll::Ready(ran) = turn.polled {
                return Poll::Ready(Some(ran));
            }
            if ticks() - since >= PAROLE {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        if begins && ran != Some(false) {
            let record = &self.lane.record;
            record.judge(record.standing(), !behaves);
        }
        ran.is_none().then_some(self)
    }
}

/// One poll of a guest.
struct Turn {
    polled: Poll<bool>,
    /// It has used up its slice.
    over: bool,
    /// It took long, by that or otherwise.
    long: bool,
}

/// What a guest does after a turn in the fast lane.
enum Here {
    Ended,
    Stays,
    /// It should go on in the slow lane.
    Goes,
}

// What is pinned has a box of its own.
impl<S> Unpin for Laned<S> {}

impl<S: Start> Future for Laned<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Fast(task) => match task.poll_here(cx) {
                    Here::Ended => return Poll::Ready(()),
                    Here::Stays => return Poll::Pending,
                    Here::Goes => {
                        let Some((slow, task)) = task.take() else {
                            return Poll::Pending;
                        };
                        *self = Self::Slow(Moved(slow.spawn(task.on_parole(false))));
                    }
                },
                Self::Slow(Moved(task)) => match ready!(Pin::new(task).poll(cx)) {
                    Ok(Some(task)) => *self = Self::Fast(task),
                    // It has ended, or panicked: that has told whoever waits already, as the unwinding dropped what they share.
                    Ok(None) | Err(_) => return Poll::Ready(()),
                },
            }
        }
    }
}

impl<S> Drop for Moved<S> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
