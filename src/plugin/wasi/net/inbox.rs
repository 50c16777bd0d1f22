//! Datagrams within one workload: who has a port of its loopback, and what has come there and not been received yet.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, Semaphore, futures::Notified};
use wasmtime_wasi::sockets::ErrorCode;

use super::loopback::{Family, Loopback};

/// Bytes that wait at a port, each datagram with some more for itself; what comes beyond is lost, as it is on a network.
pub(super) const CAPACITY: usize = 256 << 10;

/// The same for all ports of a workload together, which is the host's memory and nobody's grant.
pub(super) const TOTAL: usize = 8 << 20;

/// What a datagram counts beyond its data, in bytes: many empty ones are something, too.
const OVERHEAD: usize = 512;

/// A datagram that was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub data: Vec<u8>,
    pub from: SocketAddr,
}

/// A port that is taken for as long as this lives, and what has come there.
pub(super) struct Inbox {
    loopback: Arc<Loopback>,
    family: Family,
    port: u16,
    queue: Arc<Queue>,
}

/// What waits at a port.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    /// Room for what waits at all ports, in bytes.
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<Datagram>,
    size: usize,
}

impl Inbox {
    /// Takes a port; 0 is any that is free.
    ///
    /// # Errors
    /// `AddressInUse`.
    pub fn open(loopback: &Arc<Loopback>, family: Family, port: u16) -> Result<Self, ErrorCode> {
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            changed: Notify::new(),
            room: loopback.room(),
        });
        let port = loopback.inboxes().take(family, port, queue.clone())?;
        Ok(Self {
            loopback: loopback.clone(),
            family,
            port,
            queue,
        })
    }

    /// The address that the guest sees.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.family.localhost(), self.port)
    }

    /// Sends a datagram from here to a port of the same workload. False if nobody has it.
    pub fn send(&self, data: &[u8], to: SocketAddr) -> bool {
        let owner = {
            let inboxes = self.loopback.inboxes();
            inboxes.owner(Family::of(to.ip()), to.port()).cloned()
        };
        let Some(queue) = owner else {
            return false;
        };
        queue.put(data, self.address());
        true
    }

    /// The oldest of what waits.
    pub fn take(&self) -> Option<Datagram> {
        let mut waiting = self.queue.waiting();
        let datagram = waiting.datagrams.pop_front()?;
        self.queue.forget(&mut waiting, datagram.data.len());
        Some(datagram)
    }

    /// Ready when something has come since this was enabled, or [`Inbox::wake`] was called.
    pub fn changed(&self) -> Notified<'_> {
        self.queue.changed.notified()
    }

    /// Lets all who wait look again.
    pub fn wake(&self) {
        self.queue.changed.notify_waiters();
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.loopback.inboxes().give_back(self.family, self.port);
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, data: &[u8], from: SocketAddr) {
        let mut waiting = self.waiting();
        let size = data.len() + OVERHEAD;
        if waiting.size + size > CAPACITY {
            return;
        }
        let Some(room) = u32::try_from(size)
            .ok()
            .and_then(|size| self.room.try_acquire_many(size).ok())
        else {
            return;
        };
        // Given back when it is taken.
        room.forget();
        waiting.size += size;
        waiting.datagrams.push_back(Datagram {
            data: data.to_vec(),
            from,
        });
        drop(waiting);
        self.changed.notify_waiters();
    }

    fn forget(&self, waiting: &mut Waiting, length: usize) {
        waiting.size -= length + OVERHEAD;
        self.room.add_permits(length + OVERHEAD);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let waiting = self.waiting().size;
        self.room.add_permits(waiting);
    }
}
