//! Single flight: who wants what is already on its way waits for that instead of asking again.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

/// Work under way, by key.
///
/// # Guarantees
/// At most one piece of work runs for a key. It runs as long as somebody waits for it: when the last waiter is dropped, so is
/// the work. All waiters get its result.
pub(crate) struct Flights<K, T: Clone>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>);

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Who did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The caller began it.
    Began,
    /// It was under way.
    Joined,
}

impl<K: Eq + Hash, T: Clone> Flights<K, T> {
    /// Waits for the work of `key`, which `begin` makes if none is under way.
    pub(crate) async fn run(
        &self,
        key: K,
        begin: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> (Part, T) {
        let (part, work) = self.join(key, begin);
        (part, work.await)
    }

    fn join(
        &self,
        key: K,
        begin: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> (Part, Shared<BoxFuture<'static, T>>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Work that ended without a waiter left, or with one that has not been dropped yet, is not joined.
        let under_way = flights
            .get(&key)
            .and_then(WeakShared::upgrade)
            .filter(|work| work.peek().is_none());
        if let Some(work) = under_way {
            return (Part::Joined, work);
        }
        flights.retain(|_, work| work.upgrade().is_some());
        let work = begin().shared();
        if let Some(weak) = work.downgrade() {
            flights.insert(key, weak);
        }
        (Part::Began, work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::poll;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn waiters_share_one_result() {
        let flights = Flights::<&str, usize>::default();
        let begun = AtomicUsize::new(0);
        let (done, wait) = oneshot::channel();
        let begin = || {
            begun.fetch_add(1, Ordering::SeqCst);
            async { wait.await.unwrap_or(0) }.boxed()
        };
        let mut first = Box::pin(flights.run("a", begin));
        assert!(poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.run("a", || panic!("begun twice")));
        assert!(poll!(&mut second).is_pending());
        let other = flights.run("b", || async { 2 }.boxed()).await;
        assert_eq!(other, (Part::Began, 2));
        // The first waiter leaves; the work goes on for the second.
        drop(first);
        done.send(7).expect("still waited for");
        assert_eq!(second.await, (Part::Joined, 7));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // What is over is not joined.
        assert_eq!(
            flights.run("a", || async { 8 }.boxed()).await,
            (Part::Began, 8)
        );
    }

    #[tokio::test]
    async fn the_last_waiter_takes_the_work_along() {
        let flights = Flights::<&str, ()>::default();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let mut only = Box::pin(flights.run("a", || {
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
            .boxed()
        }));
        assert!(poll!(&mut only).is_pending());
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(only);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
