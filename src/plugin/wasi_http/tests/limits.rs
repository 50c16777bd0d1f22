//! Sizes of heads and bodies, and clients that do not read.

use futures::SinkExt as _;
use http::Request;

use super::{
    client::{Client, data, parts, text, whole},
    *,
};

const MAX_BODY: usize = 1 << 20;

async fn small() -> World {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    World::with(server.max_body(MAX_BODY as u64)).await
}

fn post(host: &str, head: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{head}\r\n\r\n")
}

fn chunk(size: usize) -> String {
    format!("{size:x}\r\n{}\r\n", "x".repeat(size))
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_refused_at_once() {
    let world = small().await;
    let _served = world.serve(world.kit("count", &[]), &guest("count")).await;
    // The client has not sent any of it, or all of it, or waits until it may.
    let too_large = format!("content-length: {}", MAX_BODY + 1);
    for (head, body) in [
        (too_large.clone(), 0),
        (too_large.clone(), MAX_BODY + 1),
        (too_large + "\r\nexpect: 100-continue", 0),
    ] {
        let response = world.send(&(post("a", &head) + &"x".repeat(body))).await;
        assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    }
    let fits = post("a", &format!("content-length: {MAX_BODY}"));
    let response = world.send(&(fits + &"x".repeat(MAX_BODY))).await;
    assert!(response.contains("1048576 bytes\n"), "{response}");
    let counts = world.counts("count");
    assert_eq!((counts.requests, counts.too_large), (4, 3), "{counts:?}");
}

#[tokio::test]
async fn a_body_that_becomes_too_large_is_refused_or_cuts_the_response() {
    let world = small().await;
    let _count = world
        .serve(world.kit("count", &[("host", "count")]), &guest("count"))
        .await;
    let request = |host| {
        let parts = chunk(MAX_BODY / 2).repeat(3) + "0\r\n\r\n";
        post(host, "transfer-encoding: chunked") + &parts
    };
    let response = world.send(&request("count")).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    let mut client = Client::of(&world).await;
    let (mut to, body) = parts();
    let answer = tokio::spawn(client.send(Request::post("http://count/"), body));
    for _ in 0..3 {
        // It may be refused before the last one.
        let _ = to.send(data(vec![7; MAX_BODY / 2])).await;
    }
    assert_eq!(answer.await.unwrap().unwrap().status(), 413);
    until(|| world.counts("count").in_flight == 0).await;
    assert_eq!(world.counts("count").too_large, 2);

    for name in ["echo", "echo-p3"] {
        let _echo = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let response = send_to(world.port(), &request(name))
            .await
            .unwrap_or_default();
        assert!(!is_whole(&response), "{name}");
        let (mut to, body) = parts();
        let request = Request::post(format!("http://{name}/"));
        let response = client.send(request, body).await.unwrap();
        let sent = tokio::spawn(async move {
            for _ in 0..3 {
                let _ = to.send(data(vec![7; MAX_BODY / 2])).await;
            }
        });
        assert!(text(response).await.is_err(), "{name}");
        sent.await.unwrap();
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(world.counts(name).too_large, 2, "{name}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::new().await;
    let _served = world.serve(world.kit("v1", &[]), &guest("v1")).await;
    let with = |size: usize| {
        let value = "x".repeat(size);
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {value}\r\n\r\n")
    };
    assert_eq!(status(&world.send(&with(60 << 10)).await), "200");
    assert_eq!(status(&world.send(&with(65 << 10)).await), "431");
    // Also when much of it comes after the answer.
    assert_eq!(status(&world.send(&with(4 << 20)).await), "431");
    // Counted when the answer is out.
    until(|| world.server.refused().large_head == 2).await;
    let mut client = Client::of(&world).await;
    for (size, wanted) in [(60 << 10, 200), (65 << 10, 431)] {
        let request = Request::get("http://a/").header("x", "x".repeat(size));
        let response = client.send(request, whole("")).await.unwrap();
        assert_eq!(response.status(), wanted);
    }
}

#[tokio::test]
async fn a_head_of_too_many_headers_is_refused() {
    let world = World::new().await;
    let _served = world.serve(world.kit("v1", &[]), &guest("v1")).await;
    // Two of its own beside these.
    let with = |more: usize| {
        let more: String = (0..more).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n")
    };
    assert_eq!(status(&world.send(&with(98)).await), "200");
    assert_eq!(status(&world.send(&with(99)).await), "431");
    until(|| world.server.refused().large_head == 1).await;
}

#[tokio::test]
async fn who_writes_first_gets_an_answer_that_did_not_wait_for_that() {
    const SIZE: usize = 16 << 20;
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let mut stream = world.connect().await;
        let head = post(name, &format!("content-length: {SIZE}"));
        stream.write_all(head.as_bytes()).await.unwrap();
        // Its answer is there long before the rest is.
        sleep(Duration::from_millis(300)).await;
        stream.write_all(&vec![b'~'; SIZE]).await.unwrap();
        let mut response = vec![0; 12];
        stream.read_exact(&mut response).await.unwrap();
        assert_eq!(response, b"HTTP/1.1 200", "{name}");
    }
}

/// Bytes that the client of an echo can write before it reads anything.
async fn pour(world: &World, host: &str) -> (TcpStream, usize) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // The system would keep many MiB of its own else.
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(world.server.addr().unwrap()).await.unwrap();
    let head = post(host, "transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).await.unwrap();
    let part = chunk(64 << 10);
    let mut poured = 0;
    // Nothing for a second: everything is full. Or the server has given up already.
    while let Ok(Ok(())) = timeout(Duration::from_secs(1), stream.write_all(part.as_bytes())).await
    {
        poured += part.len();
        assert!(poured < 512 << 20, "somebody keeps all of it");
    }
    (stream, poured)
}

#[tokio::test]
async fn who_does_not_read_is_not_read_from() {
    let world = World::new().await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        // What the system keeps of both directions, up to 33 MiB and 4 MiB, and a little of ours.
        let (_stream, poured) = pour(&world, name).await;
        assert!(poured < 48 << 20, "{name}: {poured}");
    }
}

#[tokio::test]
async fn who_reads_nothing_for_long_is_given_up() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let world = World::with(server.write_timeout(Duration::from_millis(1500))).await;
    let mut kit = world.kit("echo", &[]);
    kit.workload.components[0].request_timeout = Some(Duration::from_secs(600));
    let _served = world.serve(kit, &guest("echo")).await;
    let (mut stream, _) = pour(&world, "a").await;
    until(|| world.counts("echo").in_flight == 0).await;
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
        .await
        .expect("it is closed");
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"));
}
