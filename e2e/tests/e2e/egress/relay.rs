//! Requests with bodies and trailers that guests send on, and answers that they hand back, both while they come; to a server of
//! HTTP/1.1, and as gRPC to one of HTTP/2 without TLS.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Request, Response, Version,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
    header::{CONTENT_TYPE, HeaderValue, TE, TRAILER},
    http::request,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::local::{Local, workload};

/// Longest time for a step that takes none.
const STUCK: Duration = Duration::from_secs(30);
/// Who has sent nothing for so long waits for something.
const STALLED: Duration = Duration::from_secs(3);
const PART: usize = 64 * 1024;
/// More than what the buffers on the way hold, most of it those of TCP; and less than the largest body that a guest gets.
const ENOUGH: usize = 48 << 20;
const GUESTS: [&str; 2] = ["relay", "relay-p3"];

type Heads = mpsc::UnboundedReceiver<request::Parts>;

/// A server that sends back what it is sent while it comes, and trailers; and the heads of its requests.
async fn upstream(version: Version) -> Result<(String, Heads)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let (sender, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heads = sender.clone();
            let echo = service_fn(move |request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                let mut response = Response::new(body);
                if let Some(announced) = head.headers.get(TRAILER) {
                    response.headers_mut().insert(TRAILER, announced.clone());
                }
                let _ = heads.send(head);
                async { Ok::<_, Infallible>(response) }
            });
            let stream = TokioIo::new(stream);
            if version == Version::HTTP_2 {
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(stream, echo));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(stream, echo));
            }
        }
    });
    Ok((address, heads))
}

/// A client of HTTP/2, which has trailers both ways.
async fn client<B>(local: &Local) -> Result<SendRequest<B>>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(local.address).await?;
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A request that the guest is to hand on to this address, as gRPC if that server speaks HTTP/2.
fn request<B>(guest: &str, address: &str, version: Version, body: B) -> Result<Request<B>> {
    let kind = if version == Version::HTTP_2 {
        "application/grpc"
    } else {
        "application/octet-stream"
    };
    let request = Request::post(format!("http://{guest}.test/a/b?c=d"))
        .header("relay-to", format!("http://{address}"))
        .header(CONTENT_TYPE, kind)
        .header(TE, "trailers")
        .header(TRAILER, "grpc-status");
    Ok(request.body(body)?)
}

async fn relays(address: &str) -> Result<Local> {
    let allowed = json!({"localResources": {"allowedHosts": [address]}});
    let workloads = GUESTS.map(|guest| workload(guest, guest, allowed.clone()));
    let local = Local::of(&workloads).await?;
    local.ready(&GUESTS).await?;
    Ok(local)
}

fn status() -> HeaderMap {
    let status = HeaderValue::from_static("0");
    HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        status,
    )])
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T> {
    timeout(STUCK, step).await.context("stuck")
}

#[tokio::test]
async fn each_piece_comes_back_before_the_next_is_sent_and_trailers_last() -> Result<()> {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (address, mut heads) = upstream(version).await?;
        let local = relays(&address).await?;
        for guest in GUESTS {
            let pass = pass(&local, guest, &address, version);
            pass.await.with_context(|| format!("{guest} {version:?}"))?;
            let head = heads.recv().await.context("it was not asked")?;
            ensure!(head.version == version, "{guest}: {:?}", head.version);
            let uri = head.uri.path_and_query().context("no path")?;
            ensure!(uri == "/a/b?c=d" && head.method == "POST", "{head:?}");
            let te = head.headers.get(TE).context("no TE")?;
            ensure!(te == "trailers", "{te:?}");
            ensure!(!head.headers.contains_key("relay-to"), "{head:?}");
        }
    }
    Ok(())
}

async fn pass(local: &Local, guest: &str, address: &str, version: Version) -> Result<()> {
    let (writer, frames) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = Box::pin(stream::unfold(frames, |mut frames| async {
        frames.recv().await.map(|frame| (Ok(frame), frames))
    }));
    let post = request(guest, address, version, StreamBody::new(frames))?;
    let mut client = client(local).await?;
    let mut response = within(client.send_request(post)).await??;
    ensure!(response.status() == 200, "{}", response.status());
    for n in 0..16 {
        let part = Bytes::from(vec![n; PART]);
        writer.send(Frame::data(part.clone())).await?;
        let mut got = Vec::new();
        while got.len() < PART {
            let frame = within(response.frame()).await?.context("it has ended")??;
            got.extend_from_slice(frame.data_ref().context("a frame without data")?);
        }
        ensure!(got == part, "another part {n}");
    }
    writer.send(Frame::trailers(status())).await?;
    drop(writer);
    let last = within(response.frame()).await?.context("no trailers")??;
    let trailers = last.into_trailers().ok().context("more data")?;
    ensure!(trailers == status(), "{trailers:?}");
    Ok(())
}

#[tokio::test]
async fn who_does_not_read_the_answer_cannot_send_on_until_it_does() -> Result<()> {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (address, _heads) = upstream(version).await?;
        let local = relays(&address).await?;
        for guest in GUESTS {
            let stall = stall(&local, guest, &address, version);
            stall
                .await
                .with_context(|| format!("{guest} {version:?}"))?;
        }
    }
    Ok(())
}

async fn stall(local: &Local, guest: &str, address: &str, version: Version) -> Result<()> {
    let sent = Arc::<AtomicUsize>::default();
    let counted = sent.clone();
    // Made when it is asked for, that is, when there is room for it.
    let parts = Box::pin(stream::unfold((), move |()| {
        let so_far = counted.fetch_add(PART, Ordering::Relaxed);
        let part = Frame::data(Bytes::from(vec![0; PART]));
        async move { (so_far < ENOUGH).then_some((Ok(part), ())) }
    }));
    let post = request(guest, address, version, StreamBody::new(parts))?;
    let mut client = client(local).await?;
    let response = within(client.send_request(post)).await??;
    ensure!(response.status() == 200, "{}", response.status());
    let stalled = loop {
        let before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(STALLED).await;
        if sent.load(Ordering::Relaxed) == before {
            break before;
        }
    };
    ensure!(stalled < ENOUGH, "all of it was sent, and nothing read");
    let body = timeout(STUCK * 4, response.into_body().collect()).await;
    let body = body.context("stuck")??.to_bytes();
    ensure!(body.len() == ENOUGH, "{} bytes came back", body.len());
    Ok(())
}
