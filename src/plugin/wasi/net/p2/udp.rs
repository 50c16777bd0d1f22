//! `wasi:sockets/udp` and `udp-create-socket` 0.2.

use std::{net::SocketAddr, sync::Arc};

use wasmtime::{component::Resource, format_err};
use wasmtime_wasi::{
    p2::{
        DynPollable, Network, Pollable, SocketError, SocketResult,
        bindings::sockets::{
            network::{ErrorCode, IpAddressFamily, IpSocketAddress},
            udp::{
                self, IncomingDatagram, IncomingDatagramStream, OutgoingDatagram,
                OutgoingDatagramStream, UdpSocket,
            },
            udp_create_socket,
        },
        subscribe,
    },
    sockets,
};

use super::{
    super::{
        View,
        inbox::Datagram,
        loopback::Family,
        udp::{Options, Peer, UdpSocket as Core},
    },
    positive,
};

/// Most datagrams that are received or sent by one call.
const MAX_DATAGRAMS: usize = 16;

/// Bytes after which a call receives no more.
const ENOUGH: usize = 64 << 10;

/// A socket, as it is in the table.
struct Socket {
    core: Arc<Core>,
    /// A bind was started and not finished.
    binding: bool,
}

/// What a guest receives by.
struct Incoming {
    core: Arc<Core>,
    /// What came while the guest waited.
    next: Option<Result<Datagram, sockets::ErrorCode>>,
}

/// What a guest sends by.
struct Outgoing {
    core: Arc<Core>,
    /// Datagrams that the next call may have.
    permitted: usize,
    /// One that was taken, and that there was no room for yet.
    held: Option<(Peer, Vec<u8>)>,
}

fn own(this: &Resource<UdpSocket>) -> Resource<Socket> {
    Resource::new_borrow(this.rep())
}

fn own_incoming(this: &Resource<IncomingDatagramStream>) -> Resource<Incoming> {
    Resource::new_borrow(this.rep())
}

fn own_outgoing(this: &Resource<OutgoingDatagramStream>) -> Resource<Outgoing> {
    Resource::new_borrow(this.rep())
}

impl View<'_> {
    fn udp(&mut self, this: &Resource<UdpSocket>) -> SocketResult<&mut Socket> {
        Ok(self.table.get_mut(&own(this))?)
    }

    fn set_udp(
        &mut self,
        this: &Resource<UdpSocket>,
        change: impl FnOnce(&mut Options),
    ) -> SocketResult<()> {
        self.udp(this)?.core.set(change);
        Ok(())
    }
}

impl Incoming {
    /// What there is, without waiting.
    fn next(&mut self) -> Result<Option<Datagram>, sockets::ErrorCode> {
        match self.next.take() {
            Some(next) => next.map(Some),
            None => self.core.try_receive(),
        }
    }
}

impl Outgoing {
    /// Sends what is held. Whether there is room for more.
    fn flush(&mut self) -> bool {
        if let Some((peer, data)) = &self.held
            && matches!(self.core.try_send(*peer, data), Ok(false))
        {
            return false;
        }
        // What is wrong with it is told by the next one, if that is so then: this one was taken.
        self.held = None;
        true
    }
}

impl udp::Host for View<'_> {}

impl udp_create_socket::Host for View<'_> {
    async fn create_udp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<UdpSocket>> {
        let family = match family {
            IpAddressFamily::Ipv4 => Family::V4,
            IpAddressFamily::Ipv6 => Family::V6,
        };
        let core = Core::new(self.grants, family).ok_or(ErrorCode::NewSocketLimit)?;
        let socket = self.table.push(Socket {
            core,
            binding: false,
        })?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl udp::HostUdpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.udp(&this)?;
        if socket.binding {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        socket.core.bind(address.into())?;
        socket.binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        let socket = self.udp(&this)?;
        if !std::mem::take(&mut socket.binding) {
            return Err(ErrorCode::NotInProgress.into());
        }
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        peer: Option<IpSocketAddress>,
    ) -> SocketResult<(
        Resource<IncomingDatagramStream>,
        Resource<OutgoingDatagramStream>,
    )> {
        let this = own(&this);
        let has_streams = self
            .table
            .iter_children(&this)?
            .any(|child| child.is::<Incoming>() || child.is::<Outgoing>());
        if has_streams {
            let why = format_err!("the socket's former streams have not been dropped");
            return Err(SocketError::trap(why));
        }
        let core = self.table.get(&this)?.core.clone();
        // In 0.2 a socket is bound explicitly.
        if !core.is_bound() {
            return Err(ErrorCode::InvalidState.into());
        }
        match peer {
            Some(peer) => core.connect(self.instance, peer.into())?,
            None if core.is_connected() => core.disconnect()?,
            None => {}
        }
        let incoming = Incoming {
            core: core.clone(),
            next: None,
        };
        let outgoing = Outgoing {
            core,
            permitted: 0,
            held: None,
        };
        let incoming = self.table.push_child(incoming, &this)?;
        let outgoing = self.table.push_child(outgoing, &this)?;
        Ok((
            Resource::new_own(incoming.rep()),
            Resource::new_own(outgoing.rep()),
        ))
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.udp(&this)?.core.local_address()?.into())
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.udp(&this)?.core.remote_address()?.into())
    }

    fn address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.table.get(&own(&this))?.core.family {
            Family::V4 => IpAddressFamily::Ipv4,
            Family::V6 => IpAddressFamily::Ipv6,
        })
    }

    fn unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.udp(&this)?.core.options().hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp(&this, |o| o.hop_limit = value)
    }

    fn receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.core.options().receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp(&this, |o| o.receive_buffer = value)
    }

    fn send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.core.options().send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp(&this, |o| o.send_buffer = value)
    }

    fn subscribe(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, own(&this))
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}

impl udp::HostIncomingDatagramStream for View<'_> {
    fn receive(
        &mut self,
        this: Resource<IncomingDatagramStream>,
        most: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let stream = self.table.get_mut(&own_incoming(&this))?;
        let most = usize::try_from(most).map_or(MAX_DATAGRAMS, |most| most.min(MAX_DATAGRAMS));
        let mut datagrams = Vec::new();
        let mut size = 0;
        while datagrams.len() < most && size < ENOUGH {
            let datagram = match stream.next() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                Err(error) if datagrams.is_empty() => return Err(error.into()),
                Err(error) => {
                    stream.next = Some(Err(error));
                    break;
                }
            };
            size += datagram.data.len();
            datagrams.push(IncomingDatagram {
                data: datagram.data,
                remote_address: datagram.from.into(),
            });
        }
        Ok(datagrams)
    }

    fn subscribe(
        &mut self,
        this: Resource<IncomingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, own_incoming(&this))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Incoming>::new_own(this.rep()))?;
        Ok(())
    }
}

impl udp::HostOutgoingDatagramStream for View<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        let stream = self.table.get_mut(&own_outgoing(&this))?;
        stream.permitted = if stream.flush() { MAX_DATAGRAMS } else { 0 };
        Ok(stream.permitted as u64)
    }

    fn send(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
        datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let stream = self.table.get_mut(&own_outgoing(&this))?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > stream.permitted {
            let why = format_err!("more datagrams are sent than check-send has permitted");
            return Err(SocketError::trap(why));
        }
        stream.permitted = 0;
        let mut sent = 0;
        for OutgoingDatagram {
            data,
            remote_address,
        } in datagrams
        {
            if !stream.flush() {
                break;
            }
            let to = remote_address.map(SocketAddr::from);
            let result = stream.core.peer(self.instance, to).and_then(|peer| {
                if !stream.core.try_send(peer, &data)? {
                    stream.held = Some((peer, data));
                }
                Ok(())
            });
            match result {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn subscribe(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, own_outgoing(&this))
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        let mut stream = self
            .table
            .delete(Resource::<Outgoing>::new_own(this.rep()))?;
        stream.ready().await;
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        if self.next.is_none() {
            self.next = Some(self.core.receive().await);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        if let Some((peer, data)) = &self.held {
            let _ = self.core.send(*peer, data).await;
            self.held = None;
        }
    }
}
