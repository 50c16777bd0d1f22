//! One timer for all heads of a connection.
//!
//! hyper makes a timer for each head that it waits for, and drops it when that has come. Each of Tokio's would enter a queue and
//! leave it, under a lock, to end once in a million times. So a head only notes until when it is waited for, and the connection
//! has one timer, which looks at that when it ends.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// What hyper waits by for a connection's heads, one at a time.
pub(super) struct HeadTimer(Arc<Deadline>);

/// The same for whoever drives the connection, who has to poll it after that.
pub(super) struct HeadWatch {
    deadline: Arc<Deadline>,
    /// None until a head is waited for. It never ends later than that head's time.
    timer: Option<Pin<Box<time::Sleep>>>,
}

/// Until when a head is waited for. All that use it are of one task.
struct Deadline {
    begun: Instant,
    /// In nanoseconds after that; 0 if none is waited for.
    until: AtomicU64,
    over: AtomicBool,
}

/// A head that is waited for.
struct Head(Arc<Deadline>);

/// The timer of a connection that begins now.
pub(super) fn heads() -> (HeadTimer, HeadWatch) {
    let deadline = Arc::new(Deadline {
        begun: Instant::now(),
        until: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let watch = HeadWatch {
        deadline: deadline.clone(),
        timer: None,
    };
    (HeadTimer(deadline), watch)
}

impl HeadWatch {
    /// Ready, once, when a head's time is over: the connection is to be polled again, and ends then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { deadline, timer } = self;
        let until = deadline.until.load(Ordering::Relaxed);
        if until == 0 {
            return Poll::Pending;
        }
        // It will wake the task, or has said so.
        if timer.as_ref().is_some_and(|timer| !timer.is_elapsed())
            || deadline.over.load(Ordering::Relaxed)
        {
            return Poll::Pending;
        }
        let until = (deadline.begun + Duration::from_nanos(until)).into();
        let timer = timer.get_or_insert_with(|| Box::pin(time::sleep_until(until)));
        timer.as_mut().reset(until);
        ready!(timer.as_mut().poll(cx));
        deadline.over.store(true, Ordering::Relaxed);
        Poll::Ready(())
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let until = deadline.saturating_duration_since(self.0.begun).as_nanos();
        let until = u64::try_from(until).unwrap_or(u64::MAX).max(1);
        self.0.until.store(until, Ordering::Relaxed);
        Box::pin(Head(self.0.clone()))
    }
}

impl Sleep for Head {}

impl Future for Head {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.over.load(Ordering::Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.0.until.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;

    use super::*;

    /// So long that it cannot end here.
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn each_head_has_its_own_time() {
        let (timer, mut watch) = heads();
        let mut look = async |head: &mut Pin<Box<dyn Sleep>>| {
            let over = poll_fn(|cx| Poll::Ready(watch.poll(cx).is_ready())).await;
            assert_eq!(head.as_mut().now_or_never().is_some(), over);
            over
        };
        // The timer ends with the time of the first, which has come by then, and goes on for those that follow.
        let mut first = timer.sleep(Duration::from_millis(20));
        assert!(!look(&mut first).await);
        drop(first);
        for _ in 0..2 {
            let mut next = timer.sleep(LONG);
            assert!(!look(&mut next).await);
            time::sleep(Duration::from_millis(40)).await;
            assert!(!look(&mut next).await);
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_given_up() {
        let (timer, mut watch) = heads();
        drop(timer.sleep(LONG));
        let late = timer.sleep(Duration::from_millis(20));
        time::timeout(LONG, poll_fn(|cx| watch.poll(cx)))
            .await
            .unwrap();
        assert!(late.now_or_never().is_some());
        let again = poll_fn(|cx| Poll::Ready(watch.poll(cx).is_ready())).await;
        assert!(!again, "once is enough");
    }
}
