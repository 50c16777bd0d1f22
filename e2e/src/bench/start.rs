//! P6: from an apply to the first answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Figure, Options,
    figure::median,
    peer::Peer,
    scene::{LIMIT, Scene, host, status},
};

/// Starts a round.
const STARTS: usize = 10;
/// Between two questions whether the route answers.
const POLL: Duration = Duration::from_micros(500);
/// Between two starts, so that the one does not feel what the other left to do.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let scene = Scene::new(options, 1, false).await?;
    let agent = scene.agent().await?;
    let names = scene.create(1).await?;
    scene.readiness(1).await?.all().await?;
    let api = scene.api()?;
    let first = names.first().context("a Workload")?;
    let peer = Peer::new(&scene, status(&api, first).await?).await?;
    let image = scene.images.first().context("an image")?.clone();

    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for start in 0..options.rounds * STARTS {
        let name = format!("timed-{start}");
        let object = scene.workload(&name, &image)?;
        let (begun, mut connection) =
            (Instant::now(), TcpStream::connect(agent.http_addr()).await?);
        connection.set_nodelay(true)?;
        let params = PostParams::default();
        let created = api.create(&params, &object);
        let (created, answered) = tokio::join!(created, first_answer(&mut connection, &name));
        created.context("creating a Workload")?;
        let answered: Instant = answered?;
        ours.push(answered.duration_since(begun).as_secs_f64() * 1000.0);
        api.delete(&name, &DeleteParams::default()).await?;
        tokio::time::sleep(PAUSE).await;

        peers.push(bare(&scene, &peer, &name, &image).await?.as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    let (ours, peer) = (median(&ours), median(&peers));
    Ok(vec![Figure {
        figure: "P6",
        value: ours - peer,
        target: Some(10.0),
        ours,
        peer: Some(peer),
        unit: "ms",
        note: format!(
            "median of {} starts; the bare client watches, and applies the same status as soon as it sees the Workload",
            options.rounds * STARTS
        ),
    }])
}

/// When a workload's route answers 200 for the first time.
async fn first_answer(connection: &mut TcpStream, name: &str) -> Result<Instant> {
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(name));
    let begun = Instant::now();
    let mut buffer = vec![0; 4096];
    while begun.elapsed() < LIMIT {
        connection.write_all(request.as_bytes()).await?;
        // An answer is short, so it comes whole.
        let read = connection.read(&mut buffer).await?;
        let head = buffer.get(..read).unwrap_or_default();
        if head.starts_with(b"HTTP/1.1 200") {
            return Ok(Instant::now());
        }
        if !head.starts_with(b"HTTP/1.1 404") {
            bail!("{name} answers {}", String::from_utf8_lossy(head));
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("{name} does not answer")
}

/// From creating a Workload of another node until its status is written by a client that learns of it by a watch.
async fn bare(scene: &Scene, peer: &Peer, name: &str, image: &str) -> Result<Duration> {
    let name = format!("bare-{name}");
    let mut object = scene.workload(&name, image)?;
    // Nobody else looks at it.
    if let Some(spec) = object.data.pointer_mut("/spec/hostId") {
        *spec = "nobody".into();
    }
    if let Some(status) = object.data.as_object_mut() {
        status.remove("status");
    }
    let (admin, agent) = (scene.api()?, peer.api(scene)?);
    let version = admin.list(&ListParams::default().limit(1)).await?;
    let version = version.metadata.resource_version.unwrap_or_default();
    let watching = watch(&agent, &version, &name);
    let mut events = watching.await?;
    let begun = Instant::now();
    let created = async {
        let created = admin.create(&PostParams::default(), &object).await;
        created.map(drop).context("creating a Workload")
    };
    let written = async {
        let seen = next(&mut events, &name).await?;
        let (name, mut body) = peer.body(&seen);
        if let Some(host) = body.pointer_mut("/status/hostId") {
            *host = "nobody".into();
        }
        peer.apply(&admin, &name, &body).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (_, took) = tokio::try_join!(created, written)?;
    admin.delete(&name, &DeleteParams::default()).await?;
    Ok(took)
}

type Events = futures::stream::BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>;

async fn watch(api: &Api<DynamicObject>, version: &str, name: &str) -> Result<Events> {
    use futures::StreamExt as _;
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let events = api.watch(&params, version).await.context("watching")?;
    Ok(events.boxed())
}

async fn next(events: &mut Events, name: &str) -> Result<DynamicObject> {
    use futures::StreamExt as _;
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(object) = event.context("watching")?
            && object.name_any() == name
        {
            return Ok(object);
        }
    }
    bail!("the watch on {name} ended")
}
