//! How many instances there may be at a time, and who waits until there may be one more.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
};

use tokio::sync::{Notify, futures::Notified};

/// Room for a number of instances: of an engine, or of a workload within it.
#[derive(Debug)]
pub struct Room {
    limit: u32,
    used: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
    keepers: Mutex<Vec<Weak<dyn Keeper>>>,
}

/// Who keeps instances that nobody uses at the moment, in case that somebody will.
pub trait Keeper: Send + Sync {
    /// Gives up one that it need not keep, whose place comes free by that, or soon. False if it has none.
    fn give_up_one(&self) -> bool;
}

/// The room that one instance takes; dropping it frees the room.
#[derive(Debug)]
pub struct Place(Option<Arc<Room>>);

/// Counts somebody who waits.
struct Waiting<'a>(&'a Room);

impl Room {
    /// Room for `limit` instances.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self {
            limit,
            used: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            freed: Notify::const_new(),
            keepers: Mutex::new(Vec::new()),
        }
    }

    /// Has a keeper asked when somebody needs a place and there is none.
    pub fn add_keeper(&self, keeper: Weak<dyn Keeper>) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// Has one of the keepers give up an instance. False if there is none.
    #[must_use]
    pub fn make_room(&self) -> bool {
        let keepers: Vec<Arc<dyn Keeper>> = {
            let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
            // In turn, so that it is not always the same one that loses.
            if !keepers.is_empty() {
                keepers.rotate_left(1);
            }
            keepers.iter().filter_map(Weak::upgrade).collect()
        };
        // Not under the lock: it unmaps memory.
        keepers.iter().any(|keeper| keeper.give_up_one())
    }

    /// Somebody keeps an instance from now on. If there is no place, one of those who wait for one may ask for it.
    pub fn offer(&self) {
        if self.waiting() > 0 && self.used() >= self.limit {
            self.wake_one();
        }
    }

    /// Takes a place, if there is one.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>) -> Option<Place> {
        if self.used.fetch_add(1, Ordering::AcqRel) < self.limit {
            Some(Place(Some(self.clone())))
        } else {
            self.used.fetch_sub(1, Ordering::AcqRel);
            None
        }
    }

    /// Takes a place in a workload's room and one in its engine's.
    ///
    /// # Errors
    /// The room that was full.
    pub fn enter_both(own: &Arc<Self>, engine: &Arc<Self>) -> Result<(Place, Place), Full> {
        let place = own.try_enter().ok_or(Full::Workload)?;
        match engine.try_enter() {
            Some(of_engine) => Ok((place, of_engine)),
            None => {
                place.leave_quietly();
                Err(Full::Engine)
            }
        }
    }

    /// Most instances at a time.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Instances that there are.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed).min(self.limit)
    }

    /// How many wait for a place.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tells one of those who wait to look again.
    pub fn wake_one(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.freed.notify_one();
        }
    }

    /// Waits for a place. Bounding the time is the caller's affair.
    pub async fn enter(self: &Arc<Self>) -> Place {
        let _waiting = self.queue(u32::MAX);
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(place) = self.try_enter() {
                return place;
            }
            if self.make_room()
                && let Some(place) = self.try_enter()
            {
                return place;
            }
            freed.await;
        }
    }

    /// Waits, with at most `others` before it, until `attempt` succeeds; none if too many wait already. An attempt that fails
    /// says which room was full. Bounding the time is the caller's affair.
    pub async fn wait_for<T>(
        &self,
        outer: &Self,
        others: u32,
        mut attempt: impl FnMut() -> Result<T, Full>,
    ) -> Option<T> {
        let _waiting = self.queue(others)?;
        let _outer = outer.queue(u32::MAX)?;
        // Whether the last word came from the engine: one of its places may be free.
        let mut told = false;
        loop {
            // Before the attempt, or what is freed in between would not be noticed.
            let mut own = pin!(self.freed.notified());
            let mut engine = pin!(Some(outer.freed.notified()));
            own.as_mut().enable();
            if let Some(engine) = engine.as_mut().as_pin_mut() {
                engine.enable();
            }
            match attempt() {
                Ok(got) => return Some(got),
                Err(Full::Workload) => {
                    // A place of the engine is of no use here. Dropped, it leaves the word to another workload.
                    engine.set(None);
                    if told {
                        outer.wake_one();
                    }
                    own.await;
                    told = false;
                }
                Err(Full::Engine) => told = either(own, engine.as_pin_mut()).await,
            }
        }
    }

    fn queue(&self, others: u32) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(self);
        (before < others).then_some(waiting)
    }
}

/// Which room was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The workload's own.
    Workload,
    /// The engine's, which all workloads share.
    Engine,
}

/// Ready when either is; true if that is the second.
async fn either(
    mut first: Pin<&mut Notified<'_>>,
    mut second: Option<Pin<&mut Notified<'_>>>,
) -> bool {
    poll_fn(|cx| {
        if first.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        match &mut second {
            Some(second) => second.as_mut().poll(cx).map(|()| true),
            None => Poll::Pending,
        }
    })
    .await
}

impl Place {
    /// Frees the room, and wakes nobody: whoever waited would find it as it was, and wake others in turn, for ever.
    fn leave_quietly(mut self) {
        if let Some(room) = self.0.take() {
            room.used.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = &self.0 {
            room.used.fetch_sub(1, Ordering::AcqRel);
            room.wake_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        // For a moment it may have stood in the way of another one, see [`Place::leave_quietly`].
        self.0.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn attempt(own: &Arc<Room>, engine: &Arc<Room>) -> Result<(Place, Place), Full> {
        Room::enter_both(own, engine)
    }

    #[test]
    fn there_are_as_many_places_as_the_limit_says() {
        let room = Arc::new(Room::new(2));
        let first = room.try_enter().unwrap();
        let _second = room.try_enter().unwrap();
        assert!(room.try_enter().is_none());
        assert_eq!(room.used(), 2);
        drop(first);
        assert!(room.try_enter().is_some());
    }

    #[test]
    fn whoever_waits_gets_what_is_freed() {
        let (own, engine) = (Arc::new(Room::new(1)), Arc::new(Room::new(2)));
        let held = own.try_enter().unwrap();
        let mut first = Box::pin(own.wait_for(&engine, 1, || attempt(&own, &engine)));
        assert!(first.as_mut().now_or_never().is_none());
        // One waits already, and no more may.
        let second = own.wait_for(&engine, 1, || attempt(&own, &engine));
        assert!(second.now_or_never().unwrap().is_none());
        drop(held);
        assert!(first.as_mut().now_or_never().unwrap().is_some());
    }

    /// Keeps one instance.
    struct Keeps(Mutex<Option<Place>>);

    impl Keeper for Keeps {
        fn give_up_one(&self) -> bool {
            self.0.lock().unwrap().take().is_some()
        }
    }

    #[test]
    fn what_somebody_keeps_is_for_whoever_needs_a_place() {
        let engine = Arc::new(Room::new(2));
        let keepers = [(); 2].map(|()| Arc::new(Keeps(Mutex::new(engine.try_enter()))));
        for keeper in &keepers {
            let keeper: Weak<Keeps> = Arc::downgrade(keeper);
            engine.add_keeper(keeper);
        }
        let [gone, left] = keepers;
        let other = gone.0.lock().unwrap().take();
        drop(gone);
        let entered = engine.enter().now_or_never().unwrap();
        assert!(left.0.lock().unwrap().is_none());
        assert!(!engine.make_room());

        // One that is kept only later.
        let mut enters = Box::pin(engine.enter());
        assert!(enters.as_mut().now_or_never().is_none());
        *left.0.lock().unwrap() = Some(entered);
        engine.offer();
        assert!(enters.as_mut().now_or_never().is_some());
        drop(other);
    }

    #[test]
    fn whoever_needs_only_the_engine_waits_for_that() {
        let engine = Arc::new(Room::new(1));
        let held = engine.try_enter().unwrap();
        let mut enters = Box::pin(engine.enter());
        assert!(enters.as_mut().now_or_never().is_none());
        drop(held);
        assert!(enters.as_mut().now_or_never().is_some());
        assert_eq!((engine.used(), engine.waiting()), (0, 0));
    }

    #[test]
    fn a_full_engine_wakes_its_workloads_when_a_neighbour_leaves() {
        let (own, engine) = (Arc::new(Room::new(8)), Arc::new(Room::new(1)));
        let neighbour = engine.try_enter().unwrap();
        let mut wait = Box::pin(own.wait_for(&engine, 8, || attempt(&own, &engine)));
        assert!(wait.as_mut().now_or_never().is_none());
        drop(neighbour);
        let places = wait.as_mut().now_or_never().unwrap();
        assert_eq!((own.used(), engine.used()), (1, 1));
        drop(places);
        assert_eq!((own.used(), engine.used()), (0, 0));
    }

    #[test]
    fn who_gives_up_waiting_leaves_its_turn_to_the_next() {
        let (own, engine) = (Arc::new(Room::new(1)), Arc::new(Room::new(8)));
        let held = own.try_enter().unwrap();
        let mut first = Box::pin(own.wait_for(&engine, 8, || attempt(&own, &engine)));
        let mut second = Box::pin(own.wait_for(&engine, 8, || attempt(&own, &engine)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        drop(first);
        assert!(second.as_mut().now_or_never().unwrap().is_some());
    }

    #[test]
    fn a_workload_at_its_own_limit_leaves_the_engines_place_to_others() {
        let rooms = [2, 8].map(|limit| Arc::new(Room::new(limit)));
        let [own, other] = &rooms;
        let engine = Arc::new(Room::new(4));
        let wait = |room: &Arc<Room>| {
            let (room, engine) = (room.clone(), engine.clone());
            Box::pin(async move {
                let attempt = || attempt(&room, &engine);
                room.wait_for(&engine, 8, attempt).await
            })
        };
        let mut held: Vec<_> = std::iter::from_fn(|| engine.try_enter()).collect();
        let at_limit = [(); 2].map(|()| own.try_enter().unwrap());
        let mut first = wait(own);
        let mut elsewhere = wait(other);
        assert!(first.as_mut().now_or_never().is_none());
        assert!(elsewhere.as_mut().now_or_never().is_none());
        held.pop();
        assert!(elsewhere.as_mut().now_or_never().is_some());

        // They waited for the engine, and while they were told, others took the last places of their own.
        drop(at_limit);
        held.extend(engine.try_enter());
        let mut waits = [wait(own), wait(own), wait(other)];
        for wait in [&mut first].into_iter().chain(&mut waits) {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let _at_limit = [(); 2].map(|()| own.try_enter().unwrap());
        held.pop();
        assert!(first.as_mut().now_or_never().is_none());
        for wait in &mut waits[..2] {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let [.., elsewhere] = &mut waits;
        assert!(elsewhere.as_mut().now_or_never().is_some());
    }
}
