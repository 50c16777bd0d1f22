//! End to end over real sockets, with guests that are checked in.

use std::{net::TcpListener, panic::Location, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

mod bodies;
mod client;
mod counts;
mod faults;
mod faults_p3;
mod fuel;
mod generations;
mod http2;
mod https;
mod idle;
mod leaving;
mod limits;
mod reuse;
mod service_port;
mod uploads;
mod waiting;

use super::*;
use crate::{
    engine::Engine,
    fault::{Class, Reason},
    plugin::testing::{self, Kit, config_entry, guest},
};

struct World {
    server: Arc<HttpServer>,
    engine: Engine,
}

/// A served workload.
struct Served {
    // Before the rest, so that it ends as in a host: with everything else still there.
    binding: Box<dyn Binding>,
    signal: Arc<tokio::sync::Notify>,
}

impl World {
    async fn new() -> Self {
        Self::with(HttpServer::new("127.0.0.1:0".parse().unwrap())).await
    }

    async fn with(server: HttpServer) -> Self {
        let server = server.workers(NonZeroUsize::new(2).unwrap());
        server.start().await.unwrap();
        let engine = Engine::builder().max_instances(64).build().unwrap();
        Self {
            server: Arc::new(server),
            engine,
        }
    }

    fn kit(&self, name: &str, config: &[(&str, &str)]) -> Kit {
        let mut kit = Kit::new(self.server.clone());
        kit.workload = testing::workload(name);
        kit.workload.interfaces = vec![config_entry("wasi:http", &["incoming-handler"], config)];
        kit
    }

    async fn serve(&self, mut kit: Kit, bytes: &[u8]) -> Served {
        let mut bound = kit.link(&self.engine, bytes).await.unwrap();
        bound.binding.start(&bound.linked).unwrap();
        Served {
            binding: bound.binding,
            signal: bound.signal,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.addr().unwrap())
            .await
            .unwrap()
    }

    fn port(&self) -> u16 {
        self.server.addr().unwrap().port()
    }

    /// The first answer of so many with this status: a guest that the system stops in the middle of its slice is answered for
    /// sooner than it is whole.
    async fn soon(&self, host: &str, path: &str, wanted: &str) -> String {
        let mut response = String::new();
        for _ in 0..5 {
            response = self.get(host, path).await;
            if status(&response) == wanted {
                return response;
            }
        }
        panic!("{host}{path}: {response}")
    }

    /// The whole response to a request, headers included.
    async fn get(&self, host: &str, target: &str) -> String {
        self.send(&format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        ))
        .await
    }

    async fn send(&self, request: &str) -> String {
        send_to(self.port(), request).await.unwrap()
    }

    fn counts(&self, workload: &str) -> HttpSnapshot {
        self.server.snapshot(workload).unwrap()
    }
}

/// The whole response to a request at a port, headers included.
async fn send_to(port: u16, request: &str) -> std::io::Result<String> {
    let answered = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        Ok(String::from_utf8(response).unwrap())
    };
    timeout(Duration::from_secs(30), answered).await.unwrap()
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or(response)
}

/// Whether a response came to its end, as its head announces that.
fn is_whole(response: &str) -> bool {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => length.parse() == Ok(body.len()),
        None => response.ends_with("\r\n0\r\n\r\n"),
    }
}

#[track_caller]
fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let whence = Location::caller();
    async move {
        timeout(Duration::from_secs(10), async {
            while !condition() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("what {whence} waits for did not happen"));
    }
}

#[tokio::test]
async fn both_generations_of_wasi_are_served() {
    let world = World::new().await;
    let mut served = Vec::new();
    for name in ["hello-p3", "hello-0-2-0", "v1"] {
        served.push(
            world
                .serve(world.kit(name, &[("host", name)]), &guest(name))
                .await,
        );
        let response = world.get(name, "/").await;
        assert_eq!(status(&response), "200", "{name}: {response}");
        assert!(is_whole(&response), "{name}: {response}");
        assert_eq!(world.counts(name).requests, 1);
        // What is short is sent with its length, unless the system has stopped the guest in the middle of it.
        let mut lengths = 0;
        for _ in 0..5 {
            let response = world.get(name, "/").await;
            lengths += usize::from(response.contains("\r\ncontent-length: "));
        }
        assert!(lengths > 0, "{name}");
    }
}

#[cfg(feature = "wasi-config")]
#[tokio::test]
async fn configuration_is_there_in_both_versions() {
    let world = World::new().await;
    for name in ["config", "config-runtime"] {
        let mut kit = world.kit(name, &[("host", name)]);
        kit.others = vec![Arc::new(crate::plugin::wasi_config::WasiConfig::default())];
        kit.workload.interfaces.push(config_entry(
            "wasi:config",
            &["store"],
            &[("a", "1"), ("b", "1")],
        ));
        kit.workload.components[0].config = [("b".to_owned(), "2".to_owned())].into();
        let _served = world.serve(kit, &guest(name)).await;
        let response = world.get(name, "/").await;
        assert!(response.contains("a=1\nb=2\n"), "{name}: {response}");
        assert_eq!(status(&world.get(name, "/missing").await), "404");
    }
}

#[tokio::test]
async fn nothing_is_ambient() {
    let world = World::new().await;
    let mut kit = world.kit("ambient", &[]);
    kit.workload.components[0].environment = [("GREETING".to_owned(), "hi".to_owned())].into();
    let _served = world.serve(kit, &guest("ambient")).await;
    let port = world.server.addr().unwrap().port();
    let report = world
        .get("a", &format!("/?tcp=127.0.0.1:{port}&dns=example.com"))
        .await;
    let line = |name: &str| {
        report
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("missing")
            .trim()
    };
    assert_eq!(line("env"), r#"[("GREETING", "hi")]"#, "{report}");
    assert_eq!(line("args"), "[]", "{report}");
    assert_eq!(line("cwd"), "None", "{report}");
    assert_eq!(line("preopens"), "[]", "{report}");
    for refused in ["dns ", "connect ", "listen "] {
        assert!(line(refused).starts_with("Err"), "{report}");
    }
}

#[tokio::test]
async fn responses_without_a_body_end() {
    let world = World::new().await;
    for name in ["hello-p3", "v1"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let response = world
            .send(&format!(
                "HEAD / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert!(
            status(&response) == "200" && response.ends_with("\r\n\r\n"),
            "{name}: {response}"
        );
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(world.counts(name).trapped, 0);
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let world = World::new().await;
    let _served = world
        .serve(world.kit("hello", &[]), &guest("hello-0-2-0"))
        .await;
    let mut stream = world.connect().await;
    let mut text = String::new();
    for _ in 0..3 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        while !is_whole(&text) {
            let mut part = vec![0; 1024];
            let read = timeout(Duration::from_secs(10), stream.read(&mut part))
                .await
                .unwrap()
                .unwrap();
            assert!(read > 0, "{text}");
            text.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        assert_eq!(status(&text), "200");
        text.clear();
    }
}

#[tokio::test]
async fn who_has_no_route_gets_404() {
    let world = World::new().await;
    let response = world.get("nobody", "/").await;
    assert_eq!(status(&response), "404");
    let served = world
        .serve(
            world.kit("a", &[("host", "a.com"), ("path", "/api")]),
            &guest("v1"),
        )
        .await;
    assert_eq!(status(&world.get("A.com:80", "/api/x").await), "200");
    assert_eq!(status(&world.get("a.com", "/apis").await), "404");
    assert_eq!(status(&world.get("b.com", "/api").await), "404");
    assert_eq!(
        status(
            &world
                .send("GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
                .await
        ),
        "400"
    );
    drop(served);
    assert_eq!(status(&world.get("a.com", "/api").await), "404");
}

#[tokio::test]
async fn calls_out_are_denied_unless_allowed() {
    let world = World::new().await;
    let upstream = world
        .serve(
            world.kit("upstream", &[("host", "127.0.0.1")]),
            &guest("v1"),
        )
        .await;
    let port = world.server.addr().unwrap().port();
    let target = format!("/?url=http://127.0.0.1:{port}/");
    for name in ["fetch", "fetch-p3"] {
        let _denied = world
            .serve(world.kit("denied", &[("host", "denied")]), &guest(name))
            .await;
        let response = world.get("denied", &target).await;
        assert!(
            status(&response) == "502" && response.contains("HttpRequestDenied"),
            "{name}: {response}"
        );
        assert_eq!(world.counts("denied").denied, 1);

        let mut kit = world.kit("allowed", &[("host", "allowed")]);
        kit.workload.components[0].allowed_hosts =
            vec![format!("http://127.0.0.1:{port}").parse().unwrap()];
        let _allowed = world.serve(kit, &guest(name)).await;
        let response = world.get("allowed", &target).await;
        assert_eq!(status(&response), "200", "{name}: {response}");
        assert!(response.contains("v1"), "{name}: {response}");
        let elsewhere = world.get("allowed", "/?url=http://127.0.0.1:1/").await;
        assert!(
            elsewhere.contains("HttpRequestDenied"),
            "{name}: {elsewhere}"
        );
    }
    drop(upstream);
}

#[tokio::test]
async fn a_busy_port_is_an_error_and_a_dropped_server_leaves_it_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = HttpServer::new(address).start().await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(taken);
    for _ in 0..2 {
        let server = HttpServer::new(address);
        assert_eq!(server.addr(), None);
        server.start().await.unwrap();
        assert_eq!(server.addr(), Some(address));
        // Also with a connection that is open.
        let _open = TcpStream::connect(address).await.unwrap();
        drop(server);
    }
    TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn idle_connections_end_and_do_not_hold_others_up() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap())
        .head_timeout(Duration::from_millis(300))
        .max_connections(NonZeroUsize::MIN);
    let world = World::with(server).await;
    let _served = world.serve(world.kit("hello", &[]), &guest("v1")).await;
    let mut idle = world.connect().await;
    // Accepted only when the idle one is closed.
    assert_eq!(status(&world.get("a", "/").await), "200");
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap_or(0), 0);
}
