//! The connections of one generation of a workload: kept for the next call, and never more than its share.
//!
//! A connection is driven by a task of the runtime that opened it and is used again only there: each HTTP worker has a runtime
//! of one thread, so a call and its connection stay on that thread. (Measured over loopback on a busy machine of two processors:
//! a call over another runtime's connection takes 1.5 to 3 times as long, 187 to 215 µs for 74 to 137 µs; a test that is
//! ignored measures it.) What belongs to the whole workload, its [budget], is shared by all its threads and generations. A thread that ends
//! takes its connections along; they count as closed then and are not used again.
//!
//! hyper-util's pooled client would not do: it knows connections by name alone, but whether a connection may be used depends on
//! the address that it leads to, which the rules of one component may open and those of its neighbour not; it cannot close
//! an idle connection to make room for another one; and its time to connect is the same for all requests.

mod budget;
mod lease;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, client::Resumption};
use tokio::{
    runtime,
    sync::{OnceCell, watch},
    time::{self, Instant},
};

use super::{outside::Outside, target::Target};

pub(in super::super) use budget::Budget;
pub(super) use {
    budget::Place,
    lease::{Http1, Http2, Http2Parts, Lease, Stream},
};

/// Time after which a connection that nobody uses is closed: less than most servers wait, so that they seldom close first.
const IDLE: Duration = Duration::from_secs(30);

/// Connections that may be idle; of more, the oldest are closed.
const MAX_IDLE: usize = 64;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub tls: bool,
    /// For HTTP/2 alone. Other calls have connections of their own, whatever these turned out to speak.
    pub http2: bool,
    /// As in a URL, in lower case.
    pub host: String,
    pub port: u16,
    /// Who drives it.
    runtime: runtime::Id,
}

/// The connections of one generation of a workload. Closed when the generation ends.
pub(in super::super) struct Pool {
    pub outside: Outside,
    pub budget: Arc<Budget>,
    tls: OnceCell<Arc<ClientConfig>>,
    state: Mutex<State>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    closed: bool,
    reaping: bool,
    /// The oldest first.
    idle: Vec<(Instant, Http1)>,
    shared: Vec<Arc<Http2>>,
}

/// What there is for a call.
pub(super) enum Room {
    /// A connection that is open.
    Connection(Lease),
    /// A place for a new one.
    Place(Place),
}

/// The workload's generation has ended.
#[derive(Debug)]
pub(super) struct Closed;

impl Key {
    /// For a connection that this thread's runtime drives. Must be called within one.
    pub fn new(target: &Target, http2: bool) -> Self {
        Self {
            tls: target.tls,
            http2,
            host: target.host.to_ascii_lowercase(),
            port: target.port,
            runtime: runtime::Handle::current().id(),
        }
    }
}

impl Pool {
    pub fn new(outside: &Outside, budget: &Arc<Budget>) -> Arc<Self> {
        let pool = Arc::new(Self {
            outside: outside.clone(),
            budget: budget.clone(),
            tls: OnceCell::new(),
            state: Mutex::default(),
            closing: watch::Sender::new(false),
        });
        budget.join(&pool);
        pool
    }

    /// Closes what has been idle for too long, as if it were that late.
    #[cfg(test)]
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        self.lock().expire(now)
    }

    /// Connections of the workload that are open or being opened.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.budget.open()
    }

    /// Closes all connections, and opens no more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
        state.shared.clear();
        drop(state);
        self.closing.send_replace(true);
        self.budget.all_freed();
    }

    /// True once the generation has ended.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The workload's own configuration of TLS: its sessions are resumed by nobody else.
    pub async fn tls(&self) -> std::io::Result<&Arc<ClientConfig>> {
        let own = || async {
            let mut config = self.outside.tls().await?.clone();
            config.resumption = Resumption::in_memory_sessions(MAX_IDLE);
            Ok(Arc::new(config))
        };
        self.tls.get_or_try_init(own).await
    }

    /// Waits for a connection to an address that may be used, or for a place for a new one. An idle connection to elsewhere
    /// gives up its place.
    pub(super) async fn room(
        self: &Arc<Self>,
        key: &Key,
        fresh: bool,
        admits: impl Fn(IpAddr) -> bool,
    ) -> Result<Room, Closed> {
        loop {
            let mut freed = std::pin::pin!(self.budget.next_freed());
            // From here on, so that nothing is missed that comes free in between.
            freed.as_mut().enable();
            if let Some(room) = self.try_room(key, fresh, &admits)? {
                return Ok(room);
            }
            freed.await;
        }
    }

    fn try_room(
        self: &Arc<Self>,
        key: &Key,
        fresh: bool,
        admits: &impl Fn(IpAddr) -> bool,
    ) -> Result<Option<Room>, Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        if !fresh {
            // The one that was used last is the least likely to have been closed by its peer meanwhile.
            let found = state.idle.iter().rposition(|(_, idle)| {
                idle.key == *key && idle.sender.is_ready() && admits(idle.address)
            });
            if let Some(found) = found {
                let (_, connection) = state.idle.remove(found);
                return Ok(Some(Room::Connection(Lease::Http1(connection))));
            }
            if let Some(shared) = state.shared(key, admits) {
                let stream = self.stream(shared);
                return Ok(Some(Room::Connection(Lease::Http2(stream))));
            }
        }
        if let Some(place) = Place::take(self) {
            return Ok(Some(Room::Place(place)));
        }
        // Its place comes free when its task has ended.
        let evicted = state.evict();
        drop(state);
        if !evicted {
            self.budget.evict_elsewhere(self);
        }
        Ok(None)
    }

    /// Closes the connection that has been idle for the longest time, if there is one.
    fn evict(&self) -> bool {
        self.lock().evict()
    }

    /// Keeps a connection for later calls.
    pub(super) fn keep(self: &Arc<Self>, connection: Http1) {
        if connection.sender.is_closed() {
            return;
        }
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.idle.len() >= MAX_IDLE {
            state.idle.remove(0);
        }
        state.idle.push((Instant::now(), connection));
        self.reap_later(&mut state);
        drop(state);
        self.budget.freed();
    }

    /// Lets all calls share a connection. If there is one already, because two calls wanted it at once, that is used and the new
    /// one closed.
    pub(super) fn share(
        self: &Arc<Self>,
        new: Http2Parts,
        admits: impl Fn(IpAddr) -> bool,
    ) -> Stream {
        let mut state = self.lock();
        if let Some(known) = state.shared(&new.key, &admits) {
            let stream = self.stream(known);
            drop(state);
            new.driver.abort();
            return stream;
        }
        let connection = Arc::new(Http2 {
            key: new.key,
            address: new.address,
            sender: new.sender,
            driver: new.driver,
            streams: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
        });
        let stream = self.stream(connection.clone());
        if !state.closed {
            state.shared.push(connection);
            drop(state);
            // Whoever waits for the same host needs no connection of its own.
            self.budget.all_freed();
        }
        stream
    }

    /// Called with the state locked, so that nobody closes it meanwhile for being idle.
    fn stream(self: &Arc<Self>, connection: Arc<Http2>) -> Stream {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Stream {
            connection,
            pool: self.clone(),
        }
    }

    /// Sees to it that idle connections are closed in time. One task for all of them, while there are some.
    fn reap_later(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.reaping, true) {
            let reaper = Reaper {
                pool: Arc::downgrade(self),
                done: false,
            };
            tokio::spawn(reap(reaper, self.closing()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, so what it protects is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shared(&mut self, key: &Key, admits: &impl Fn(IpAddr) -> bool) -> Option<Arc<Http2>> {
        self.shared.retain(|shared| !shared.sender.is_closed());
        let found = self
            .shared
            .iter()
            .find(|s| s.key == *key && admits(s.address));
        found.cloned()
    }

    /// Closes the connection that has been idle for the longest time. One that its server has closed is not meant: its place has
    /// come free already.
    fn evict(&mut self) -> bool {
        self.idle.retain(|(_, idle)| !idle.sender.is_closed());
        self.shared.retain(|shared| !shared.sender.is_closed());
        if !self.idle.is_empty() {
            self.idle.remove(0);
        } else if let Some(unused) = self.shared.iter().position(|s| s.is_unused()) {
            self.shared.remove(unused);
        } else {
            return false;
        }
        true
    }

    /// Closes what has been idle for too long; says when to look again.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        let old = |since: Instant| now.saturating_duration_since(since) >= IDLE;
        self.idle
            .retain(|(since, idle)| !old(*since) && !idle.sender.is_closed());
        self.shared
            .retain(|s| !(s.sender.is_closed() || s.is_unused() && old(s.since())));
        let unused = self
            .shared
            .iter()
            .filter(|s| s.is_unused())
            .map(|s| s.since());
        let idle = self.idle.iter().map(|(since, _)| *since);
        idle.chain(unused).min().map(|since| since + IDLE)
    }
}

/// While it lives, idle connections are looked after.
struct Reaper {
    pool: Weak<Pool>,
    done: bool,
}

async fn reap(mut reaper: Reaper, mut closing: watch::Receiver<bool>) {
    let mut due = Instant::now() + IDLE;
    loop {
        tokio::select! {
            // An error means that the pool is gone.
            _ = closing.wait_for(|closing| *closing) => return,
            () = time::sleep_until(due) => {}
        }
        let Some(pool) = reaper.pool.upgrade() else {
            return;
        };
        let mut state = pool.lock();
        let Some(next) = state.expire(Instant::now()) else {
            // Said while it is locked; afterwards somebody else may have begun.
            state.reaping = false;
            reaper.done = true;
            return;
        };
        due = next;
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // Its runtime has ended before it; the next one that needs it begins anew.
        if !self.done
            && let Some(pool) = self.pool.upgrade()
        {
            pool.lock().reaping = false;
        }
    }
}
