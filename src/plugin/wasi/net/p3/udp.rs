//! UDP of `wasi:sockets/types` 0.3.

use std::{net::SocketAddr, sync::Arc};

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p3::{
    bindings::sockets::types::{
        ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress,
        UdpSocket,
    },
    sockets::{SocketError, SocketResult},
};

use super::{
    super::{
        Sockets, StoreState, View,
        loopback::Family,
        udp::{Options, UdpSocket as Core},
    },
    positive,
};

type This = Resource<UdpSocket>;

/// The same resource, as what it is in the table.
fn own(this: &This) -> Resource<Arc<Core>> {
    Resource::new_borrow(this.rep())
}

impl View<'_> {
    fn udp_3(&mut self, this: &This) -> SocketResult<&Arc<Core>> {
        self.table.get(&own(this)).map_err(SocketError::trap)
    }

    fn set_udp_3(&mut self, this: &This, change: impl FnOnce(&mut Options)) -> SocketResult<()> {
        self.udp_3(this)?.set(change);
        Ok(())
    }
}

impl HostUdpSocketWithStore<StoreState> for Sockets {
    async fn send(
        store: &Accessor<StoreState, Self>,
        this: This,
        data: Vec<u8>,
        to: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let (socket, peer) = store.with(|mut store| -> SocketResult<_> {
            let view = store.get();
            let socket = view.table.get(&own(&this)).map_err(SocketError::trap)?;
            let peer = socket.peer(view.instance, to.map(SocketAddr::from))?;
            Ok((socket.clone(), peer))
        })?;
        Ok(socket.send(peer, &data).await?)
    }

    async fn receive(
        store: &Accessor<StoreState, Self>,
        this: This,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let socket = store.with(|mut store| store.get().udp_3(&this).cloned())?;
        let datagram = socket.receive().await?;
        Ok((datagram.data, datagram.from.into()))
    }
}

impl HostUdpSocket for View<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<This> {
        let family = match family {
            IpAddressFamily::Ipv4 => Family::V4,
            IpAddressFamily::Ipv6 => Family::V6,
        };
        // 0.3 has no code of its own for the limit of sockets.
        let core = Core::new(self.grants, family)
            .ok_or_else(|| ErrorCode::Other(Some("new-socket-limit".to_owned())))?;
        let socket = self.table.push(core).map_err(SocketError::trap)?;
        Ok(Resource::new_own(socket.rep()))
    }

    async fn bind(&mut self, this: This, address: IpSocketAddress) -> SocketResult<()> {
        Ok(self.udp_3(&this)?.bind(address.into())?)
    }

    async fn connect(&mut self, this: This, address: IpSocketAddress) -> SocketResult<()> {
        let socket = self.table.get(&own(&this)).map_err(SocketError::trap)?;
        Ok(socket.connect(self.instance, address.into())?)
    }

    fn disconnect(&mut self, this: This) -> SocketResult<()> {
        Ok(self.udp_3(&this)?.disconnect()?)
    }

    fn get_local_address(&mut self, this: This) -> SocketResult<IpSocketAddress> {
        Ok(self.udp_3(&this)?.local_address()?.into())
    }

    fn get_remote_address(&mut self, this: This) -> SocketResult<IpSocketAddress> {
        Ok(self.udp_3(&this)?.remote_address()?.into())
    }

    fn get_address_family(&mut self, this: This) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.udp_3(&this)?.family {
            Family::V4 => IpAddressFamily::Ipv4,
            Family::V6 => IpAddressFamily::Ipv6,
        })
    }

    fn get_unicast_hop_limit(&mut self, this: This) -> SocketResult<u8> {
        Ok(self.udp_3(&this)?.options().hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: This, value: u8) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp_3(&this, |o| o.hop_limit = value)
    }

    fn get_receive_buffer_size(&mut self, this: This) -> SocketResult<u64> {
        Ok(self.udp_3(&this)?.options().receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: This, value: u64) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp_3(&this, |o| o.receive_buffer = value)
    }

    fn get_send_buffer_size(&mut self, this: This) -> SocketResult<u64> {
        Ok(self.udp_3(&this)?.options().send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: This, value: u64) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_udp_3(&this, |o| o.send_buffer = value)
    }

    fn drop(&mut self, this: This) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Arc<Core>>::new_own(this.rep()))?;
        Ok(())
    }
}
