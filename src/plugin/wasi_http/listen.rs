//! Sockets and threads: one thread accepts at all ports, each worker serves the connections that it is given on a runtime of its own.
//!
//! A worker's runtime has one thread: a request never moves between threads, and its guest runs where its connection is. A
//! guest that spins gives way to the other requests of its worker at each tick of the engine's clock.

use std::{
    convert::Infallible,
    future::poll_fn,
    io, mem,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time,
};

use super::{Options, body::Body, door::Graceful, ports::Port, serve::Ingress};

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Pause after an error that every further try would meet too, such as the lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause before another try to open a port.
const AGAIN: Duration = Duration::from_secs(1);

/// An open port and its threads; dropping it closes both and cuts all connections.
pub(super) struct Listening {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
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
    /// The port that it came by; none is the main one.
    port: Option<Arc<Port>>,
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
    /// Binds the port and starts the threads. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// From binding, or from starting a thread.
    pub fn open(options: &Options, ingress: &Arc<Ingress>) -> io::Result<Self> {
        let listener = bind(options.address)?;
        let address = listener.local_addr()?;
        let count = options
            .workers
            .or_else(|| thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get);
        let mut workers = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count + 1);
        for index in 0..count {
            let (connections, queue) = mpsc::unbounded_channel();
            let runtime = runtime()?;
            let (ingress, head_timeout) = (ingress.clone(), options.head_timeout);
            threads.push(spawn(format!("washlet-http-{index}"), move || {
                runtime.block_on(work(queue, ingress, head_timeout));
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
        // Last in the list and first to end: the workers end when it has dropped its ends of them.
        threads.push(spawn("washlet-accept".to_owned(), move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = further_ports(queue, &acceptor, &ingress) => {}
                    Err(error) = acceptor.accept(listener, None) => {
                        tracing::error!(%error, "HTTP connections are no longer accepted");
                    }
                }
            });
        })?);
        Ok(Self {
            address,
            stop: Some(stop),
            threads,
        })
    }

    /// The address with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
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
    async fn accept(&self, listener: TcpListener, port: Option<Arc<Port>>) -> io::Result<()> {
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
                    self.give(stream, permit, port.clone());
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

    /// Gives a connection to the worker that has the fewest.
    fn give(&self, stream: TcpStream, permit: OwnedSemaphorePermit, port: Option<Arc<Port>>) {
        let load = |worker: &&Worker| worker.load.load(Ordering::Relaxed);
        if let Some(worker) = self.workers.iter().min_by_key(load) {
            worker.load.fetch_add(1, Ordering::Relaxed);
            let _ = worker.connections.send(Accepted {
                stream,
                port,
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
                    Err(error) = acceptor.accept(listener, Some(port.clone())) => {
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
async fn work(
    mut queue: mpsc::UnboundedReceiver<Accepted>,
    ingress: Arc<Ingress>,
    head_timeout: Duration,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .keep_alive(true)
        .pipeline_flush(true);
    while let Some(accepted) = queue.recv().await {
        let (http, ingress) = (http.clone(), ingress.clone());
        tokio::spawn(async move {
            let Accepted {
                stream,
                port,
                _permit,
                load: _load,
            } = accepted;
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
                return;
            };
            let service = service_fn(|request| ingress.serve(request, port.as_deref()));
            let mut connection = http.serve_connection(TokioIo::new(stream), service);
            let mut visit = port
                .as_ref()
                .map_or(&ingress.door, |port| &port.door)
                .enter();
            if let Err(error) = poll_fn(|cx| visit.poll(&mut connection, cx)).await {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
    }
}

impl<S> Graceful for http1::Connection<TokioIo<tokio::net::TcpStream>, S>
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
    Self: Future<Output = hyper::Result<()>> + Unpin,
{
    type End = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::End> {
        Future::poll(Pin::new(self), cx)
    }

    fn close(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
