//! Sockets and threads: one thread accepts at all ports, each worker serves the connections that it is given on a runtime of its own.
//!
//! A worker's runtime has one thread: a request never moves between threads, and its guest runs where its connection is. A
//! guest that spins gives way to the other requests of its worker at each tick of the engine's clock.

use std::{
    future, io, mem,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time,
};

use super::{
    Options,
    connection::{Connections, Way},
    ports::Port,
    serve::Ingress,
    tls::{Tls, TlsFiles},
};
use crate::plugin::lane::{SlowLane, priority};

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Pause after an error that every further try would meet too, such as the lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause before another try to open a port.
const AGAIN: Duration = Duration::from_secs(1);

/// Open ports and their threads; dropping it closes both and cuts all connections.
pub(super) struct Listening {
    address: SocketAddr,
    https: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    _slow: SlowLane,
}

/// It cannot be listened.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct OpenError {
    /// What, and what to do.
    pub message: String,
    pub source: io::Error,
}

/// The port for HTTPS.
struct Https {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<Tls>,
}

/// Opens further ports, which the same threads serve.
pub(super) struct Opener {
    main: SocketAddr,
    orders: mpsc::UnboundedSender<Order>,
}

/// What the accepting thread is told.
enum Order {
    /// Accept connections here until the port is unwanted.
    Accept(TcpListener, Arc<Port>),
    /// Have this port looked at again, a moment later.
    Again(u16),
}

/// A connection, and its share of the limit.
struct Accepted {
    stream: TcpStream,
    way: Way,
    _permit: OwnedSemaphorePermit,
    load: Load,
}

/// Counts a connection as long as it lives.
struct Load(Arc<AtomicUsize>);

/// The acceptor's end of a worker.
struct Worker {
    connections: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
}

impl Listening {
    /// Reads the certificate, binds the ports and starts the threads. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// What cannot be read, bound or started.
    pub fn open(options: &Options, ingress: &Arc<Ingress>) -> Result<Self, OpenError> {
        let https = options.https.as_ref();
        let https = https.map(|(a, files)| Https::open(*a, files)).transpose()?;
        let listener = listen(options.address)?;
        Self::start(options, ingress, listener, https).map_err(|source| OpenError {
            message: "the HTTP server's threads cannot be started".to_owned(),
            source,
        })
    }

    fn start(
        options: &Options,
        ingress: &Arc<Ingress>,
        listener: TcpListener,
        https: Option<Https>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let count = options
            .workers
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let slow = SlowLane::new(count)?;
        let count = count.get();
        // A server is opened once.
        let _ = slow.handle().map(|handle| ingress.slow.set(handle));
        let mut workers = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count + 1);
        for index in 0..count {
            let (connections, queue) = mpsc::unbounded_channel();
            let runtime = runtime()?;
            let common = Connections::new(ingress.clone(), options);
            threads.push(spawn(format!("washlet-http-{index}"), move || {
                priority::of_fast_lane();
                runtime.block_on(work(queue, common));
                // Not by dropping it, which would wait for a name that somebody looks up.
                runtime.shutdown_background();
            })?);
            workers.push(Worker {
                connections,
                load: Arc::default(),
            });
        }
        let (stop, stopped) = oneshot::channel();
        let (orders, queue) = mpsc::unbounded_channel();
        ingress.open_with(Opener {
            main: address,
            orders,
        });
        let runtime = runtime()?;
        let permits = Arc::new(Semaphore::new(
            options.max_connections.min(Semaphore::MAX_PERMITS),
        ));
        let acceptor = Acceptor {
            workers: workers.into(),
            permits,
        };
        let ingress = ingress.clone();
        let https_address = https.as_ref().map(|https| https.address);
        // Last in the list and first to end: the workers end when it has dropped its ends of them.
        threads.push(spawn("washlet-accept".to_owned(), move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = further_ports(queue, &acceptor, &ingress) => {}
                    Err(error) = acceptor.accept(listener, Way::Main) => {
                        tracing::error!(%error, "HTTP connections are no longer accepted");
                    }
                    Err(error) = acceptor.accept_https(https) => {
                        tracing::error!(%error, "HTTPS connections are no longer accepted");
                    }
                }
            });
            drop(acceptor);
            // Not by dropping it, which would wait for a file that is being read.
            runtime.shutdown_background();
        })?);
        Ok(Self {
            address,
            https: https_address,
            stop: Some(stop),
            threads,
            _slow: slow,
        })
    }

    /// The main address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for HTTPS, with the real port.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https
    }
}

impl Https {
    fn open(address: SocketAddr, files: &TlsFiles) -> Result<Self, OpenError> {
        let tls = Tls::load(files.clone()).map_err(|source| OpenError {
            message: "HTTPS cannot be served without its certificate and key".to_owned(),
            source,
        })?;
        let listener = listen(address)?;
        Ok(Self {
            address: listener.local_addr().unwrap_or(address),
            listener,
            tls: Arc::new(tls),
        })
    }
}

impl Opener {
    /// Binds a port and has its connections accepted. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// From binding.
    pub fn open(&self, port: &Arc<Port>) -> io::Result<()> {
        let listener = bind(self.address(port.number))?;
        self.orders
            .send(Order::Accept(listener, port.clone()))
            .map_err(|_| io::Error::other("the HTTP server has ended"))
    }

    /// Has a port looked at again, a moment later.
    pub fn again(&self, port: u16) {
        // Without a receiver the server has ended, and nobody needs the port.
        let _ = self.orders.send(Order::Again(port));
    }

    /// Where a port is opened: at the address of the main one.
    pub fn address(&self, port: u16) -> SocketAddr {
        let mut address = self.main;
        address.set_port(port);
        address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in mem::take(&mut self.threads) {
            // A worker that drops the last reference does not wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, OpenError> {
    bind(address).map_err(|source| OpenError {
        message: format!(
            "cannot listen on {address}; choose another port, or find who has this one"
        ),
        source,
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    // A restarted server need not wait until the system has forgotten the old one's connections.
    socket.set_reuseaddr(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // All addresses are all of IPv4 too, whatever the system's default is.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(work)
}

/// Accepts connections for the workers.
#[derive(Clone)]
struct Acceptor {
    workers: Arc<[Worker]>,
    permits: Arc<Semaphore>,
}

impl Acceptor {
    /// Accepts connections for ever; an error of one of them, or a lack of resources, is not the end.
    async fn accept(&self, listener: TcpListener, way: Way) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut failing = false;
        loop {
            // First a connection and then a place for it, or ports without a client would take places too.
            let accepted = async {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                stream.into_std()
            };
            match accepted.await {
                Ok(stream) => {
                    failing = false;
                    let Ok(permit) = self.permits.clone().acquire_owned().await else {
                        return Ok(());
                    };
                    self.give(stream, permit, way.clone());
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections; trying on");
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The same for HTTPS, with the certificate as it is in its files; if it is not wanted, this takes for ever too.
    async fn accept_https(&self, https: Option<Https>) -> io::Result<()> {
        let Some(Https { listener, tls, .. }) = https else {
            return future::pending().await;
        };
        tokio::select! {
            ended = self.accept(listener, Way::Https(tls.clone())) => ended,
            () = tls.follow() => Ok(()),
        }
    }

    /// Gives a connection to the worker that has the fewest.
    fn give(&self, stream: TcpStream, permit: OwnedSemaphorePermit, way: Way) {
        let load = |worker: &&Worker| worker.load.load(Ordering::Relaxed);
        if let Some(worker) = self.workers.iter().min_by_key(load) {
            worker.load.fetch_add(1, Ordering::Relaxed);
            let _ = worker.connections.send(Accepted {
                stream,
                way,
                _permit: permit,
                load: Load(worker.load.clone()),
            });
        }
    }
}

/// Opens ports as it is told, beside the main one.
async fn further_ports(
    mut orders: mpsc::UnboundedReceiver<Order>,
    acceptor: &Acceptor,
    ingress: &Arc<Ingress>,
) {
    while let Some(order) = orders.recv().await {
        let (acceptor, ingress) = (acceptor.clone(), ingress.clone());
        // Tasks of this thread's runtime, which ends them.
        match order {
            Order::Accept(listener, port) => tokio::spawn(async move {
                tokio::select! {
                    () = port.unwanted() => {}
                    Err(error) = acceptor.accept(listener, Way::Port(port.clone())) => {
                        tracing::error!(%error, port = port.number, "connections are no longer accepted");
                        port.unwanted().await;
                    }
                }
                // The listener is closed by now.
                ingress.revisit(port.number);
            }),
            Order::Again(port) => tokio::spawn(async move {
                time::sleep(AGAIN).await;
                ingress.revisit(port);
            }),
        };
    }
}

/// Whether an error says something about a connection that is gone already, and nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput,
        NotConnected,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | Interrupted
            | InvalidInput
            | NotConnected
    )
}

/// Serves the connections of one worker until the acceptor is gone.
async fn work(mut queue: mpsc::UnboundedReceiver<Accepted>, common: Arc<Connections>) {
    while let Some(accepted) = queue.recv().await {
        let common = common.clone();
        tokio::spawn(async move {
            let Accepted {
                stream,
                way,
                _permit,
                load: _load,
            } = accepted;
            common.serve(stream, way).await;
        });
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
