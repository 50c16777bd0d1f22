//! UDP of `wasi:sockets/types` 0.3, which is in one interface with TCP: passed on to `wasmtime-wasi`, with nothing granted.

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::types::{
            HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket,
        },
        sockets::SocketResult,
    },
    sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView, WasiSocketsView},
};

use super::super::{Sockets, StoreState, View};

type This = Resource<UdpSocket>;

impl View<'_> {
    /// Calls `wasmtime-wasi`'s implementation.
    fn udp<T>(&mut self, call: impl FnOnce(WasiSocketsCtxView<'_>) -> T) -> T {
        call(WasiSocketsCtxView {
            ctx: &mut WasiSocketsCtx::default(),
            table: self.table,
        })
    }
}

impl HostUdpSocketWithStore<StoreState> for Sockets {
    async fn send(
        store: &Accessor<StoreState, Self>,
        this: This,
        data: Vec<u8>,
        to: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let store = store.with_getter::<WasiSockets>(StoreState::sockets);
        <WasiSockets as HostUdpSocketWithStore<StoreState>>::send(&store, this, data, to).await
    }

    async fn receive(
        store: &Accessor<StoreState, Self>,
        this: This,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let store = store.with_getter::<WasiSockets>(StoreState::sockets);
        <WasiSockets as HostUdpSocketWithStore<StoreState>>::receive(&store, this).await
    }
}

impl HostUdpSocket for View<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<This> {
        let ctx = &mut WasiSocketsCtx::default();
        let table = &mut *self.table;
        let mut wasi = WasiSocketsCtxView { ctx, table };
        HostUdpSocket::create(&mut wasi, family).await
    }

    async fn bind(&mut self, this: This, address: IpSocketAddress) -> SocketResult<()> {
        let ctx = &mut WasiSocketsCtx::default();
        let table = &mut *self.table;
        HostUdpSocket::bind(&mut WasiSocketsCtxView { ctx, table }, this, address).await
    }

    async fn connect(&mut self, this: This, address: IpSocketAddress) -> SocketResult<()> {
        let ctx = &mut WasiSocketsCtx::default();
        let table = &mut *self.table;
        HostUdpSocket::connect(&mut WasiSocketsCtxView { ctx, table }, this, address).await
    }

    fn disconnect(&mut self, this: This) -> SocketResult<()> {
        self.udp(|mut wasi| wasi.disconnect(this))
    }

    fn get_local_address(&mut self, this: This) -> SocketResult<IpSocketAddress> {
        self.udp(|mut wasi| HostUdpSocket::get_local_address(&mut wasi, this))
    }

    fn get_remote_address(&mut self, this: This) -> SocketResult<IpSocketAddress> {
        self.udp(|mut wasi| HostUdpSocket::get_remote_address(&mut wasi, this))
    }

    fn get_address_family(&mut self, this: This) -> wasmtime::Result<IpAddressFamily> {
        self.udp(|mut wasi| HostUdpSocket::get_address_family(&mut wasi, this))
    }

    fn get_unicast_hop_limit(&mut self, this: This) -> SocketResult<u8> {
        self.udp(|mut wasi| wasi.get_unicast_hop_limit(this))
    }

    fn set_unicast_hop_limit(&mut self, this: This, value: u8) -> SocketResult<()> {
        self.udp(|mut wasi| wasi.set_unicast_hop_limit(this, value))
    }

    fn get_receive_buffer_size(&mut self, this: This) -> SocketResult<u64> {
        self.udp(|mut wasi| HostUdpSocket::get_receive_buffer_size(&mut wasi, this))
    }

    fn set_receive_buffer_size(&mut self, this: This, value: u64) -> SocketResult<()> {
        self.udp(|mut wasi| HostUdpSocket::set_receive_buffer_size(&mut wasi, this, value))
    }

    fn get_send_buffer_size(&mut self, this: This) -> SocketResult<u64> {
        self.udp(|mut wasi| HostUdpSocket::get_send_buffer_size(&mut wasi, this))
    }

    fn set_send_buffer_size(&mut self, this: This, value: u64) -> SocketResult<()> {
        self.udp(|mut wasi| HostUdpSocket::set_send_buffer_size(&mut wasi, this, value))
    }

    fn drop(&mut self, this: This) -> wasmtime::Result<()> {
        self.udp(|mut wasi| HostUdpSocket::drop(&mut wasi, this))
    }
}
