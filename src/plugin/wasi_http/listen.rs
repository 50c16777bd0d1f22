//! Sockets and threads: one thread accepts, each worker serves the connections that it is given on a runtime of its own.
//!
//! A worker's runtime has one thread: a request never moves between threads, and its guest runs where its connection is. A
//! guest that spins gives way to the other requests of its worker at each tick of the engine's clock.

use std::{
    io, mem,
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time,
};

use super::{Options, serve::Ingress};

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Pause after an error that every further try would meet too, such as the lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// An open port and its threads; dropping it closes both and cuts all connections.
pub(super) struct Listening {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection, and its share of the limit.
struct Accepted {
    stream: TcpStream,
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
        let runtime = runtime()?;
        let permits = Arc::new(Semaphore::new(
            options.max_connections.min(Semaphore::MAX_PERMITS),
        ));
        // Last in the list and first to end: the workers end when it has dropped its ends of them.
        threads.push(spawn("washlet-accept".to_owned(), move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    Err(error) = accept(listener, &workers, &permits) => {
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
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(work)
}

/// Accepts connections for ever; an error of one of them, or a lack of resources, is not the end.
async fn accept(
    listener: TcpListener,
    workers: &[Worker],
    permits: &Arc<Semaphore>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut failing = false;
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            stream.into_std()
        };
        match accepted.await {
            Ok(stream) => {
                failing = false;
                let Some(worker) = workers
                    .iter()
                    .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
                else {
                    return Ok(());
                };
                worker.load.fetch_add(1, Ordering::Relaxed);
                let _ = worker.connections.send(Accepted {
                    stream,
                    _permit: permit,
                    load: Load(worker.load.clone()),
                });
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
                _permit,
                load: _load,
            } = accepted;
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
                return;
            };
            let service = service_fn(|request| ingress.serve(request));
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
