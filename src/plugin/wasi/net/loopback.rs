//! The loopback of one workload: ports, listeners, and connections that never leave the process.
//!
//! 127.0.0.0/8 is one place and `::1` another, as if each had one address: sockets of one family do not see the other's ports.
//! TCP and UDP have ports of their own; those of UDP are [inboxes](super::inbox). Nobody outside of the workload has a way in,
//! since nothing is bound on the machine.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout_at,
};
use wasmtime_wasi::sockets::ErrorCode;

use super::{
    awaited::Awaited,
    inbox::{self, Queue},
    pipe,
    stream::{Connection, ReadHalf, WriteHalf},
};

/// First of the ports that are given to who asks for any.
const FIRST_EPHEMERAL: u16 = 32768;

/// Most connections that wait to be accepted, whatever a guest asks for.
const MAX_BACKLOG: usize = 128;

/// Longest wait for a service that begins to listen. The first of those who connect counts, so that one which never does makes
/// nobody else late.
const BEGINS: Duration = Duration::from_secs(5);

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

/// The ports of one workload.
pub(super) struct Loopback {
    tcp: Mutex<Ports<Port>>,
    udp: Mutex<Ports<Arc<Queue>>>,
    /// For datagrams that wait, in bytes.
    room: Arc<Semaphore>,
    /// Who is to listen.
    service: Awaited,
}

/// The ports of one protocol, and who has them.
pub(super) struct Ports<P> {
    taken: HashMap<(Family, u16), P>,
    next: u16,
}

pub(super) enum Port {
    Bound,
    Listening(mpsc::Sender<Connection>),
}

/// A port that is taken for as long as this lives.
pub(super) struct Lease {
    loopback: Arc<Loopback>,
    family: Family,
    port: u16,
}

/// A port at which connections are accepted.
pub(super) struct Listener {
    _lease: Arc<Lease>,
    incoming: mpsc::Receiver<Connection>,
    waiting: Option<Connection>,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Whether an address is of this family. A mapped one is of neither.
    pub fn has(self, address: IpAddr) -> bool {
        Self::of(address) == self && address.to_canonical() == address
    }

    /// The workload's own address.
    pub const fn localhost(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

impl Default for Loopback {
    fn default() -> Self {
        Self {
            tcp: Mutex::default(),
            udp: Mutex::default(),
            room: Arc::new(Semaphore::new(inbox::TOTAL)),
            service: Awaited::default(),
        }
    }
}

impl Loopback {
    /// For datagrams that wait, in bytes; all ports have it together.
    pub fn room(&self) -> Arc<Semaphore> {
        self.room.clone()
    }

    fn ports(&self) -> MutexGuard<'_, Ports<Port>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports of UDP.
    pub fn inboxes(&self) -> MutexGuard<'_, Ports<Arc<Queue>>> {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a port; 0 is any that is free.
    ///
    /// # Errors
    /// `AddressInUse`.
    pub fn bind(self: &Arc<Self>, family: Family, port: u16) -> Result<Lease, ErrorCode> {
        let port = self.ports().take(family, port, Port::Bound)?;
        Ok(Lease {
            loopback: self.clone(),
            family,
            port,
        })
    }

    /// The workload has a service, which has not listened yet.
    pub fn expect_service(&self) {
        self.service.expect();
    }

    /// Connects to whoever listens at a port; waits while too many wait there already, or the workload's service is about to
    /// begin.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens, or stops to while this waits.
    pub async fn connect(&self, from: Arc<Lease>, to: SocketAddr) -> Result<Connection, ErrorCode> {
        let listener = self.listener(to).await;
        let listener = listener.ok_or(ErrorCode::ConnectionRefused)?;
        let waiting = listener.reserve().await;
        let place = waiting.map_err(|_| ErrorCode::ConnectionRefused)?;
        let (our_writer, their_reader) = pipe::pipe();
        let (their_writer, our_reader) = pipe::pipe();
        let local = from.address();
        let connection = |local, remote, reader, writer, lease| Connection {
            local,
            remote,
            read: ReadHalf::Pipe(reader),
            write: WriteHalf::Pipe(writer),
            lease,
        };
        place.send(connection(to, local, their_reader, their_writer, None));
        Ok(connection(local, to, our_reader, our_writer, Some(from)))
    }
}

impl Loopback {
    /// Who listens.
    async fn listener(&self, to: SocketAddr) -> Option<mpsc::Sender<Connection>> {
        loop {
            let mut came = pin!(self.service.came());
            came.as_mut().enable();
            if let Some(Port::Listening(listener)) =
                self.ports().owner(Family::of(to.ip()), to.port())
            {
                return Some(listener.clone());
            }
            let until = self.service.until(BEGINS)?;
            timeout_at(until, came).await.ok()?;
        }
    }
}

impl<P> Default for Ports<P> {
    fn default() -> Self {
        Self {
            taken: HashMap::new(),
            next: 0,
        }
    }
}

impl<P> Ports<P> {
    /// Takes a port; 0 is any that is free. Says which.
    ///
    /// # Errors
    /// `AddressInUse`.
    pub fn take(&mut self, family: Family, port: u16, owner: P) -> Result<u16, ErrorCode> {
        let port = match port {
            0 => self.free(family).ok_or(ErrorCode::AddressInUse)?,
            port => port,
        };
        if self.taken.contains_key(&(family, port)) {
            return Err(ErrorCode::AddressInUse);
        }
        self.taken.insert((family, port), owner);
        Ok(port)
    }

    /// Who has a port.
    pub fn owner(&self, family: Family, port: u16) -> Option<&P> {
        self.taken.get(&(family, port))
    }

    /// Gives a port back.
    pub fn give_back(&mut self, family: Family, port: u16) -> Option<P> {
        self.taken.remove(&(family, port))
    }

    fn free(&mut self, family: Family) -> Option<u16> {
        let count = u16::MAX - FIRST_EPHEMERAL;
        let free = (0..=count)
            .map(|step| FIRST_EPHEMERAL + (self.next.wrapping_add(step) & count))
            .find(|port| !self.taken.contains_key(&(family, *port)))?;
        self.next = free.wrapping_add(1) & count;
        Some(free)
    }
}

impl Lease {
    /// The address that the guest sees.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.family.localhost(), self.port)
    }

    /// Begins to accept connections.
    pub fn listen(self: Arc<Self>, backlog: u64) -> Listener {
        let backlog = usize::try_from(backlog).unwrap_or(MAX_BACKLOG);
        let (sender, incoming) = mpsc::channel(backlog.clamp(1, MAX_BACKLOG));
        let key = (self.family, self.port);
        let mut ports = self.loopback.ports();
        ports.taken.insert(key, Port::Listening(sender));
        drop(ports);
        self.loopback.service.has_come();
        Listener {
            _lease: self,
            incoming,
            waiting: None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let port = self.loopback.ports().give_back(self.family, self.port);
        // Outside of the lock: with a listener go connections that nobody accepted, which have ports too.
        drop(port);
    }
}

impl Listener {
    /// Ready when a connection waits to be accepted.
    pub fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            self.waiting = ready!(self.incoming.poll_recv(context));
        }
        Poll::Ready(())
    }

    /// The connection that waits.
    pub fn accept(&mut self) -> Option<Connection> {
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn accept(listener: &mut Listener) -> Connection {
        assert!(waits(listener), "nobody came");
        listener.accept().unwrap()
    }

    fn waits(listener: &mut Listener) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        listener.poll_waiting(&mut context).is_ready()
    }

    fn v4(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    async fn connect(loopback: &Arc<Loopback>, to: &str) -> Result<Connection, ErrorCode> {
        let to = v4(to);
        let from = loopback.bind(Family::of(to.ip()), 0).unwrap();
        loopback.connect(Arc::new(from), to).await
    }

    #[tokio::test]
    async fn connections_reach_the_listener_of_their_own_workload() {
        let [ours, theirs]: [Arc<Loopback>; 2] = Default::default();
        let [mut our_listener, mut their_listener] =
            [&ours, &theirs].map(|l| Arc::new(l.bind(Family::V4, 5432).unwrap()).listen(8));
        let client = connect(&ours, "127.0.0.1:5432").await.unwrap();
        let server = accept(&mut our_listener);
        assert_eq!((client.local, client.remote), (server.remote, server.local));
        assert_eq!(server.local, v4("127.0.0.1:5432"));
        client.write.try_write(b"ping").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(server.read.try_read(&mut bytes).unwrap(), 4);
        assert!(!waits(&mut their_listener));
        connect(&theirs, "127.9.9.9:5432").await.unwrap();
        assert!(accept(&mut their_listener).local == v4("127.9.9.9:5432"));
    }

    #[tokio::test]
    async fn where_nobody_listens_is_refused() {
        let loopback = Arc::<Loopback>::default();
        let lease = Arc::new(loopback.bind(Family::V4, 80).unwrap());
        let refused = |result: Result<Connection, ErrorCode>| {
            matches!(result, Err(ErrorCode::ConnectionRefused))
        };
        assert!(refused(connect(&loopback, "127.0.0.1:80").await), "bound");
        let listener = lease.clone().listen(1);
        assert!(refused(connect(&loopback, "[::1]:80").await), "family");
        assert!(refused(connect(&loopback, "127.0.0.1:81").await), "port");
        connect(&loopback, "127.0.0.1:80").await.unwrap();
        drop((listener, lease));
        assert!(refused(connect(&loopback, "127.0.0.1:80").await), "gone");
    }

    #[tokio::test]
    async fn a_service_that_begins_is_waited_for_until_it_listens() {
        let loopback = Arc::<Loopback>::default();
        loopback.expect_service();
        let mut early = pin!(connect(&loopback, "127.0.0.1:80"));
        let mut other = pin!(connect(&loopback, "127.0.0.1:81"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(early.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_pending());
        let listener = Arc::new(loopback.bind(Family::V4, 80).unwrap()).listen(8);
        early.await.unwrap();
        assert!(matches!(other.await, Err(ErrorCode::ConnectionRefused)));
        // It does not begin again.
        drop(listener);
        let refused = connect(&loopback, "127.0.0.1:80");
        let mut refused = pin!(refused);
        assert!(refused.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn ports_are_given_once_and_come_back() {
        let loopback = Arc::<Loopback>::default();
        let first = loopback.bind(Family::V4, 80).unwrap();
        let again = loopback.bind(Family::V4, 80);
        assert!(matches!(again, Err(ErrorCode::AddressInUse)));
        loopback.bind(Family::V6, 80).unwrap();
        drop(first);
        loopback.bind(Family::V4, 80).unwrap();
        let any: Vec<Lease> = (0..100)
            .map(|_| loopback.bind(Family::V4, 0).unwrap())
            .collect();
        assert!(any.iter().all(|l| l.address().port() >= FIRST_EPHEMERAL));
        drop(any);
        assert!(loopback.ports().taken.is_empty());
    }

    #[tokio::test]
    async fn who_was_never_accepted_sees_the_end_when_the_listener_goes() {
        let loopback = Arc::<Loopback>::default();
        let listener = Arc::new(loopback.bind(Family::V4, 80).unwrap()).listen(1);
        let client = connect(&loopback, "127.0.0.1:80").await.unwrap();
        let waiting = connect(&loopback, "127.0.0.1:80");
        let mut waiting = std::pin::pin!(waiting);
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "full");
        drop(listener);
        assert!(matches!(waiting.await, Err(ErrorCode::ConnectionRefused)));
        assert_eq!(client.read.try_read(&mut [0; 1]).unwrap(), 0);
        drop(client);
        assert!(loopback.ports().taken.is_empty());
    }
}
