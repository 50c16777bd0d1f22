//! A bare hyper server with a thread for each core that it may use: what is left of a request when no component has to answer it.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime, sync::mpsc, task::LocalSet};

/// Answers `GET` with a line, and `POST` with what it is sent.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    let threads = std::thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..threads).map(|_| worker()).collect::<Result<_>>()?;
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        worker.send(stream)?;
    }
    Ok(())
}

/// A thread with its own event loop, and where to send it connections.
fn worker() -> Result<mpsc::UnboundedSender<std::net::TcpStream>> {
    let (connections, mut queue) = mpsc::unbounded_channel();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            while let Some(stream) = queue.recv().await {
                let Ok(stream) = TcpStream::from_std(stream) else {
                    continue;
                };
                tokio::task::spawn_local(async move {
                    // A client that goes away ends only its own connection.
                    let _ = http1::Builder::new()
                        .pipeline_flush(true)
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        });
    });
    Ok(connections)
}

type Body = Either<Full<Bytes>, Incoming>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = if request.method() == Method::POST {
        Either::Right(request.into_body())
    } else {
        Either::Left(Full::new(Bytes::from_static(b"Hello from bare hyper\n")))
    };
    Ok(Response::new(body))
}
