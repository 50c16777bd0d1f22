//! HTTP/2 on the port of HTTP/1.1, by clients that know.

use bytes::Bytes;
use futures::SinkExt as _;
use http::{Request, Version};
use http_body_util::BodyExt as _;

use super::{
    client::{Client, data, empty, get, next, parts, text, trailers, whole},
    *,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn one_port_speaks_both() {
    let world = World::new().await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", "a.com")]), &guest(name))
            .await;
        let mut client = Client::of(&world).await;
        let request = Request::post("http://A.com:80/p?q").header("x-a", "1");
        let response = client.send(request, whole("hello")).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let told =
            ["method", "scheme", "authority", "path", "x-a"].map(|n| header(&format!("echo-{n}")));
        assert_eq!(told, ["POST", "http", "A.com:80", "/p?q", "1"], "{name}");
        assert_eq!(text(response).await.unwrap(), "hello");
        // Another scheme than the one it came by is a lie.
        let request = Request::get("https://a.com/");
        let response = client.send(request, empty()).await.unwrap();
        assert_eq!(response.headers()["echo-scheme"], "http");

        let response = world.get("a.com", "/").await;
        assert!(
            response.contains("echo-scheme: http\r\n"),
            "{name}: {response}"
        );
        assert!(
            response.contains("echo-authority: a.com\r\n"),
            "{name}: {response}"
        );
    }
    let mut client = Client::of(&world).await;
    assert_eq!(client.get("nobody", "/").await.0, 404);
}

#[tokio::test]
async fn it_is_told_apart_however_slowly_it_begins() {
    let world = World::new().await;
    let _served = world.serve(world.kit("v1", &[]), &guest("v1")).await;
    for (first, rest) in [
        (
            "P",
            "OST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ),
        (
            "PRI",
            "X / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ),
    ] {
        let mut stream = world.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert_eq!(status(&response), "200", "{first}: {response}");
    }
    let mut stream = world.connect().await;
    stream.set_nodelay(true).unwrap();
    for part in [
        &PREFACE[..2],
        &PREFACE[2..3],
        &PREFACE[3..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    ] {
        stream.write_all(part).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    // The server's settings.
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4);
    // Half a beginning is none, and nobody waits for the rest of it.
    let mut stream = world.connect().await;
    stream.write_all(b"PR").await.unwrap();
    stream.shutdown().await.unwrap();
    let ended = timeout(Duration::from_secs(10), stream.read(&mut head)).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn streams_run_side_by_side() {
    let world = World::new().await;
    let _slow = world
        .serve(world.kit("slow", &[("host", "slow")]), &guest("slow"))
        .await;
    let _good = world
        .serve(world.kit("good", &[("host", "good")]), &guest("v1"))
        .await;
    let mut client = Client::of(&world).await;
    let slow = tokio::spawn(client.send(get("slow", "/?ms=15000"), empty()));
    until(|| world.counts("slow").in_flight == 1).await;
    for _ in 0..3 {
        assert_eq!(client.get("good", "/").await.0, 200);
    }
    assert_eq!(world.counts("slow").in_flight, 1);
    slow.abort();
}

#[tokio::test]
async fn a_call_as_grpc_makes_it() {
    let world = World::new().await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let mut client = Client::of(&world).await;
        let request = Request::post(format!("http://{name}/pkg.Service/Chat"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let (mut to, body) = parts();
        let mut response = client.send(request, body).await.unwrap();
        assert_eq!(response.status(), 200);
        // Both sides talk at the same time.
        for round in 0..3u8 {
            let message = Bytes::from(vec![0, 0, 0, 0, 1, round]);
            to.send(data(message.clone())).await.unwrap();
            assert_eq!(next(&mut response).await, Some(message), "{name}");
        }
        to.send(trailers("grpc-status", "0")).await.unwrap();
        drop(to);
        let end = response.into_body().collect().await.unwrap();
        assert_eq!(end.trailers().unwrap()["grpc-status"], "0", "{name}");
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(world.counts(name).trapped, 0);
    }
}

#[tokio::test]
async fn trailers_pass_over_the_older_protocol_too() {
    let world = World::new().await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let head = format!("POST / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n");
        let trailers = "te: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
        let body = "5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n";
        let response = world.send(&format!("{head}{trailers}{body}")).await;
        let (head, rest) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\ntrailer: x-sum"), "{name}: {response}");
        assert!(
            rest.ends_with("\r\n0\r\nx-sum: 9\r\n\r\n"),
            "{name}: {response}"
        );
    }
}

#[tokio::test]
async fn what_has_no_body_has_none() {
    let world = World::new().await;
    for name in ["v1", "hello-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let mut client = Client::of(&world).await;
        for (host, wanted) in [(name, 200), ("nobody", 404)] {
            let request = Request::head(format!("http://{host}/"));
            let response = client.send(request, empty()).await.unwrap();
            assert_eq!(response.status(), wanted);
            assert!(hyper::body::Body::is_end_stream(response.body()), "{name}");
            assert_eq!(text(response).await.unwrap(), "");
        }
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(world.counts(name).trapped, 0);
    }
}

#[tokio::test]
async fn who_resets_or_leaves_ends_the_guest() {
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let mut client = Client::of(&world).await;
        // Before the head, and in the middle of the body.
        let asked = tokio::spawn(client.send(get(name, "/?ms=15000"), empty()));
        let begun = client.send(get(name, "/?ms=50&chunks=1000"), empty());
        let mut begun = begun.await.unwrap();
        next(&mut begun).await;
        until(|| world.counts(name).in_flight == 2).await;
        asked.abort();
        until(|| world.counts(name).in_flight == 1).await;
        drop(begun);
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(client.get(name, "/?ms=1").await.0, 200);

        let stream = world.connect().await.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let mut client = Client::over(TcpStream::from_std(stream).unwrap()).await;
        let asked = tokio::spawn(client.send(get(name, "/?ms=15000"), empty()));
        until(|| world.counts(name).in_flight == 1).await;
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        until(|| world.counts(name).in_flight == 0).await;
        assert!(asked.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn what_fails_after_its_head_is_reset_and_nothing_else() {
    let world = World::new().await;
    let _faults = world
        .serve(world.kit("faults", &[("host", "faults")]), &guest("faults"))
        .await;
    let slow = world
        .serve(world.kit("slow", &[("host", "slow")]), &guest("slow"))
        .await;
    let mut client = Client::of(&world).await;
    let response = client.send(get("faults", "/drop-body"), empty());
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(text(response).await.is_err());

    let mut begun = client
        .send(get("slow", "/?ms=50&chunks=1000"), empty())
        .await
        .unwrap();
    next(&mut begun).await;
    drop(slow);
    assert!(text(begun).await.is_err());
    assert_eq!(client.get("faults", "/ok").await.0, 200);
    assert_eq!(client.get("faults", "/panic").await.0, 500);
}

#[tokio::test]
async fn clients_are_sent_away_after_an_answer() {
    let world = World::new().await;
    let _served = world
        .serve(world.kit("slow", &[("host", "a")]), &guest("slow"))
        .await;
    let mut client = Client::of(&world).await;
    let mut idle = Client::of(&world).await;
    assert_eq!(idle.get("a", "/?ms=1").await.0, 200);
    world.server.send_away();
    let long = tokio::spawn(client.send(get("a", "/?ms=700"), empty()));
    until(|| world.counts("slow").in_flight == 1).await;
    assert_eq!(client.get("a", "/?ms=1").await.0, 200);
    // What was open is answered, and that is the end.
    let response = long.await.unwrap().unwrap();
    assert_eq!(text(response).await.unwrap(), "slept 700 ms\n");
    client.ended().await;
    // Who asks nothing is not told, until connections are closed.
    assert!(!idle.connection.is_finished());
    let mut busy = world.connect().await;
    busy.write_all(b"GET /?ms=300 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    until(|| world.counts("slow").in_flight == 1).await;
    world.server.close_connections().await;
    idle.ended().await;
    let mut response = String::new();
    busy.read_to_string(&mut response).await.unwrap();
    assert!(response.contains("connection: close"), "{response}");
}

#[tokio::test]
async fn connections_without_a_request_end() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let world = World::with(server.head_timeout(Duration::from_millis(300))).await;
    let _served = world
        .serve(world.kit("slow", &[("host", "a")]), &guest("slow"))
        .await;
    let mut client = Client::of(&world).await;
    // Longer than that, but not without a request.
    assert_eq!(client.get("a", "/?ms=1000").await.0, 200);
    client.ended().await;
    // The preface, and the beginning of headers.
    let mut stream = world.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82])
        .await
        .unwrap();
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn who_opens_and_resets_streams_all_the_time_is_cut_off() {
    let world = World::new().await;
    let _served = world.serve(world.kit("v1", &[]), &guest("v1")).await;
    let mut attack = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    // GET http://a/, and its reset.
    let block = [0x82, 0x84, 0x86, 0x41, 1, b'a'];
    for stream in (1..=2001u32).step_by(2) {
        let id = stream.to_be_bytes();
        attack.extend([0, 0, block.len() as u8, 1, 5]);
        attack.extend(id);
        attack.extend(block);
        attack.extend([0, 0, 4, 3, 0]);
        attack.extend(id);
        attack.extend([0, 0, 0, 8]);
    }
    let mut stream = world.connect().await;
    let _ = stream.write_all(&attack).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .unwrap();
    // The last frame is GOAWAY, with the reason that it is too much.
    let goaway = answer.windows(4).any(|w| w == [0, 0, 0, 0xb]);
    assert!(goaway, "{answer:?}");
    assert!(
        world.counts("v1").requests < 500,
        "{:?}",
        world.counts("v1")
    );
    until(|| world.counts("v1").in_flight == 0).await;
    assert_eq!(status(&world.get("a", "/").await), "200");
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let world = World::with(server.write_timeout(Duration::from_millis(300))).await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let mut client = Client::of(&world).await;
        let request = Request::post(format!("http://{name}/"));
        let lies = client.send(request, whole(vec![7; 4 << 20])).await.unwrap();
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(client.get(name, "/").await.0, 200);
        assert!(lies.into_body().collect().await.is_err());
    }
}
