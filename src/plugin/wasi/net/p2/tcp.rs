//! `wasi:sockets/tcp` and `tcp-create-socket` 0.2.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};

use wasmtime::component::Resource;
use wasmtime_wasi::{
    p2::{
        DynInputStream, DynOutputStream, DynPollable, Network, Pollable, SocketResult, TcpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpAddressFamily, IpSocketAddress},
            tcp::{self, ShutdownType},
            tcp_create_socket,
        },
        subscribe,
    },
    sockets,
};

use super::{
    super::{
        View,
        loopback::Family,
        stream::Connection,
        tcp::{Options, TcpSocket as Core},
    },
    positive,
    streams::{Input, Output},
};

/// A socket, as it is in the table.
struct Socket {
    core: Core,
    /// What was started and not finished.
    pending: Option<Pending>,
    streams: Option<(Input, Output)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    Bind,
    Connect,
    Listen,
}

type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

/// The same resource, as what it is in the table.
fn own(this: &Resource<TcpSocket>) -> Resource<Socket> {
    Resource::new_borrow(this.rep())
}

impl View<'_> {
    fn tcp(&mut self, this: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        Ok(self.table.get_mut(&own(this))?)
    }

    /// The socket, if nothing that was started on it is unfinished.
    fn tcp_at_rest(&mut self, this: &Resource<TcpSocket>) -> SocketResult<&mut Socket> {
        let socket = self.tcp(this)?;
        match socket.pending {
            Some(_) => Err(ErrorCode::ConcurrencyConflict.into()),
            None => Ok(socket),
        }
    }

    fn finish_tcp(&mut self, this: &Resource<TcpSocket>, pending: Pending) -> SocketResult<()> {
        let socket = self.tcp(this)?;
        if socket.pending != Some(pending) {
            return Err(ErrorCode::NotInProgress.into());
        }
        socket.pending = None;
        Ok(())
    }

    /// Makes streams of a connection. They are children of the socket, which cannot be dropped before them.
    fn streams(
        &mut self,
        socket: &Resource<Socket>,
        connection: Connection,
    ) -> SocketResult<Streams> {
        let Connection { read, write, .. } = connection;
        let (input, output) = (Input::new(read), Output::new(write));
        self.table.get_mut(socket)?.streams = Some((input.clone(), output.clone()));
        let input: DynInputStream = Box::new(input);
        let output: DynOutputStream = Box::new(output);
        let input = self.table.push_child(input, socket)?;
        Ok((input, self.table.push_child(output, socket)?))
    }

    fn set_option(
        &mut self,
        this: &Resource<TcpSocket>,
        change: impl FnOnce(&mut Options),
    ) -> SocketResult<()> {
        self.tcp(this)?.core.set(change);
        Ok(())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl tcp::Host for View<'_> {}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let family = match family {
            IpAddressFamily::Ipv4 => Family::V4,
            IpAddressFamily::Ipv6 => Family::V6,
        };
        let core = Core::new(self.grants, family).ok_or(ErrorCode::NewSocketLimit)?;
        let socket = self.table.push(Socket {
            core,
            pending: None,
            streams: None,
        })?;
        Ok(Resource::new_own(socket.rep()))
    }
}

impl tcp::HostTcpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.tcp_at_rest(&this)?;
        socket.core.bind(address.into())?;
        socket.pending = Some(Pending::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.finish_tcp(&this, Pending::Bind)
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&own(&this))?;
        if socket.pending.is_some() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        socket.core.start_connect(self.instance, address.into())?;
        socket.pending = Some(Pending::Connect);
        Ok(())
    }

    fn finish_connect(&mut self, this: Resource<TcpSocket>) -> SocketResult<Streams> {
        let socket = self.tcp(&this)?;
        if socket.pending != Some(Pending::Connect) {
            return Err(ErrorCode::NotInProgress.into());
        }
        let connected = socket
            .core
            .poll_connect(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(connected) = connected else {
            return Err(ErrorCode::WouldBlock.into());
        };
        socket.pending = None;
        connected?;
        let connection = socket.core.take_connection()?;
        self.streams(&own(&this), connection)
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.tcp_at_rest(&this)?;
        // In 0.2 a socket is bound explicitly before it listens.
        if !socket.core.is_bound() {
            return Err(ErrorCode::InvalidState.into());
        }
        socket.core.listen()?;
        socket.pending = Some(Pending::Listen);
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        self.finish_tcp(&this, Pending::Listen)
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(
        Resource<TcpSocket>,
        Resource<DynInputStream>,
        Resource<DynOutputStream>,
    )> {
        let socket = self.tcp_at_rest(&this)?;
        let accepted = socket
            .core
            .acceptor()?
            .poll_accept(&mut Context::from_waker(Waker::noop()));
        let mut core = match accepted {
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(Err(sockets::ErrorCode::OutOfMemory)) => {
                return Err(ErrorCode::NewSocketLimit.into());
            }
            Poll::Ready(accepted) => accepted?,
        };
        let connection = core.take_connection()?;
        let socket = self.table.push(Socket {
            core,
            pending: None,
            streams: None,
        })?;
        let (input, output) = self.streams(&socket, connection)?;
        Ok((Resource::new_own(socket.rep()), input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.tcp(&this)?.core.local_address()?.into())
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.tcp(&this)?.core.remote_address()?.into())
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&own(&this))?.core.is_listening())
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.table.get(&own(&this))?.core.family {
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
        self.set_option(&this, |o| o.backlog = value)
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.tcp(&this)?.core.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        this: Resource<TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.set_option(&this, |o| o.keep_alive = value)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(nanos(self.tcp(&this)?.core.options.keep_alive_idle))
    }

    fn set_keep_alive_idle_time(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = Options::keep_alive_time(positive(value)?);
        self.set_option(&this, |o| o.keep_alive_idle = value)
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(nanos(self.tcp(&this)?.core.options.keep_alive_interval))
    }

    fn set_keep_alive_interval(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = Options::keep_alive_time(positive(value)?);
        self.set_option(&this, |o| o.keep_alive_interval = value)
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.tcp(&this)?.core.options.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        positive(value)?;
        self.set_option(&this, |o| o.keep_alive_count = value.min(127))
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.tcp(&this)?.core.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        positive(value)?;
        self.set_option(&this, |o| o.hop_limit = value)
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.core.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_option(&this, |o| o.receive_buffer = value)
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.core.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        let value = positive(value)?;
        self.set_option(&this, |o| o.send_buffer = value)
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, own(&this))
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, which: ShutdownType) -> SocketResult<()> {
        let socket = self.tcp(&this)?;
        let Some((input, output)) = &socket.streams else {
            return Err(ErrorCode::InvalidState.into());
        };
        if matches!(which, ShutdownType::Receive | ShutdownType::Both) {
            input.shut_down();
        }
        if matches!(which, ShutdownType::Send | ShutdownType::Both) {
            output.shut_down();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Socket>::new_own(this.rep()))?;
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        match self.pending {
            None | Some(Pending::Connect) => {
                poll_fn(|context| self.core.poll_ready(context)).await;
            }
            // Done already.
            Some(Pending::Bind | Pending::Listen) => {}
        }
    }
}
