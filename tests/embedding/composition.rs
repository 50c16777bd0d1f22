//! Components of one workload that import each other.

use std::{collections::HashMap, net::SocketAddr};

use wash_runtime::{
    fault::{Fault, Reason},
    host::{HostApi as _, HostApiError},
    types::{Component, LocalResources, Workload},
};

use super::host::{get, host, request, send, workload};

const FRONT: &[u8] = include_bytes!("../../e2e/guests/wasm/compose-front.wasm");
const BACK: &[u8] = include_bytes!("../../e2e/guests/wasm/compose-back.wasm");
const ECHO_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/echo-p3.wasm");
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
async fn grants_that_differ_are_never_shared() {
    let none = LocalResources::default;
    let cases = [
        (
            "config",
            LocalResources {
                config: map(&[("key", "secret")]),
                ..none()
            },
        ),
        (
            "environment",
            LocalResources {
                environment: map(&[("NAME", "secret")]),
                ..none()
            },
        ),
        (
            "allowedHosts",
            LocalResources {
                allowed_hosts: vec!["secret.test".into()],
                ..none()
            },
        ),
    ];
    for (field, granted) in cases {
        for parts in [
            [("front", FRONT, granted.clone()), ("back", BACK, none())],
            [("front", FRONT, none()), ("back", BACK, granted)],
        ] {
            let fault = refused(composed(parts)).await;
            assert_eq!(fault.reason, Reason::UnsupportedSpec, "{fault}");
            for text in ["\"front\" and \"back\"", field, "workloads of their own"] {
                assert!(fault.message.contains(text), "{text}: {fault}");
            }
            assert!(!fault.message.contains("secret"), "{fault}");
        }
    }
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
