//! A socket of the machine for the datagrams of one guest's socket, and to whom it has sent.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    buffer::spare_capacity,
    net::{RecvFlags, SendFlags, connect, recvfrom, send, sendto},
};
use tokio::{io::Interest, net::UdpSocket, sync::OwnedSemaphorePermit};

use super::{
    super::{inbox::Datagram, loopback::Family},
    MAX_DATAGRAM,
};

/// Peers outside whose datagrams a socket receives; the one that it sent to the longest time ago is forgotten for a further one.
const MAX_PEERS: usize = 64;

/// Datagrams of strangers that are thrown away at a time, before others have their turn.
const MAX_STRANGERS: usize = 64;

/// What has come.
pub(super) enum Arrival {
    Peer(Datagram),
    Nothing,
    /// Only what nobody waits for, and there may be more of it.
    Strangers,
}

/// A datagram, or that an earlier one was refused, which the system does not count as something to read.
const COMES: Interest = Interest::READABLE.add(Interest::ERROR);

/// A socket of the machine.
pub(super) struct Outside {
    pub socket: UdpSocket,
    peers: Mutex<Peers>,
    _permit: OwnedSemaphorePermit,
}

/// To whom a socket of the machine has sent.
#[derive(Default)]
struct Peers {
    /// Real addresses, and what the guest calls them; oldest first.
    known: VecDeque<(SocketAddr, SocketAddr)>,
    /// There is one, and the system knows which.
    connected: bool,
}

impl Outside {
    /// A socket at a port that the system chooses.
    ///
    /// # Errors
    /// The system's.
    pub fn new(family: Family, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        let any: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            peers: Mutex::default(),
            _permit: permit,
        })
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A datagram goes to a peer, which may answer from now on.
    pub fn know(&self, real: SocketAddr, name: SocketAddr) {
        self.peers().know(real, name);
    }

    pub fn is_connected(&self) -> bool {
        self.peers().connected
    }

    /// Has one peer from now on. To be called once: the system keeps the address of its own that it has chosen for the first.
    pub fn connect(&self, real: SocketAddr, name: SocketAddr) -> io::Result<()> {
        let mut peers = self.peers();
        connect(&self.socket, &real)?;
        *peers = Peers {
            known: [(real, name)].into(),
            connected: true,
        };
        Ok(())
    }

    /// Sends to a peer, if there is room. Not Tokio's way, which takes a new socket for one without room until it has heard of it.
    pub fn try_send(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        let peers = self.peers();
        if !peers.connected {
            sendto(&self.socket, data, SendFlags::DONTWAIT, &to)?;
        } else if peers.name(to).is_some() {
            send(&self.socket, data, SendFlags::DONTWAIT)?;
        } else {
            // It was connected while this waited for room.
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    /// Sends to a peer.
    pub async fn send(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.try_send(data, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let again = || self.try_send(data, to);
                self.socket.async_io(Interest::WRITABLE, again).await
            }
            result => result,
        }
    }

    /// Ready when something may have come.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.ready(COMES).await.map(drop)
    }

    /// What a peer has sent, if anything has come.
    pub fn try_receive(&self) -> io::Result<Arrival> {
        let mut data = Vec::new();
        for _ in 0..MAX_STRANGERS {
            data.clear();
            let mut receive = || {
                data.reserve(MAX_DATAGRAM);
                let buffer = spare_capacity(&mut data);
                let (_, _, from) = recvfrom(&self.socket, buffer, RecvFlags::DONTWAIT)?;
                Ok(from.and_then(|from| SocketAddr::try_from(from).ok()))
            };
            // One after the other: Tokio tries nothing for both at once.
            let received = self.socket.try_io(Interest::READABLE, &mut receive);
            let received = match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.try_io(Interest::ERROR, receive)
                }
                received => received,
            };
            let from = match received {
                Ok(from) => from,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Arrival::Nothing);
                }
                Err(error) => return Err(error),
            };
            if let Some(from) = from.and_then(|from| self.peers().name(from)) {
                data.shrink_to_fit();
                return Ok(Arrival::Peer(Datagram { data, from }));
            }
        }
        Ok(Arrival::Strangers)
    }
}

impl Peers {
    fn know(&mut self, real: SocketAddr, name: SocketAddr) {
        if self.connected {
            return;
        }
        let index = self.known.iter().position(|(known, _)| *known == real);
        if let Some(index) = index {
            self.known.remove(index);
        } else if self.known.len() >= MAX_PEERS {
            self.known.pop_front();
        }
        self.known.push_back((real, name));
    }

    /// What the guest calls a peer; none if it is a stranger.
    fn name(&self, real: SocketAddr) -> Option<SocketAddr> {
        let real = SocketAddr::new(real.ip().to_canonical(), real.port());
        let mut known = self.known.iter();
        known
            .find(|(known, _)| *known == real)
            .map(|(_, name)| *name)
    }
}
