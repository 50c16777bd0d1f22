//! The limits: bare servers with a thread for each core that they may use.
//!
//! That of hyper alone is here: what is left of a request when no component has to answer it.

mod component;
mod pest;

use std::{
    convert::Infallible,
    error::Error,
    net::{SocketAddr, TcpListener},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response,
    body::{Body as HttpBody, Incoming},
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime, sync::mpsc, task::LocalSet};

pub use component::{Instances, Wasi, serve as serve_component};
pub use pest::{Pest, pester};

/// Answers `GET` with a line, and `POST` with what it is sent.
pub fn serve_hyper(listen: SocketAddr) -> Result<()> {
    serve(listen, || |stream| spawn(stream, service_fn(answer)))
}

/// Accepts connections for the threads, each of which gives them to what `start` returns there.
fn serve<C: Fn(TcpStream)>(
    listen: SocketAddr,
    start: impl FnOnce() -> C + Clone + Send + 'static,
) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    let threads = std::thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..threads)
        .map(|_| worker(start.clone()))
        .collect::<Result<_>>()?;
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        worker.send(stream)?;
    }
    Ok(())
}

/// A thread with its own event loop, and where to send it connections.
fn worker<C: Fn(TcpStream)>(
    start: impl FnOnce() -> C + Send + 'static,
) -> Result<mpsc::UnboundedSender<std::net::TcpStream>> {
    let (connections, mut queue) = mpsc::unbounded_channel();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let serve = start();
            while let Some(stream) = queue.recv().await {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(stream);
                }
            }
        });
    });
    Ok(connections)
}

/// Serves a connection in a task of its own.
fn spawn<S>(stream: TcpStream, service: S)
where
    S: HttpService<Incoming, ResBody: HttpBody<Error: Into<Failure>>, Error: Into<Failure>>
        + 'static,
{
    tokio::task::spawn_local(async move {
        // A client that goes away ends only its own connection.
        let _ = http1::Builder::new()
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
}

type Failure = Box<dyn Error + Send + Sync>;

type Body = Either<Full<Bytes>, Incoming>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = if request.method() == Method::POST {
        Either::Right(request.into_body())
    } else {
        Either::Left(Full::new(Bytes::from_static(b"Hello from bare hyper\n")))
    };
    Ok(Response::new(body))
}
