//! A TCP socket of a guest, for every version of `wasi:sockets`: what may follow what, and where it leads.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use rustix::net::sockopt;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use wasmtime_wasi::sockets::ErrorCode;

use super::{
    Grants, Instance,
    loopback::{Family, Lease, Listener},
    policy::Route,
    stream::{Connection, Outside},
};
use crate::spec::Protocol;

/// Time that a connection to the outside is given to be made.
const CONNECT: Duration = Duration::from_secs(30);

/// A socket, in whatever state.
pub(super) struct TcpSocket {
    pub family: Family,
    state: State,
    pub options: Options,
    grants: Arc<Grants>,
    /// The socket's part of what the workload may have open.
    permit: Arc<OwnedSemaphorePermit>,
}

/// A connection, with the machine's socket if it has one.
type Made = Result<(Connection, Option<Arc<Outside>>), ErrorCode>;

enum State {
    Unbound,
    Bound(Arc<Lease>),
    /// Without what accepts, once that has been taken.
    Listening(Arc<Lease>, Option<Acceptor>),
    Connecting(BoxFuture<'static, Made>),
    Connected(Connected),
    Closed(ErrorCode),
}

/// What is left of a connection after its halves have been given away.
struct Connected {
    local: SocketAddr,
    remote: SocketAddr,
    connection: Option<Connection>,
    outside: Option<Arc<Outside>>,
    _lease: Option<Arc<Lease>>,
}

/// What a guest can set. Within the workload nothing of it means anything; it is kept, and reads as it was written.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub keep_alive: bool,
    pub keep_alive_idle: Duration,
    pub keep_alive_interval: Duration,
    pub keep_alive_count: u32,
    pub hop_limit: u8,
    pub receive_buffer: u64,
    pub send_buffer: u64,
    pub backlog: u64,
}

/// The part of a listening socket that accepts connections.
pub(super) struct Acceptor {
    listener: Listener,
    family: Family,
    options: Options,
    grants: Arc<Grants>,
    /// It is of the socket, and may outlive it.
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_alive: false,
            keep_alive_idle: Duration::from_secs(7200),
            keep_alive_interval: Duration::from_secs(75),
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer: super::pipe::CAPACITY as u64,
            send_buffer: super::pipe::CAPACITY as u64,
            backlog: 128,
        }
    }
}

impl TcpSocket {
    /// A new socket.
    ///
    /// # Errors
    /// `None` if the workload has too many already.
    pub fn new(grants: &Arc<Grants>, family: Family) -> Option<Self> {
        Some(Self {
            family,
            state: State::Unbound,
            options: Options::default(),
            permit: Arc::new(grants.network.socket()?),
            grants: grants.clone(),
        })
    }

    /// Binds to a port of the workload's loopback.
    ///
    /// # Errors
    /// `AccessDenied` for a component that may not listen, and for an address that is not the workload's own.
    pub fn bind(&mut self, address: SocketAddr) -> Result<(), ErrorCode> {
        let State::Unbound = self.state else {
            return Err(ErrorCode::InvalidState);
        };
        if !self.fits(address) || address.ip().is_multicast() {
            return Err(ErrorCode::InvalidArgument);
        }
        self.grants.bind(Protocol::Tcp, address)?;
        let lease = self
            .grants
            .network
            .loopback
            .bind(self.family, address.port())?;
        self.state = State::Bound(Arc::new(lease));
        Ok(())
    }

    /// Begins to accept connections. Without a bind before it, at a port that nobody chose.
    ///
    /// # Errors
    /// `AccessDenied` for a component that may not listen.
    pub fn listen(&mut self) -> Result<(), ErrorCode> {
        if let State::Unbound = self.state {
            let any = SocketAddr::new(self.family.localhost(), 0);
            self.bind(any)?;
        }
        let State::Bound(lease) = &self.state else {
            return Err(ErrorCode::InvalidState);
        };
        let lease = lease.clone();
        let acceptor = Acceptor {
            listener: lease.clone().listen(self.options.backlog),
            family: self.family,
            options: self.options.clone(),
            grants: self.grants.clone(),
            _permit: self.permit.clone(),
        };
        self.state = State::Listening(lease, Some(acceptor));
        Ok(())
    }

    /// Begins to connect; [`poll_connect`](Self::poll_connect) does it.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no address to connect to, `AccessDenied` for one that the component may not reach.
    pub fn start_connect(
        &mut self,
        instance: &Instance,
        address: SocketAddr,
    ) -> Result<(), ErrorCode> {
        let ip = address.ip().to_canonical();
        if !self.fits(address) || address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(ErrorCode::InvalidArgument);
        }
        let lease = match &self.state {
            State::Unbound => None,
            State::Bound(lease) => Some(lease.clone()),
            _ => return Err(ErrorCode::InvalidState),
        };
        let route = match self.grants.connect(Protocol::Tcp, address, instance) {
            Ok(route) => route,
            Err(error) => {
                self.state = State::Closed(error);
                return Err(error);
            }
        };
        let network = self.grants.network.clone();
        let (family, options) = (self.family, self.options.clone());
        self.state = State::Connecting(match (route, lease) {
            (Route::Loopback, lease) => Box::pin(async move {
                let lease = match lease {
                    Some(lease) => lease,
                    None => Arc::new(network.loopback.bind(family, 0)?),
                };
                Ok((network.loopback.connect(lease, address).await?, None))
            }),
            // It is bound to the workload's loopback, which has no way out.
            (Route::Outside(_), Some(_)) => Box::pin(async { Err(ErrorCode::RemoteUnreachable) }),
            (Route::Outside(to), None) => Box::pin(async move {
                let permit = network.outside().ok_or(ErrorCode::OutOfMemory)?;
                let connected = tokio::time::timeout(CONNECT, TcpStream::connect(to)).await;
                let stream = connected.map_err(|_| ErrorCode::Timeout)??;
                let outside = Arc::new(Outside {
                    stream,
                    _permit: permit,
                });
                options.apply(&outside);
                Ok((Connection::outside(outside.clone())?, Some(outside)))
            }),
        });
        Ok(())
    }

    /// Ready when the connection is made, or cannot be.
    pub fn poll_connect(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ErrorCode>> {
        let State::Connecting(connecting) = &mut self.state else {
            return Poll::Ready(match &self.state {
                State::Connected(_) => Ok(()),
                State::Closed(error) => Err(*error),
                _ => Err(ErrorCode::InvalidState),
            });
        };
        let result = ready!(connecting.as_mut().poll(context));
        Poll::Ready(match result {
            Ok((connection, outside)) => {
                self.state = State::Connected(Connected::new(connection, outside));
                Ok(())
            }
            Err(error) => {
                self.state = State::Closed(error);
                Err(error)
            }
        })
    }

    /// The connection itself, once.
    ///
    /// # Errors
    /// `InvalidState` if there is none (any more).
    pub fn take_connection(&mut self) -> Result<Connection, ErrorCode> {
        match &mut self.state {
            State::Connected(connected) => {
                connected.connection.take().ok_or(ErrorCode::InvalidState)
            }
            State::Closed(error) => Err(*error),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// What accepts connections; see [`Acceptor::poll_accept`].
    ///
    /// # Errors
    /// `InvalidState` if it does not listen.
    pub fn acceptor(&mut self) -> Result<&mut Acceptor, ErrorCode> {
        match &mut self.state {
            State::Listening(_, Some(acceptor)) => Ok(acceptor),
            State::Closed(error) => Err(*error),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// The same, to be used without the socket.
    pub fn take_acceptor(&mut self) -> Result<Acceptor, ErrorCode> {
        match &mut self.state {
            State::Listening(_, acceptor) => acceptor.take().ok_or(ErrorCode::InvalidState),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// Ready when one of the polls above would be.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Connecting(_) => self.poll_connect(context).map(drop),
            State::Listening(_, Some(acceptor)) => acceptor.poll_ready(context),
            _ => Poll::Ready(()),
        }
    }

    /// What keeps the socket counted; for halves that may outlive it.
    pub fn permit(&self) -> Arc<OwnedSemaphorePermit> {
        self.permit.clone()
    }

    pub fn is_bound(&self) -> bool {
        !matches!(self.state, State::Unbound)
    }

    pub fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(..))
    }

    /// The address of this side.
    pub fn local_address(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            State::Bound(lease) | State::Listening(lease, _) => Ok(lease.address()),
            State::Connected(connected) => Ok(connected.local),
            State::Closed(error) => Err(*error),
            State::Unbound | State::Connecting(_) => Err(ErrorCode::InvalidState),
        }
    }

    /// The address of the other side.
    pub fn remote_address(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            State::Connected(connected) => Ok(connected.remote),
            State::Closed(error) => Err(*error),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// Changes what the guest can set, also of a connection that is made.
    pub fn set(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
        if let State::Connected(Connected {
            outside: Some(outside),
            ..
        }) = &self.state
        {
            self.options.apply(outside);
        }
    }

    /// Whether the address is of the socket's family. A mapped address is of neither.
    fn fits(&self, address: SocketAddr) -> bool {
        self.family.has(address.ip())
    }
}

impl Acceptor {
    /// Waits for a connection and makes a socket of it. While the workload has too many sockets, connections wait.
    ///
    /// # Errors
    /// `OutOfMemory` at the limit of sockets.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Result<TcpSocket, ErrorCode>> {
        ready!(self.listener.poll_waiting(context));
        let Some(permit) = self.grants.network.socket() else {
            return Poll::Ready(Err(ErrorCode::OutOfMemory));
        };
        let Some(connection) = self.listener.accept() else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(TcpSocket {
            family: self.family,
            state: State::Connected(Connected::new(connection, None)),
            options: self.options.clone(),
            grants: self.grants.clone(),
            permit: Arc::new(permit),
        }))
    }

    /// Sends the one who waits away.
    pub fn refuse(&mut self) {
        drop(self.listener.accept());
    }

    /// Ready when somebody waits.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.listener.poll_waiting(context)
    }
}

impl Connected {
    fn new(connection: Connection, outside: Option<Arc<Outside>>) -> Self {
        Self {
            local: connection.local,
            remote: connection.remote,
            _lease: connection.lease.clone(),
            connection: Some(connection),
            outside,
        }
    }
}

impl Options {
    /// A time that every system takes.
    pub fn keep_alive_time(nanos: u64) -> Duration {
        Duration::from_nanos(nanos).clamp(Duration::from_secs(1), Duration::from_secs(32_767))
    }

    /// Sizes of buffers are hints, and those of the system are good ones: they are not passed on.
    fn apply(&self, outside: &Outside) {
        let stream = &outside.stream;
        // None of it is promised: what the system does not take, stays as it was.
        let _ = sockopt::set_socket_keepalive(stream, self.keep_alive);
        if self.keep_alive {
            let _ = sockopt::set_tcp_keepidle(stream, self.keep_alive_idle);
            let _ = sockopt::set_tcp_keepintvl(stream, self.keep_alive_interval);
            let _ = sockopt::set_tcp_keepcnt(stream, self.keep_alive_count);
        }
        let hops = self.hop_limit;
        let _ = match stream.local_addr() {
            Ok(SocketAddr::V6(_)) => sockopt::set_ipv6_unicast_hops(stream, Some(hops)),
            _ => sockopt::set_ip_ttl(stream, hops.into()),
        };
    }
}
