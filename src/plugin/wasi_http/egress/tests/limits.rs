//! Time and connections are limited.

use super::*;

fn options(connect: u64, first_byte: u64, between: u64) -> RequestOptions {
    let limit = |millis| (millis > 0).then(|| Duration::from_millis(millis));
    RequestOptions {
        connect_timeout: limit(connect),
        first_byte_timeout: limit(first_byte),
        between_bytes_timeout: limit(between),
    }
}

/// Accepts and says `words`, and then nothing.
async fn silent(words: &'static str) -> Server {
    Server::raw(move |mut stream, _| async move {
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await
}

#[tokio::test]
async fn the_guests_own_limits_are_kept() {
    let world = World::new(&Outside::new().resolver(Names::new(&[])));
    let main = world.component(&["*", "127.0.0.1"]);
    let get = |url: String, options| send(&main, request(Method::GET, &url, empty()), options);
    let mute = silent("").await;
    let failed = within(get(mute.url(), options(0, 50, 0)))
        .await
        .err()
        .unwrap();
    assert!(matches!(failed, Error::ConnectionReadTimeout), "{failed:?}");
    // It takes the connection, but TLS never begins.
    let url = mute.url().replace("http:", "https:");
    let failed = within(get(url, options(50, 0, 0))).await.err().unwrap();
    assert!(matches!(failed, Error::ConnectionTimeout), "{failed:?}");
    let failed = within(get("http://a.test/".to_owned(), options(50, 0, 0))).await;
    let failed = failed.err().unwrap();
    assert!(matches!(failed, Error::DnsTimeout), "{failed:?}");

    let stuck = silent("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let response = get(stuck.url(), options(0, 0, 50)).await.unwrap();
    let failed = within(text(response)).await.unwrap_err();
    assert!(matches!(failed, Error::ConnectionReadTimeout), "{failed:?}");
    // None of these connections is kept.
    within(async {
        while world.pool.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_guest_from_writing() {
    let server = Server::raw(|stream, _| async {
        // Held, and not read.
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let written = Arc::<AtomicUsize>::default();
    let counted = written.clone();
    let piece = Bytes::from(vec![0; 64 << 10]);
    let frames = stream::repeat(piece).map(move |piece| {
        counted.fetch_add(piece.len(), Ordering::Relaxed);
        Ok(Frame::data(piece))
    });
    let post = request(
        Method::POST,
        &server.url(),
        StreamBody::new(frames).boxed_unsync(),
    );
    let failed = within(send(&main, post, options(0, 500, 0)))
        .await
        .err()
        .unwrap();
    assert!(matches!(failed, Error::ConnectionReadTimeout), "{failed:?}");
    // What the two sockets' buffers take.
    let written = written.load(Ordering::Relaxed);
    assert!(written < 32 << 20, "{written}");
}

#[tokio::test]
async fn at_the_limit_calls_wait_for_a_connection() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let mut outside = Outside::new();
    outside.max_connections = 1;
    let world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    let held = silent("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let call = request(Method::GET, &held.url(), empty());
    let holder = send(&main, call, RequestOptions::default()).await.unwrap();

    let call = request(Method::GET, &server.url(), empty());
    let failed = within(send(&main, call, options(50, 0, 0)))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(failed, Error::ConnectionLimitReached),
        "{failed:?}"
    );
    assert_eq!(world.counters.snapshot().connection_limited, 1);
    assert_eq!(server.connections(), 0);

    // One that waits goes on as soon as the connection has ended.
    let url = server.url();
    let mut waiting = Box::pin(get(&main, &url));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(holder);
    assert_eq!(within(waiting).await.unwrap(), "ok");
    let totals = world.pool.outside.totals.snapshot();
    assert_eq!((totals.limited, totals.connections, totals.open), (1, 2, 1));
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_one_to_elsewhere() {
    let servers = [
        Server::http(|_| async { reply("a") }).await,
        Server::http(|_| async { reply("b") }).await,
    ];
    let mut outside = Outside::new();
    outside.max_connections = 1;
    let world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..3 {
        for (server, answer) in servers.iter().zip(["a", "b"]) {
            assert_eq!(within(get(&main, &server.url())).await.unwrap(), answer);
        }
    }
    // And many at once get along with few, each being used for one after the other.
    outside.max_connections = 3;
    let world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    let before = servers[0].connections();
    let calls = (0..50).map(|_| get(&main, servers[0].url().leak()));
    for answer in within(futures::future::join_all(calls)).await {
        assert_eq!(answer.unwrap(), "a");
    }
    assert!(servers[0].connections() - before <= 3);
}

#[tokio::test]
async fn an_idle_connection_that_its_server_has_closed_is_none_to_make_room_with() {
    let hangs_up = Arc::new(tokio::sync::Notify::new());
    let word = hangs_up.clone();
    let closes = Server::raw(move |mut stream, _| {
        let word = word.clone();
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            word.notified().await;
        }
    })
    .await;
    let servers = [
        Server::http(|_| async { reply("a") }).await,
        Server::http(|_| async { reply("b") }).await,
    ];
    let held = silent("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut outside = Outside::new();
    outside.max_connections = 2;
    let world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    assert_eq!(get(&main, &closes.url()).await.unwrap(), "ok");
    assert_eq!(world.pool.open(), 1);
    hangs_up.notify_one();
    within(async {
        while world.pool.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(&main, &servers[0].url()).await.unwrap(), "a");
    let call = request(Method::GET, &held.url(), empty());
    let _holder = send(&main, call, RequestOptions::default()).await.unwrap();
    let call = request(Method::GET, &servers[1].url(), empty());
    let response = within(send(&main, call, options(2000, 0, 0))).await;
    assert_eq!(text(response.unwrap()).await.unwrap(), "b");
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    assert_eq!(get(&main, &server.url()).await.unwrap(), "ok");
    let seconds = Duration::from_secs;
    let now = tokio::time::Instant::now();
    let next = world.pool.expire(now + seconds(29)).unwrap();
    assert!(next <= now + seconds(30), "{:?}", next - now);
    assert_eq!(world.pool.open(), 1);
    assert_eq!(world.pool.expire(now + seconds(31)), None);
    within(async {
        while world.pool.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
