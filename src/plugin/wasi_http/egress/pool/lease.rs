//! What a call gets of the pool: a connection for itself, or a share of one.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::client::conn::{http1, http2};
use tokio::{runtime, task::AbortHandle, time::Instant};

use super::{Key, Pool};
use crate::plugin::wasi_http::egress::body::Outgoing;

/// A connection of HTTP/1.1 that nobody else uses. Dropping it closes it.
pub(in super::super) struct Http1 {
    pub key: Key,
    pub address: IpAddr,
    pub sender: http1::SendRequest<Outgoing>,
    pub driver: AbortHandle,
}

/// A connection of HTTP/2, for any number of calls.
pub(in super::super) struct Http2 {
    pub key: Key,
    pub address: IpAddr,
    pub sender: http2::SendRequest<Outgoing>,
    pub driver: AbortHandle,
    pub(super) streams: AtomicUsize,
    /// When the last call ended; meaningless while there are some.
    pub(super) since: Mutex<Instant>,
}

/// A call's share of a connection of HTTP/2.
pub(in super::super) struct Stream {
    pub connection: Arc<Http2>,
    pub(super) pool: Arc<Pool>,
}

/// A connection for one call.
pub(in super::super) enum Lease {
    Http1(Http1),
    Http2(Stream),
}

/// What a shared connection is made of.
pub(in super::super) struct Http2Parts {
    pub key: Key,
    pub address: IpAddr,
    pub sender: http2::SendRequest<Outgoing>,
    pub driver: AbortHandle,
}

impl Http2 {
    pub(super) fn is_unused(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }

    pub(super) fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if self.connection.streams.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let mut since = self
            .connection
            .since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *since = Instant::now();
        if !state.closed && runtime::Handle::try_current().is_ok() {
            self.pool.reap_later(&mut state);
        }
        drop(state);
        self.pool.budget.freed();
    }
}
