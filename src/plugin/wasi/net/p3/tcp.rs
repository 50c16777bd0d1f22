//! TCP of `wasi:sockets/types` 0.3.

use std::{
    future::poll_fn,
    iter,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{
        Access, Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader,
        StreamResult,
    },
};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::types::{
            ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress,
            TcpSocket,
        },
        sockets::{SocketError, SocketResult},
    },
    sockets,
};

use super::{
    super::{
        Sockets, StoreState, View,
        loopback::Family,
        stream::{ReadHalf, WriteHalf},
        tcp::{Acceptor, Options, TcpSocket as Core},
    },
    positive,
    streams::{Receive, Send, not_ready},
};

/// A socket, as it is in the table.
pub(super) struct Socket {
    core: Core,
    read: Option<ReadHalf>,
    write: Option<WriteHalf>,
}

type Ended = FutureReader<Result<(), ErrorCode>>;

/// The same resource, as what it is in the table.
fn own(this: &Resource<TcpSocket>) -> Resource<Socket> {
    Resource::new_borrow(this.rep())
}

impl Socket {
    fn new(core: Core) -> Self {
        Self {
            core,
            read: None,
            write: None,
        }
    }

    /// Takes the halves of a connection that has just been made.
    fn connected(&mut self) -> Result<(), sockets::ErrorCode> {
        let connection = self.core.take_connection()?;
        self.read = Some(connection.read);
        self.write = Some(connection.write);
        Ok(())
    }
}

impl View<'_> {
    fn tcp_3(&mut self, this: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        self.table.get_mut(&own(this)).map_err(SocketError::trap)
    }

    fn set_tcp(
        &mut self,
        this: &Resource<TcpSocket>,
        change: impl FnOnce(&mut Options),
    ) -> SocketResult<()> {
        self.tcp_3(this)?.core.set(change);
        Ok(())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Those who connect to a listening socket, one at a time.
struct Accept(Acceptor);

impl StreamProducer<StoreState> for Accept {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, StoreState>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // A read of nothing asks whether somebody waits.
        if destination.remaining(&mut store) == Some(0) {
            return match self.0.poll_ready(context) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => not_ready(finish),
            };
        }
        let accepted = loop {
            match self.0.poll_accept(context) {
                Poll::Pending => return not_ready(finish),
                // There is no way to tell the guest; who connected sees it.
                Poll::Ready(Err(_)) => self.0.refuse(),
                Poll::Ready(Ok(accepted)) => break accepted,
            }
        };
        let mut accepted = Socket::new(accepted);
        if accepted.connected().is_ok() {
            let accepted = store.data_mut().sockets_view().table.push(accepted)?;
            destination.set_buffer(Some(Resource::new_own(accepted.rep())));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

impl HostTcpSocketWithStore<StoreState> for Sockets {
    async fn connect(
        store: &Accessor<StoreState, Self>,
        this: Resource<TcpSocket>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        store.with(|mut store| {
            let view = store.get();
            let socket = view.table.get_mut(&own(&this));
            let socket = socket.map_err(SocketError::trap)?;
            let started = socket.core.start_connect(view.instance, address.into());
            started.map_err(SocketError::from)
        })?;
        poll_fn(|context| {
            store.with(|mut store| {
                let mut view = store.get();
                let socket = match view.tcp_3(&this) {
                    Ok(socket) => socket,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                let connected = std::task::ready!(socket.core.poll_connect(context));
                let connected = connected.and_then(|()| socket.connected());
                Poll::Ready(connected.map_err(SocketError::from))
            })
        })
        .await
    }

    async fn listen(
        mut store: Access<'_, StoreState, Self>,
        this: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let mut view = store.get();
        let core = &mut view.tcp_3(&this)?.core;
        core.listen()?;
        let acceptor = core.take_acceptor()?;
        StreamReader::new(&mut store, Accept(acceptor)).map_err(SocketError::trap)
    }

    fn send(
        mut store: Access<'_, StoreState, Self>,
        this: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<Ended> {
        let mut view = store.get();
        let socket = view.tcp_3(&this)?;
        let Some(half) = socket.write.take() else {
            data.close(&mut store)?;
            return ended(store, Err(ErrorCode::InvalidState));
        };
        let permit = socket.core.permit();
        let (told, ended) = oneshot::channel();
        data.pipe(&mut store, Send::new(half, told, permit))?;
        FutureReader::new(&mut store, ended)
    }

    fn receive(
        mut store: Access<'_, StoreState, Self>,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, Ended)> {
        let mut view = store.get();
        let socket = view.tcp_3(&this)?;
        let Some(half) = socket.read.take() else {
            let nothing = StreamReader::new(&mut store, iter::empty())?;
            return Ok((nothing, ended(store, Err(ErrorCode::InvalidState))?));
        };
        let permit = socket.core.permit();
        let (told, ended) = oneshot::channel();
        let data = StreamReader::new(&mut store, Receive::new(half, told, permit))?;
        Ok((data, FutureReader::new(&mut store, ended)?))
    }
}

/// A stream that has ended before it began.
fn ended(
    mut store: Access<'_, StoreState, Sockets>,
    result: Result<(), ErrorCode>,
) -> wasmtime::Result<Ended> {
    FutureReader::new(&mut store, async move { wasmtime::error::Ok(result) })
}

impl HostTcpSocket for View<'_> {
    async fn bind(
        &mut self,
        this: Resource<TcpSocket>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        Ok(self.tcp_3(&this)?.core.bind(address.into())?)
    }

    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let family = match family {
            IpAddressFamily::Ipv4 => Family::V4,
            IpAddressFamily::Ipv6 => Family::V6,
        };
        // 0.3 has no code of its own for the limit of sockets.
        let core = Core::new(self.grants, family)
            .ok_or_else(|| ErrorCode::Other(Some("new-socket-limit".to_owned())))?;
        let socket = self.table.push(Socket::new(core));
        Ok(Resource::new_own(socket.map_err(SocketError::trap)?.rep()))
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.tcp_3(&this)?.core.local_address()?.into())
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.tcp_3(&this)?.core.remote_address()?.into())
    }

    fn get_is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(self.tcp_3(&this)?.core.is_listening())
    }

    fn get_address_family(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.tcp_3(&this)?.core.family {
            Family::V4 => IpAddressFamily::Ipv4,
            Family::V6 => IpAddressFamily::Ipv6,
        })
    }

    fn set_listen_backlog_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_tcp(&this, |o| o.backlog = value)
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.tcp_3(&this)?.core.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        this: Resource<TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.set_tcp(&this, |o| o.keep_alive = value)
    }

    fn get_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(nanos(self.tcp_3(&this)?.core.options.keep_alive_idle))
    }

    fn set_keep_alive_idle_time(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = Options::keep_alive_time(positive(value)?);
        self.set_tcp(&this, |o| o.keep_alive_idle = value)
    }

    fn get_keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(nanos(self.tcp_3(&this)?.core.options.keep_alive_interval))
    }

    fn set_keep_alive_interval(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = Options::keep_alive_time(positive(value)?);
        self.set_tcp(&this, |o| o.keep_alive_interval = value)
    }

    fn get_keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.tcp_3(&this)?.core.options.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        positive(value)?;
        self.set_tcp(&this, |o| o.keep_alive_count = value.min(127))
    }

    fn get_hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.tcp_3(&this)?.core.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        positive(value)?;
        self.set_tcp(&this, |o| o.hop_limit = value)
    }

    fn get_receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp_3(&this)?.core.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_tcp(&this, |o| o.receive_buffer = value)
    }

    fn get_send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp_3(&this)?.core.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_tcp(&this, |o| o.send_buffer = value)
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}
