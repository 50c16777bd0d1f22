//! From an allowed host to an open connection: its addresses, each of them judged, and the handshakes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{Error, Result};

use super::{
    Call,
    pool::{Http1, Http2Parts, Key, Lease, Place, Pool},
    target::Target,
};

/// What may be received on one connection of HTTP/2 and not yet be read by the guest, in bytes; and for one call on it.
const WINDOW: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 256 << 10;

/// Opens a connection in the place that is given, by the deadline.
pub(super) async fn connect(
    call: &Call,
    place: Place,
    key: &Key,
    deadline: Instant,
) -> Result<Lease> {
    let target = &call.target;
    let addresses = resolve(call.pool(), target, deadline).await?;
    let addresses = permitted(addresses, call)?;
    let (stream, address) = open(&addresses, target.port, deadline).await?;
    let made = (key, address, place);
    let handshake = async {
        if target.tls {
            let stream = secure(call, stream).await?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if call.grpc && !http2 {
                tracing::debug!(
                    host = target.host,
                    "gRPC needs HTTP/2, which the server does not offer"
                );
                return Err(Error::HttpProtocolError);
            }
            speak(call, made, stream, http2).await
        } else {
            // Nothing is asked: a server that does not speak it will not understand a word.
            speak(call, made, stream, call.grpc).await
        }
    };
    timeout_at(deadline, handshake)
        .await
        .unwrap_or(Err(Error::ConnectionTimeout))
}

async fn resolve(pool: &Pool, target: &Target, deadline: Instant) -> Result<Vec<IpAddr>> {
    if let Some(address) = target.address {
        return Ok(vec![address]);
    }
    let lookup = pool.outside.resolve(&target.host, &pool.budget.lookups);
    match timeout_at(deadline, lookup).await {
        Err(_) => Err(Error::DnsTimeout),
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(failed) => {
            tracing::debug!(host = target.host, ?failed, "a name was not found");
            Err(Error::DnsError {
                rcode: Some("address not available".to_owned()),
                info_code: None,
            })
        }
    }
}

/// The addresses that may be connected to, if there are some.
fn permitted(addresses: Vec<IpAddr>, call: &Call) -> Result<Vec<IpAddr>> {
    let mut first = None;
    let permitted: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|address| match call.judge(*address) {
            None => true,
            Some(why) => {
                first.get_or_insert((*address, why));
                false
            }
        })
        .collect();
    match first {
        Some((address, why)) if permitted.is_empty() => {
            call.tell_prohibited(address, &why);
            Err(Error::DestinationIpProhibited)
        }
        _ => Ok(permitted),
    }
}

/// Connects to the first address that answers. Each is given its part of the time, so that one that is silent does not keep
/// the others from being tried.
async fn open(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<(TcpStream, IpAddr)> {
    let mut failed = Error::DestinationNotFound;
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let now = Instant::now();
        let part: Duration = deadline.saturating_duration_since(now) / left;
        match timeout_at(
            now + part,
            TcpStream::connect(SocketAddr::new(*address, port)),
        )
        .await
        {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(Error::Connect)?;
                return Ok((stream, *address));
            }
            Ok(Err(error)) => failed = Error::Connect(error),
            Err(_) => failed = Error::ConnectionTimeout,
        }
    }
    Err(failed)
}

async fn secure(
    call: &Call,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let target = &call.target;
    let config = call.pool().tls().await.map_err(Error::Tls)?;
    let name = match target.address {
        Some(address) => ServerName::from(address),
        None => ServerName::try_from(target.host.trim_end_matches('.'))?.to_owned(),
    };
    let connector = TlsConnector::from(config.clone());
    let connected = if call.grpc {
        // Nothing else, or a server that likes HTTP/1.1 better would take that.
        let offered = vec![b"h2".to_vec()];
        connector.with_alpn(offered).connect(name, stream)
    } else {
        connector.connect(name, stream)
    };
    connected.await.map_err(tls_failure)
}

/// What a failed handshake is in WASI's words.
fn tls_failure(error: io::Error) -> Error {
    let cause = error.get_ref().and_then(|e| e.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::Tls(error),
    }
}

/// Begins to speak HTTP, and to drive the connection.
async fn speak(
    call: &Call,
    (key, address, place): (&Key, IpAddr, Place),
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
) -> Result<Lease> {
    let (io, key) = (TokioIo::new(stream), key.clone());
    let driver = Driver {
        place: Arc::new(place),
        closing: call.pool().closing(),
    };
    if http2 {
        let pings = &call.pool().outside.pings;
        let silence = if call.grpc {
            pings.silence_grpc
        } else {
            pings.silence
        };
        let (sender, connection) = http2::Builder::new(driver.clone())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(Some(silence))
            .keep_alive_timeout(pings.answer)
            .handshake(io)
            .await?;
        let parts = Http2Parts {
            key,
            address,
            sender,
            driver: driver.drive(connection),
        };
        let admits = |address| call.judge(address).is_none();
        return Ok(Lease::Http2(call.pool().share(parts, admits)));
    }
    let (sender, connection) = http1::Builder::new().handshake(io).await?;
    Ok(Lease::Http1(Http1 {
        key,
        address,
        sender,
        driver: driver.drive(connection),
    }))
}

/// Runs the tasks of a connection. Its place is free again when the last of them has ended; all of them end with the pool.
#[derive(Clone)]
struct Driver {
    place: Arc<Place>,
    closing: watch::Receiver<bool>,
}

impl Driver {
    fn drive(
        self,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    ) -> AbortHandle {
        self.spawn(async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an outgoing connection ended");
            }
        })
    }

    fn spawn(mut self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = tokio::spawn(async move {
            let _place = self.place;
            tokio::select! {
                () = work => {}
                // An error means that the pool is gone.
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        });
        task.abort_handle()
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Driver {
    fn execute(&self, work: F) {
        self.clone().spawn(work);
    }
}
