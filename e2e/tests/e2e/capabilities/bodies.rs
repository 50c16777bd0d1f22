//! Bodies are streamed, not gathered.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context as Cx, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http1::handshake,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, sync::mpsc};

use crate::local::{Local, workload};

/// Longest time for a step that takes none.
const STUCK: Duration = Duration::from_secs(20);
const PART: usize = 64 * 1024;

/// A body that is written while it is sent.
struct Parts(mpsc::Receiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Cx<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() -> Result<()> {
    let names = ["echo", "echo-p3"];
    let local = Local::of(&names.map(|name| workload(name, name, json!({})))).await?;
    local.ready(&names).await?;
    for name in names {
        let host = format!("{name}.test");
        let echoed = echo(&local, &host);
        let echoed = tokio::time::timeout(STUCK, echoed).await;
        echoed.context("stuck")?.context(name)?;
    }
    Ok(())
}

async fn echo(local: &Local, host: &str) -> Result<()> {
    let (writer, parts) = mpsc::channel(1);
    let stream = TcpStream::connect(local.address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post("/a/b?c=d")
        .header("host", host)
        .header("x-color", "blue")
        .body(Parts(parts))?;
    let response = tokio::spawn(async move { sender.send_request(request).await });
    let part = |n: u8| Bytes::from(vec![n; PART]);
    writer.send(part(0)).await?;
    let mut response = response.await??;
    head(&response)?;

    // Half of it goes there and comes back before the other half is sent.
    let mut got = Vec::new();
    for n in 1..8 {
        writer.send(part(n)).await?;
        read(&mut response, &mut got, (usize::from(n) + 1) * PART).await?;
    }
    for n in 8..16 {
        writer.send(part(n)).await?;
        read(&mut response, &mut got, usize::from(n) * PART).await?;
    }
    drop(writer);
    while let Some(frame) = response.frame().await {
        got.extend_from_slice(frame?.data_ref().context("a frame without data")?);
    }
    let whole: Vec<u8> = (0..16).flat_map(|n| vec![n; PART]).collect();
    ensure!(
        got == whole,
        "{} bytes of {} came back",
        got.len(),
        whole.len()
    );
    Ok(())
}

fn head(response: &Response<Incoming>) -> Result<()> {
    ensure!(response.status() == 200, "{}", response.status());
    for (name, value) in [
        ("echo-method", "POST"),
        ("echo-path", "/a/b?c=d"),
        ("echo-x-color", "blue"),
    ] {
        let found = response.headers().get(name);
        ensure!(
            found.is_some_and(|found| found == value),
            "{name}: {found:?}"
        );
    }
    Ok(())
}

/// Reads until there are this many bytes.
async fn read(response: &mut Response<Incoming>, got: &mut Vec<u8>, enough: usize) -> Result<()> {
    while got.len() < enough {
        let frame = response.frame().await.context("the body has ended")??;
        got.extend_from_slice(frame.data_ref().context("a frame without data")?);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_written_is_sent_at_once() -> Result<()> {
    let names = ["slow", "slow-p3"];
    let local = Local::of(&names.map(|name| workload(name, name, json!({})))).await?;
    local.ready(&names).await?;
    for name in names {
        let begun = Instant::now();
        let mut response = local
            .send(&format!("{name}.test"), "/?ms=800&chunks=4")
            .await?;
        for n in 1..=4 {
            let chunk = response.chunk().await?.context("the body has ended")?;
            ensure!(chunk == format!("chunk {n}\n"), "{name}: {chunk:?}");
            let (at, due) = (begun.elapsed(), Duration::from_millis(800) * n);
            let late = at.saturating_sub(due);
            ensure!(
                at >= due && late < Duration::from_millis(700),
                "{name}: chunk {n} after {at:?}"
            );
        }
        ensure!(response.chunk().await?.is_none(), "{name}: there is more");
    }
    Ok(())
}
