//! The two halves of a connection, whether it stays within the workload or leaves the host.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::ready;
use rustix::net::{Shutdown, shutdown};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use wasmtime_wasi::sockets::ErrorCode;

use super::{loopback::Lease, pipe};

/// A connection that has been made.
pub(super) struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub read: ReadHalf,
    pub write: WriteHalf,
    /// The port of who connected, within the workload.
    pub lease: Option<Arc<Lease>>,
}

/// A connection that left the host.
pub(super) struct Outside {
    pub stream: TcpStream,
    /// Its part of what the workload may have open.
    pub _permit: OwnedSemaphorePermit,
}

/// Where bytes come from. Dropping it is the end of reading.
pub(super) enum ReadHalf {
    Pipe(pipe::Reader),
    Outside(Arc<Outside>),
}

/// Where bytes go to. Dropping it is the end of what the other side reads.
pub(super) enum WriteHalf {
    Pipe(pipe::Writer),
    Outside(Arc<Outside>),
}

impl Connection {
    /// A connection to an address outside of the workload.
    ///
    /// # Errors
    /// When the other side has gone already.
    pub fn outside(outside: Arc<Outside>) -> Result<Self, ErrorCode> {
        Ok(Self {
            local: outside.stream.local_addr()?,
            remote: outside.stream.peer_addr()?,
            read: ReadHalf::Outside(outside.clone()),
            write: WriteHalf::Outside(outside),
            lease: None,
        })
    }
}

impl ReadHalf {
    /// Takes what there is; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` while there is nothing, and what the connection died of.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(reader) => reader.try_read(into),
            Self::Outside(outside) => outside.stream.try_read(into),
        }
    }

    /// Ready when a read may do something. Wakes who polled last.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Pipe(reader) => reader.poll_ready(context),
            // What is wrong with it is told by the read.
            Self::Outside(outside) => outside.stream.poll_read_ready(context).map(drop),
        }
    }

    /// Waits for bytes and takes them; 0 is the end.
    pub fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_ready(context));
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

impl WriteHalf {
    /// Puts in what fits.
    ///
    /// # Errors
    /// `WouldBlock` while nothing does, and what the connection died of.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(writer) => writer.try_write(bytes),
            Self::Outside(outside) => outside.stream.try_write(bytes),
        }
    }

    /// Ready when a write may do something. Wakes who polled last.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Pipe(writer) => writer.poll_ready(context),
            Self::Outside(outside) => outside.stream.poll_write_ready(context).map(drop),
        }
    }

    /// Waits for room and puts in what fits.
    pub fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_ready(context));
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        if let Self::Outside(outside) = self {
            // Nothing is lost when it fails: then it is closed already.
            let _ = shutdown(&outside.stream, Shutdown::Read);
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let Self::Outside(outside) = self {
            let _ = shutdown(&outside.stream, Shutdown::Write);
        }
    }
}
