//! Components of one workload that import each other.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wash_runtime::{
    fault::{Fault, Reason},
    host::{HostApi as _, HostApiError, HostBuilder},
    types::{Component, LocalResources, Mount, Volume, Workload},
};

use super::host::{get, host, host_of, request, send, workload};

const FRONT: &[u8] = include_bytes!("../../e2e/guests/wasm/compose-front.wasm");
const BACK: &[u8] = include_bytes!("../../e2e/guests/wasm/compose-back.wasm");
const ECHO_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/echo-p3.wasm");
const GRANTED_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/granted-p3.wasm");
const MIDDLEWARE_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/middleware-p3.wasm");

/// Parts by name, at the host name `a.test`.
fn composed(parts: [(&str, &'static [u8], LocalResources); 2]) -> Workload {
    let components = parts.map(|(name, bytes, local_resources)| Component {
        name: name.into(),
        source: wash_runtime::spec::Source::Bytes(bytes.into()),
        local_resources,
        ..Component::default()
    });
    Workload {
        components: components.into(),
        ..workload("composed", "a.test", b"")
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    pairs.collect()
}

/// The answer to a GET, with its length or in one chunk.
async fn text(addr: SocketAddr, path: &str) -> String {
    let (line, body) = get(addr, "a.test", path).await;
    assert!(line.contains("200"), "{path}: {line} {body}");
    let chunk = body
        .strip_suffix("\r\n0\r\n\r\n")
        .and_then(|chunk| chunk.split_once("\r\n"));
    chunk.map_or(&*body, |(_, data)| data).to_owned()
}

async fn refused(workload: Workload) -> Fault {
    let (host, _) = host().await;
    match host.workload_start(request(workload)).await {
        Err(HostApiError::Failed(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_component_calls_another_one_and_both_are_told_of() {
    for back_first in [false, true] {
        let (host, addr) = host().await;
        let mut parts = [
            ("front", FRONT, LocalResources::default()),
            ("back", BACK, LocalResources::default()),
        ];
        if back_first {
            parts.reverse();
        }
        let status = host.workload_start(request(composed(parts))).await;
        let id = status.expect("it starts").workload_id;
        let hello = text(addr, "/hello?name=you").await;
        assert_eq!(hello, "hello you, from the back");
        for path in ["/calls?n=1000", "/inner?n=1000"] {
            let took = text(addr, path).await;
            assert!(took.parse::<u64>().is_ok(), "{path}: {took}");
        }
        let components = host.observe(&id).expect("known").components;
        let names: Vec<&str> = components.iter().map(|c| &*c.name).collect();
        let wanted = if back_first {
            ["back", "front"]
        } else {
            ["front", "back"]
        };
        assert_eq!(names, wanted);
        assert!(components.iter().all(|c| c.digest.is_some()));
        assert_ne!(components[0].digest, components[1].digest);
    }
}

#[tokio::test]
async fn requests_and_streams_go_from_one_handler_to_the_next() {
    let (host, addr) = host().await;
    host.workload_start(request(composed([
        ("app", ECHO_P3, LocalResources::default()),
        ("auth", MIDDLEWARE_P3, LocalResources::default()),
    ])))
    .await
    .expect("it starts");
    let (_, body) = get(addr, "a.test", "/middleware").await;
    assert!(body.contains("from the middleware"), "{body}");
    let text = "x".repeat(100_000);
    let head = format!(
        "POST /app HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {}",
        text.len()
    );
    let (head, body) = send(addr, format!("{head}\r\n\r\n{text}")).await;
    assert!(
        head.contains("200") && body.matches('x').count() >= text.len(),
        "{head}"
    );
    // A second request gets instances of its own.
    let (_, body) = get(addr, "a.test", "/middleware").await;
    assert!(body.contains("from the middleware"), "{body}");
}

#[tokio::test]
async fn grants_that_are_equal_are_both_components() {
    let (host, addr) = host().await;
    let both = || LocalResources {
        config: map(&[("key", "of both")]),
        environment: map(&[("NAME", "both")]),
        ..LocalResources::default()
    };
    host.workload_start(request(composed([
        ("front", FRONT, both()),
        ("back", BACK, both()),
    ])))
    .await
    .expect("it starts");
    for (path, wanted) in [
        ("config=key", "of both"),
        ("variable=NAME", "both"),
        ("authority=127.0.0.1:9", "HttpRequestDenied"),
    ] {
        for part in ["front", "back"] {
            let found = text(addr, &format!("/{part}?{path}")).await;
            assert_eq!(found, wanted, "{part} {path}");
        }
    }
}

#[tokio::test]
async fn each_component_has_the_grants_that_are_its_own() {
    let (server, reached) = answering().await;
    let (host, addr) = host_of(HostBuilder::new().allow_host_loopback(true)).await;
    let volume = |name: &str| Volume {
        name: name.into(),
        ..Volume::default()
    };
    for (version, [front, back], paths) in [
        ("p2", [FRONT, BACK], ["/front", "/back"]),
        ("p3", [MIDDLEWARE_P3, GRANTED_P3], ["/own", "/"]),
    ] {
        for more in [0, 1] {
            let resources = [0, 1].map(|part| granted(part, part == more, reached));
            let [of_front, of_back] = resources;
            let parts = [("front", front, of_front), ("back", back, of_back)];
            let workload = Workload {
                volumes: vec![volume("of-0"), volume("of-1")],
                ..composed(parts)
            };
            let status = host.workload_start(request(workload)).await;
            let id = status.expect("it starts").workload_id;
            for (part, path) in paths.into_iter().enumerate() {
                for (query, wanted) in found(version, part, part == more, reached) {
                    let found = text(addr, &format!("{path}?{query}")).await;
                    assert_eq!(found, wanted, "{version}: {path}?{query}, {more} has more");
                }
            }
            host.workload_stop(&id).await.expect("it stops");
        }
    }
    server.abort();
}

/// Resources of the first or the second part, of which one may do more.
fn granted(part: usize, more: bool, reached: SocketAddr) -> LocalResources {
    let value = format!("of {part}");
    let if_more = |text: String| if more { vec![text] } else { Vec::new() };
    LocalResources {
        config: map(&[("key", &value)]),
        environment: map(&[("NAME", &value)]),
        allowed_hosts: if_more(format!("http://{reached}")),
        allowed_ip_name_lookups: if_more("name.invalid".into()),
        allowed_host_loopback_ports: if_more(reached.port().to_string()),
        volume_mounts: vec![Mount {
            volume: format!("of-{part}"),
            path: format!("/of-{part}"),
            ..Mount::default()
        }],
        ..LocalResources::default()
    }
}

/// What such a part is to find: queries, and the answers to them.
fn found(version: &str, part: usize, more: bool, reached: SocketAddr) -> Vec<(String, String)> {
    let port = reached.port();
    let either = |yes: &str, no: &str| if more { yes.to_owned() } else { no.to_owned() };
    let denied = if version == "p2" {
        "access-denied"
    } else {
        "AccessDenied"
    };
    let unknown = if version == "p2" {
        "name-unresolvable"
    } else {
        "NameUnresolvable"
    };
    let mut found = vec![
        ("variable=NAME".into(), format!("of {part}")),
        ("directories=".into(), format!("/of-{part}")),
        (
            format!("authority={reached}"),
            either("200", "HttpRequestDenied"),
        ),
        ("lookup=name.invalid".into(), either(unknown, denied)),
        (
            format!("connect=127.255.255.254:{port}"),
            either("done", denied),
        ),
    ];
    // There is none for WASI 0.3 yet.
    if version == "p2" {
        found.push(("config=key".into(), format!("of {part}")));
    }
    found
}

/// A server on the loopback that answers whatever it is asked, and its address.
async fn answering() -> (tokio::task::JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok() {
                    let _ = stream
                        .write_all(
                            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                        )
                        .await;
                }
            });
        }
    });
    (server, address)
}

#[tokio::test]
async fn what_cannot_be_linked_says_which_component_and_why() {
    let none = LocalResources::default;
    let cases = [
        (
            composed([("front", FRONT, none()), ("back", FRONT, none())]),
            "front",
            Reason::ImportNotSatisfied,
            "washlet-test:greeter/greet@1.0.0 (the host and the other components offer nothing of washlet-test:greeter)",
        ),
        (
            composed([
                ("front", FRONT, none()),
                ("back", b"\0asm\x01\0\0\0", none()),
            ]),
            "back",
            Reason::NotAComponent,
            "core module",
        ),
    ];
    for (workload, component, reason, text) in cases {
        let fault = refused(workload).await;
        assert_eq!(fault.reason, reason, "{fault}");
        assert_eq!(fault.component.as_deref(), Some(component), "{fault}");
        assert!(fault.message.contains(text), "{text}: {fault}");
    }
}
