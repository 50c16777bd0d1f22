//! A host with real components over real HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use wash_runtime::{
    fault::Reason,
    host::{BuildError, Host, HostApi, HostApiError, HostBuilder},
    plugin::{wasi_config::WasiConfig, wasi_http::HttpServer},
    spec::Source,
    types::{
        Component, LocalResources, WitInterface, Workload, WorkloadStartRequest, WorkloadState,
    },
};

const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");
const V1: &[u8] = include_bytes!("../../e2e/guests/wasm/v1.wasm");
const V2: &[u8] = include_bytes!("../../e2e/guests/wasm/v2.wasm");
const CONFIG: &[u8] = include_bytes!("../../e2e/guests/wasm/config.wasm");
const NEEDS_WIDGETS: &[u8] = include_bytes!("../../e2e/guests/wasm/needs-widgets.wasm");

async fn host() -> (Arc<Host>, SocketAddr) {
    let http = Arc::new(HttpServer::new(([127, 0, 0, 1], 0).into()));
    let host = HostBuilder::new()
        .with_plugin(http.clone())
        .and_then(|b| b.with_plugin(Arc::new(WasiConfig::default())))
        .and_then(HostBuilder::build)
        .expect("a host");
    let host = host.start().await.expect("it starts");
    let addr = http.addr().expect("a bound address");
    (host, addr)
}

/// A workload of one HTTP component at a host name.
fn workload(name: &str, route: &str, bytes: &'static [u8]) -> Workload {
    Workload {
        namespace: "test".into(),
        name: name.into(),
        components: vec![Component {
            name: "app".into(),
            source: Source::Bytes(bytes.into()),
            ..Component::default()
        }],
        host_interfaces: vec![WitInterface {
            namespace: "wasi".into(),
            package: "http".into(),
            interfaces: vec!["incoming-handler".into()],
            config: [("host".to_owned(), route.to_owned())].into(),
            ..WitInterface::default()
        }],
        ..Workload::default()
    }
}

fn request(workload: Workload) -> WorkloadStartRequest {
    WorkloadStartRequest { workload }
}

/// Status line and body of a GET.
async fn get(addr: SocketAddr, host: &str, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).expect("a limit");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let answer = answer.await.expect("no panic");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().expect("a status line");
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_component_answers_from_start_to_stop() {
    let (host, addr) = host().await;
    let started = host
        .workload_start(request(workload("hello", "a.test", HELLO)))
        .await;
    let status = started.expect("it starts");
    assert_eq!(status.state, WorkloadState::Running);
    let (line, body) = get(addr, "a.test", "/").await;
    assert!(
        line.contains("200") && body.contains("Hello"),
        "{line} {body}"
    );
    assert!(
        get(addr, "b.test", "/").await.0.contains("404"),
        "no such route"
    );

    let beat = host.heartbeat().await;
    assert_eq!((beat.workload_count, beat.component_count), (1, 1));

    host.workload_stop(&status.workload_id)
        .await
        .expect("it stops");
    assert!(
        get(addr, "a.test", "/").await.0.contains("404"),
        "it is gone"
    );
    let again = host.workload_stop(&status.workload_id).await;
    assert_eq!(again, Err(HostApiError::NotFound(status.workload_id)));
}

#[tokio::test]
async fn an_empty_workload_runs() {
    let (host, _) = host().await;
    let status = host
        .workload_start(request(Workload::default()))
        .await
        .expect("it starts");
    let state = host
        .workload_status(&status.workload_id)
        .await
        .expect("known")
        .state;
    assert_eq!(state, WorkloadState::Running);
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let (host, _) = host().await;
    let cases = [
        (
            workload("a", "a.test", b"not wasm"),
            Reason::NotAComponent,
            "app",
        ),
        (
            workload("a", "a.test", b"\0asm\x01\0\0\0"),
            Reason::NotAComponent,
            "module",
        ),
        (
            workload("a", "a.test", NEEDS_WIDGETS),
            Reason::ImportNotSatisfied,
            "acme:widgets/api@1.2.0",
        ),
    ];
    for (workload, reason, says) in cases {
        let Err(HostApiError::Failed(fault)) = host.workload_start(request(workload)).await else {
            panic!("{reason}: it started");
        };
        assert_eq!(fault.reason, reason, "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
    assert!(host.is_empty());
}

#[tokio::test]
async fn ids_are_the_callers_if_it_wants() {
    let (host, _) = host().await;
    host.workload_start_as("mine", request(Workload::default()))
        .await
        .expect("it starts");
    let twice = host
        .workload_start_as("mine", request(Workload::default()))
        .await;
    assert_eq!(twice, Err(HostApiError::AlreadyExists("mine".into())));
    for id in ["", "nobody"] {
        let status = host.workload_status(id).await;
        assert_eq!(status, Err(HostApiError::NotFound(id.into())));
    }
}

#[tokio::test]
async fn a_changed_workload_replaces_the_former_one() {
    let (host, addr) = host().await;
    for (bytes, says) in [(V1, "v1"), (V2, "v2"), (V1, "v1")] {
        let spec = workload("roll", "roll.test", bytes).into_spec("roll".into());
        host.set(spec.expect("valid"));
        let mut observed = host.watch("roll").expect("known");
        loop {
            let (line, body) = get(addr, "roll.test", "/").await;
            if line.contains("200") && body.contains(says) {
                break;
            }
            observed.changed().await.expect("it lives");
        }
    }
    host.remove_and_wait("roll").await;
    assert!(host.observe("roll").is_none());
}

#[tokio::test]
async fn configuration_reaches_the_component() {
    let (host, addr) = host().await;
    let mut workload = workload("config", "config.test", CONFIG);
    workload.components[0].local_resources = LocalResources {
        config: [("who".to_owned(), "component".to_owned())].into(),
        ..LocalResources::default()
    };
    workload.host_interfaces.push(WitInterface {
        namespace: "wasi".into(),
        package: "config".into(),
        interfaces: vec!["store".into()],
        config: [("who", "interface"), ("what", "both")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..WitInterface::default()
    });
    host.workload_start(request(workload))
        .await
        .expect("it starts");
    assert!(
        get(addr, "config.test", "/who")
            .await
            .1
            .contains("component")
    );
    assert!(get(addr, "config.test", "/what").await.1.contains("both"));
}

#[tokio::test]
async fn a_busy_port_is_an_error_of_start_and_a_dropped_host_frees_its_own() {
    let (host, addr) = host().await;
    let second = HostBuilder::new().with_plugin(Arc::new(HttpServer::new(addr)));
    let second = second
        .and_then(HostBuilder::build)
        .expect("built without touching the port");
    let error = second
        .start()
        .await
        .err()
        .expect("the port is taken")
        .to_string();
    assert!(error.contains(&addr.port().to_string()), "{error}");
    drop(host);
    let limit = std::time::Instant::now() + Duration::from_secs(10);
    while TcpListener::bind(addr).is_err() {
        assert!(std::time::Instant::now() < limit, "the port is still taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_plugin_given_twice_is_refused() {
    let plugin = || Arc::new(WasiConfig::default());
    let twice = HostBuilder::new()
        .with_plugin(plugin())
        .and_then(|b| b.with_plugin(plugin()));
    assert!(matches!(twice.err(), Some(BuildError::DuplicatePlugin(_))));
}
