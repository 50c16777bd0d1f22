//! Connections that are kept for further calls.

use super::*;

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::http(|_| async { reply("hello") }).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..20 {
        assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
    }
    assert_eq!((server.connections(), world.pool.open()), (1, 1));
    // A response that nobody reads takes its connection along.
    let large: &str = "x".repeat(1 << 20).leak();
    let streams = Server::http(move |_| async move { reply(large) }).await;
    let unread = request(Method::GET, &streams.url(), empty());
    drop(
        send(&main, unread, RequestOptions::default())
            .await
            .unwrap(),
    );
    assert_eq!(get(&main, &streams.url()).await.unwrap().len(), 1 << 20);
    assert_eq!(streams.connections(), 2);
}

#[tokio::test]
async fn a_connection_made_on_one_runtime_is_not_used_from_another() {
    let server = Server::http(|_| async { reply("hello") }).await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
    for expected in [2, 3] {
        let (caller, url) = (main.clone(), server.url());
        let elsewhere = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                for _ in 0..3 {
                    get(&caller, &url).await.unwrap();
                }
            });
            // The runtime ends here, and its connection with it.
        });
        within(tokio::task::spawn_blocking(|| elsewhere.join().unwrap()))
            .await
            .unwrap();
        assert_eq!(server.connections(), expected);
        assert_eq!(get(&main, &server.url()).await.unwrap(), "hello");
        assert_eq!((server.connections(), world.pool.open()), (expected, 1));
    }
}

#[tokio::test]
async fn a_closed_connection_is_noticed_and_the_call_repeated_where_that_is_safe() {
    // Answers the first request of each connection, reads the second one and hangs up.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = Server::raw(move |mut stream, _| {
        let log = log.clone();
        async move {
            for answered in [true, false] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"body") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") && head.starts_with(b"POST") {
                        // Its body is to follow.
                        head.push(b' ');
                    }
                }
                let method = String::from_utf8_lossy(&head[..4]).trim().to_owned();
                log.lock().unwrap().push((method, answered));
                if answered {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            }
        }
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..2 {
        assert_eq!(get(&main, &server.url()).await.unwrap(), "ok");
    }
    let log = |method: &str, answered| (method.to_owned(), answered);
    assert_eq!(
        *seen.lock().unwrap(),
        [log("GET", true), log("GET", false), log("GET", true)]
    );
    // One with a body may have been processed: the guest decides.
    let post = request(Method::POST, &server.url(), full("body"));
    let failed = send(&main, post, RequestOptions::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(failed, Error::ConnectionTerminated), "{failed:?}");
    assert_eq!(seen.lock().unwrap()[3..], [log("POST", false)]);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_up_while_idle_costs_nothing() {
    let server = Server::raw(|stream, _| async {
        // Without saying that it will close.
        let (mut reader, mut writer) = stream.into_split();
        let _ = reader.read(&mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        writer.write_all(answer).await.unwrap();
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    for _ in 0..10 {
        // With a body, so that nothing can be repeated once it is sent.
        let post = request(Method::POST, &server.url(), full("body"));
        let response = send(&main, post, RequestOptions::default()).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        within(async {
            while world.pool.open() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_generation_that_ends_takes_its_connections_along() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut stream, number| {
        let closed = closed.clone();
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            // The first one is answered and stays open, the second one's answer has no end.
            let length = if number == 0 { 2 } else { 1000 };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let ended = stream.read(&mut [0; 1024]).await.unwrap_or(0);
            closed.send((number, ended)).unwrap();
        }
    })
    .await;
    let world = World::new(&Outside::new());
    let main = world.component(&["127.0.0.1"]);
    let call = || {
        send(
            &main,
            request(Method::GET, &server.url(), empty()),
            RequestOptions::default(),
        )
    };
    let (idle, busy) = tokio::join!(call(), call());
    let (idle, busy) = (idle.unwrap(), busy.unwrap());
    let length = |response: &Response<WasiBody>| response.body().size_hint().exact();
    let (idle, busy) = if length(&idle) == Some(2) {
        (idle, busy)
    } else {
        (busy, idle)
    };
    assert_eq!(text(idle).await.unwrap(), "ok");
    world.pool.close();
    let mut ended = [
        within(closes.recv()).await.unwrap(),
        within(closes.recv()).await.unwrap(),
    ];
    ended.sort_unstable();
    assert_eq!(ended, [(0, 0), (1, 0)]);
    assert!(within(text(busy)).await.is_err());
    let late = get(&main, &server.url()).await.unwrap_err();
    assert!(matches!(late, Error::ConnectionTerminated), "{late:?}");
    assert_eq!(world.pool.open(), 0);
}
