//! A UDP socket of a guest, for every version of `wasi:sockets`: what may follow what, and where datagrams lead.
//!
//! It has a port of the workload's loopback. When it first sends to an address outside, it gets a socket of the machine as well,
//! at a port that the system chooses; of what comes there, the guest receives what its own peers have sent, and nobody else.

mod outside;

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::net::sockopt;
use tokio::{net, sync::OwnedSemaphorePermit, task};
use wasmtime_wasi::sockets::ErrorCode;

use self::outside::{Arrival, Outside};
use super::{
    Grants, Instance,
    inbox::{Datagram, Inbox},
    loopback::Family,
    policy::Route,
};
use crate::spec::Protocol;

/// Largest datagram, in bytes: what IPv4 and IPv6 have room for.
const MAX_DATAGRAM_4: usize = 65_507;
const MAX_DATAGRAM: usize = 65_527;

/// A socket, in whatever state.
pub(super) struct UdpSocket {
    pub family: Family,
    state: Mutex<State>,
    grants: Arc<Grants>,
    /// Its part of what the workload may have open.
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    inbox: Option<Arc<Inbox>>,
    outside: Option<Arc<Outside>>,
    /// The only one that it talks with.
    peer: Option<Peer>,
    options: Options,
}

/// To whom datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// As the guest calls it.
    address: SocketAddr,
    route: Route,
}

/// What a guest can set. The sizes of buffers are hints; they are kept, and read as they were written.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub hop_limit: u8,
    pub receive_buffer: u64,
    pub send_buffer: u64,
}

/// From where datagrams come, and from whom alone.
type Sources = (Arc<Inbox>, Option<Arc<Outside>>, Option<Peer>);

impl Default for Options {
    fn default() -> Self {
        Self {
            hop_limit: 64,
            receive_buffer: super::inbox::CAPACITY as u64,
            send_buffer: super::inbox::CAPACITY as u64,
        }
    }
}

impl UdpSocket {
    /// A new socket.
    ///
    /// # Errors
    /// `None` if the workload has too many already.
    pub fn new(grants: &Arc<Grants>, family: Family) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            family,
            state: Mutex::default(),
            _permit: grants.network.socket()?,
            grants: grants.clone(),
        }))
    }

    /// Binds to a port of the workload's loopback.
    ///
    /// # Errors
    /// `AccessDenied` for a component that asks for a certain port, and for an address that is not the workload's own.
    pub fn bind(&self, address: SocketAddr) -> Result<(), ErrorCode> {
        let mut state = self.state();
        if state.inbox.is_some() {
            return Err(ErrorCode::InvalidState);
        }
        if !self.fits(address) || address.ip().is_multicast() {
            return Err(ErrorCode::InvalidArgument);
        }
        self.grants.bind(Protocol::Udp, address)?;
        self.open(&mut state, address.port()).map(drop)
    }

    /// Talks with one peer from now on, at a port that nobody chose if it has none yet. Sends nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no address to send to, `AccessDenied` for one that the component may not reach.
    pub fn connect(&self, instance: &Instance, address: SocketAddr) -> Result<(), ErrorCode> {
        let peer = self.judge(instance, address)?;
        let mut state = self.state();
        let inbox = self.open(&mut state, 0)?;
        // Whoever was a peer before is one no more.
        match peer.route {
            Route::Loopback => state.outside = None,
            Route::Outside(real) => {
                let former = state.outside.clone().filter(|o| !o.is_connected());
                let outside = match former {
                    Some(outside) => outside,
                    None => self.outside(&state.options)?,
                };
                outside.connect(real, peer.address)?;
                state.outside = Some(outside);
            }
        }
        state.peer = Some(peer);
        inbox.wake();
        Ok(())
    }

    /// Talks with whomever it may again.
    ///
    /// # Errors
    /// `InvalidState` if it is not connected.
    pub fn disconnect(&self) -> Result<(), ErrorCode> {
        let mut state = self.state();
        if state.peer.take().is_none() {
            return Err(ErrorCode::InvalidState);
        }
        state.outside = None;
        if let Some(inbox) = &state.inbox {
            inbox.wake();
        }
        Ok(())
    }

    /// To whom a datagram would go; an address is needed unless the socket is connected.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no address to send to, or another than the socket is connected to; `AccessDenied` for one
    /// that the component may not reach.
    pub fn peer(&self, instance: &Instance, to: Option<SocketAddr>) -> Result<Peer, ErrorCode> {
        let connected = self.state().peer;
        match (connected, to) {
            (Some(peer), None) => Ok(peer),
            (Some(peer), Some(to)) if peer.address == to => Ok(peer),
            (None, Some(to)) => self.judge(instance, to),
            (Some(_), Some(_)) | (None, None) => Err(ErrorCode::InvalidArgument),
        }
    }

    /// Sends a datagram; false if there is no room for it now. Within the workload it is lost where nobody receives, as on a
    /// network.
    ///
    /// # Errors
    /// `DatagramTooLarge`, and what the system says; `ConnectionRefused` if the socket is connected to a port of the workload
    /// that nobody has.
    pub fn try_send(&self, peer: Peer, data: &[u8]) -> Result<bool, ErrorCode> {
        let Some((outside, real)) = self.way(peer, data)? else {
            return Ok(true);
        };
        match outside.try_send(data, real) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
    pub async fn send(&self, peer: Peer, data: &[u8]) -> Result<(), ErrorCode> {
        match self.way(peer, data)? {
            Some((outside, real)) => Ok(outside.send(data, real).await?),
            None => Ok(()),
        }
    }

    /// What has come, if anything has.
    ///
    /// # Errors
    /// `InvalidState` if it has no port yet, and what the system says of an earlier datagram.
    pub fn try_receive(&self) -> Result<Option<Datagram>, ErrorCode> {
        Ok(match self.look()? {
            Arrival::Peer(datagram) => Some(datagram),
            Arrival::Nothing | Arrival::Strangers => None,
        })
    }

    /// Waits until something comes. Nothing is lost if this is dropped.
    ///
    /// # Errors
    /// Those of [`try_receive`](Self::try_receive).
    pub async fn receive(&self) -> Result<Datagram, ErrorCode> {
        loop {
            let (inbox, outside, _) = self.sources()?;
            let mut changed = pin!(inbox.changed());
            changed.as_mut().enable();
            match self.look()? {
                Arrival::Peer(datagram) => return Ok(datagram),
                // Others on this thread come first, even if the guest may have all of its time.
                Arrival::Strangers => {
                    task::yield_now().await;
                    continue;
                }
                Arrival::Nothing => {}
            }
            match outside {
                None => changed.await,
                Some(outside) => tokio::select! {
                    () = changed => {}
                    ready = outside.ready() => ready?,
                },
            }
        }
    }

    fn look(&self) -> Result<Arrival, ErrorCode> {
        let (inbox, outside, peer) = self.sources()?;
        while let Some(datagram) = inbox.take() {
            match peer {
                None => return Ok(Arrival::Peer(datagram)),
                // All of 127.0.0.0/8 is one place.
                Some(peer)
                    if peer.route == Route::Loopback
                        && peer.address.port() == datagram.from.port() =>
                {
                    let from = peer.address;
                    return Ok(Arrival::Peer(Datagram { from, ..datagram }));
                }
                Some(_) => {}
            }
        }
        match outside {
            Some(outside) => Ok(outside.try_receive()?),
            None => Ok(Arrival::Nothing),
        }
    }

    pub fn is_bound(&self) -> bool {
        self.state().inbox.is_some()
    }

    pub fn is_connected(&self) -> bool {
        self.state().peer.is_some()
    }

    /// The address of this side, within the workload.
    pub fn local_address(&self) -> Result<SocketAddr, ErrorCode> {
        let state = self.state();
        let inbox = state.inbox.as_ref().ok_or(ErrorCode::InvalidState)?;
        Ok(inbox.address())
    }

    /// The address that it is connected to.
    pub fn remote_address(&self) -> Result<SocketAddr, ErrorCode> {
        let peer = self.state().peer.ok_or(ErrorCode::InvalidState)?;
        Ok(peer.address)
    }

    pub fn options(&self) -> Options {
        self.state().options.clone()
    }

    /// Changes what the guest can set.
    pub fn set(&self, change: impl FnOnce(&mut Options)) {
        let mut state = self.state();
        change(&mut state.options);
        if let Some(outside) = &state.outside {
            state.options.apply(&outside.socket);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port, which is taken now if there is none.
    fn open(&self, state: &mut State, port: u16) -> Result<Arc<Inbox>, ErrorCode> {
        if let Some(inbox) = &state.inbox {
            return Ok(inbox.clone());
        }
        let inbox = Inbox::open(&self.grants.network.loopback, self.family, port)?;
        Ok(state.inbox.insert(Arc::new(inbox)).clone())
    }

    /// From where datagrams come.
    fn sources(&self) -> Result<Sources, ErrorCode> {
        let state = self.state();
        let inbox = state.inbox.clone().ok_or(ErrorCode::InvalidState)?;
        Ok((inbox, state.outside.clone(), state.peer))
    }

    /// Delivers a datagram within the workload; or says by what to send it.
    fn way(
        &self,
        peer: Peer,
        data: &[u8],
    ) -> Result<Option<(Arc<Outside>, SocketAddr)>, ErrorCode> {
        let most = match self.family {
            Family::V4 => MAX_DATAGRAM_4,
            Family::V6 => MAX_DATAGRAM,
        };
        if data.len() > most {
            return Err(ErrorCode::DatagramTooLarge);
        }
        let mut state = self.state();
        let inbox = self.open(&mut state, 0)?;
        let Route::Outside(real) = peer.route else {
            let refused = !inbox.send(data, peer.address) && state.peer.is_some();
            return if refused {
                Err(ErrorCode::ConnectionRefused)
            } else {
                Ok(None)
            };
        };
        let outside = match &state.outside {
            Some(outside) => outside.clone(),
            None => {
                let outside = self.outside(&state.options)?;
                state.outside = Some(outside.clone());
                inbox.wake();
                outside
            }
        };
        outside.know(real, peer.address);
        Ok(Some((outside, real)))
    }

    fn outside(&self, options: &Options) -> Result<Arc<Outside>, ErrorCode> {
        let permit = self.grants.network.outside();
        let outside = Outside::new(self.family, permit.ok_or(ErrorCode::OutOfMemory)?)?;
        if options.hop_limit != Options::default().hop_limit {
            options.apply(&outside.socket);
        }
        Ok(Arc::new(outside))
    }

    fn judge(&self, instance: &Instance, address: SocketAddr) -> Result<Peer, ErrorCode> {
        let ip = address.ip().to_canonical();
        if !self.fits(address) || address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(ErrorCode::InvalidArgument);
        }
        let route = self.grants.connect(Protocol::Udp, address, instance)?;
        Ok(Peer { address, route })
    }

    /// Whether the address is of the socket's family. A mapped address is of neither.
    fn fits(&self, address: SocketAddr) -> bool {
        self.family.has(address.ip())
    }
}

impl Options {
    /// Not promised: what the system does not take, stays as it was.
    fn apply(&self, socket: &net::UdpSocket) {
        let hops = self.hop_limit;
        let _ = match socket.local_addr() {
            Ok(SocketAddr::V6(_)) => sockopt::set_ipv6_unicast_hops(socket, Some(hops)),
            _ => sockopt::set_ip_ttl(socket, hops.into()),
        };
    }
}
