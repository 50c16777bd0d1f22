//! Two lanes: a guest that outlives its first time slice moves to threads of low priority, so that the short requests of its
//! thread do not queue behind it for a slice each time that it comes round.
//!
//! Every guest begins on the thread of its connection, which is where most end, without a hand-over. What it waits for stays
//! where it is: sockets and timers wake it wherever it runs.

use std::{
    cell::Cell,
    future::{self, Future},
    io, mem,
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tokio::{
    runtime::{self, Handle, Runtime},
    task::JoinHandle,
};

/// How nice the slow lane is. The system then gives a thread that wakes for a short request the core at once; and a guest
/// with much to do still gets about a tenth of a core that others keep busy.
const NICE: i32 = 10;

thread_local! {
    static SLICE_OVER: Cell<bool> = const { Cell::new(false) };
}

/// The guest that runs on this thread has used up a time slice.
pub(in crate::plugin) fn slice_is_over() {
    SLICE_OVER.set(true);
}

/// The threads of guests that take long.
pub(super) struct SlowLane(Option<Runtime>);

/// A guest's task.
pub(super) enum Laned {
    /// On the thread of its connection.
    Fast(BoxFuture<'static, ()>, Option<Handle>),
    /// In the slow lane.
    Slow(Moved),
}

/// A task elsewhere; dropping it ends that.
pub(super) struct Moved(JoinHandle<()>);

impl SlowLane {
    /// As many threads as there are for short requests.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(threads.get())
            .thread_name("washlet-slow")
            .enable_all()
            .on_thread_start(|| {
                // On Linux this is about the thread. That it fails (it cannot, for a lower priority) would only cost fairness.
                let _ = rustix::process::setpriority_process(None, NICE);
            })
            .build()?;
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

impl Laned {
    /// A task that moves to the slow lane, if there is one, when it takes long.
    pub fn new(task: impl Future<Output = ()> + Send + 'static, slow: Option<Handle>) -> Self {
        Self::Fast(Box::pin(task), slow)
    }
}

impl Future for Laned {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Fast(task, slow) = &mut *self {
            SLICE_OVER.set(false);
            if task.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(slow) = slow.as_ref().filter(|_| SLICE_OVER.get()) else {
                return Poll::Pending;
            };
            let task = mem::replace(task, Box::pin(future::ready(())));
            *self = Self::Slow(Moved(slow.spawn(task)));
        }
        match &mut *self {
            // A panic in it has told whoever waits already, as the unwinding dropped what they share.
            Self::Slow(Moved(task)) => Pin::new(task).poll(cx).map(drop),
            Self::Fast(..) => Poll::Pending,
        }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Tells on which threads it runs before and after its slice is over.
    async fn slow(names: mpsc::Sender<String>) {
        names.send(name()).unwrap();
        slice_is_over();
        tokio::task::yield_now().await;
        names.send(name()).unwrap();
    }

    #[tokio::test]
    async fn who_takes_long_moves() {
        let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
        let (sender, names) = mpsc::channel();
        let here = name();
        tokio::spawn(Laned::new(slow(sender), lane.handle()))
            .await
            .unwrap();
        assert_eq!(names.recv().unwrap(), here);
        assert_eq!(names.recv().unwrap(), "washlet-slow");
    }

    #[tokio::test]
    async fn who_waits_stays() {
        let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
        let (sender, names) = mpsc::channel();
        let here = name();
        // Another guest of this thread had a long slice before.
        slice_is_over();
        let task = async move {
            tokio::task::yield_now().await;
            sender.send(name()).unwrap();
        };
        tokio::spawn(Laned::new(task, lane.handle())).await.unwrap();
        assert_eq!(names.recv().unwrap(), here);
    }

    #[tokio::test]
    async fn dropping_the_task_ends_it_in_the_slow_lane_too() {
        struct Tell(mpsc::Sender<()>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
        let (sender, dropped) = mpsc::channel();
        let tell = Tell(sender);
        let task = tokio::spawn(Laned::new(
            async move {
                let _tell = tell;
                slice_is_over();
                future::pending::<()>().await;
            },
            lane.handle(),
        ));
        tokio::task::yield_now().await;
        task.abort();
        tokio::task::spawn_blocking(move || dropped.recv())
            .await
            .unwrap()
            .unwrap();
    }
}
