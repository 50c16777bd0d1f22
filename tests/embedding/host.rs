//! A host with real components over real HTTP.

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use wash_runtime::{
    fault::{Reason, Stage},
    host::{
        BuildError, Host, HostApi, HostApiError, HostBuilder,
        observed::{Observed, Progress, Run, RunState},
    },
    plugin::{wasi_config::WasiConfig, wasi_http::HttpServer},
    spec::{Commands, Ended, Exit, Finished, Source},
    types::{
        Component, LocalResources, RestartPolicy, Service, WitInterface, Workload,
        WorkloadStartRequest, WorkloadState,
    },
};

const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");
const V1: &[u8] = include_bytes!("../../e2e/guests/wasm/v1.wasm");
const V2: &[u8] = include_bytes!("../../e2e/guests/wasm/v2.wasm");
const CONFIG: &[u8] = include_bytes!("../../e2e/guests/wasm/config.wasm");
const SERVICE: &[u8] = include_bytes!("../../e2e/guests/wasm/service.wasm");
const NEEDS_WIDGETS: &[u8] = include_bytes!("../../e2e/guests/wasm/needs-widgets.wasm");

pub async fn host() -> (Arc<Host>, SocketAddr) {
    host_of(HostBuilder::new()).await
}

/// The same with other options.
pub async fn host_of(builder: HostBuilder) -> (Arc<Host>, SocketAddr) {
    let http = Arc::new(HttpServer::new(([127, 0, 0, 1], 0).into()));
    let host = builder
        .with_plugin(http.clone())
        .and_then(|b| b.with_plugin(Arc::new(WasiConfig::default())))
        .and_then(HostBuilder::build)
        .expect("a host");
    let host = host.start().await.expect("it starts");
    let addr = http.addr().expect("a bound address");
    (host, addr)
}

/// A workload of one HTTP component at a host name.
pub fn workload(name: &str, route: &str, bytes: &'static [u8]) -> Workload {
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

pub fn request(workload: Workload) -> WorkloadStartRequest {
    WorkloadStartRequest { workload }
}

/// Status line and body of a GET.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    send(addr, request).await
}

/// Status line and body of the answer to these bytes.
pub async fn send(addr: SocketAddr, request: String) -> (String, String) {
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

/// A workload of one component that does what its environment says, as a job or as a service.
fn command(name: &str, service: bool, environment: &[(&str, &str)]) -> Workload {
    let source = Source::Bytes(SERVICE.into());
    let pairs = environment.iter().map(|&(k, v)| (k.into(), v.into()));
    let local_resources = LocalResources {
        environment: pairs.collect(),
        ..LocalResources::default()
    };
    let mut workload = Workload {
        namespace: "test".into(),
        name: name.into(),
        ..Workload::default()
    };
    if service {
        workload.service = Some(Service {
            source,
            local_resources,
            restart_policy: Some(RestartPolicy::Never),
            ..Service::default()
        });
    } else {
        workload.components.push(Component {
            name: "app".into(),
            source,
            local_resources,
            ..Component::default()
        });
    }
    workload
}

/// Waits until a workload is in a state, and returns what it is then.
async fn until(host: &Host, id: &str, is: impl Fn(&Observed) -> bool) -> Observed {
    let mut watch = host.watch(id).expect("it is known");
    let waited = watch.wait_for(|observed| is(observed));
    let found = tokio::time::timeout(Duration::from_secs(60), waited).await;
    found.expect("in time").expect("it is there").clone()
}

#[tokio::test]
async fn a_job_runs_to_its_end() {
    let (host, _) = host().await;
    let started = host.workload_start(request(command("job", false, &[])));
    let id = started.await.expect("it starts").workload_id;
    let done = until(&host, &id, |o| o.progress == Progress::Completed).await;
    assert_eq!(done.serving, None);
    let status = host.workload_status(&id).await.expect("it is known");
    assert_eq!(status.state, WorkloadState::Completed);
    host.workload_stop(&id).await.expect("it stops");
}

/// Nothing happens to a job that is held, so nothing tells of it later.
#[tokio::test]
async fn a_job_that_is_held_or_has_ended_is_shown_as_soon_as_its_generation_serves() {
    let (host, _) = host().await;
    let job = |id: &str, commands: Commands| {
        let spec = command("job", false, &[]).into_spec(id.into());
        let mut desired = spec.expect("a good one");
        desired.commands = commands;
        desired
    };
    let held = Commands {
        held: true,
        ..Commands::default()
    };
    host.set(job("held", held.clone()));
    let prepared = until(&host, "held", |o| o.timings.started.is_some()).await;
    assert_eq!(prepared.progress, Progress::Running);
    let run = prepared.components[0].run.as_ref();
    assert_eq!(run.map(|run| &run.state), Some(&RunState::Held));

    let ended = Ended {
        exit: Exit::Completed,
        at: std::time::SystemTime::UNIX_EPOCH,
    };
    let finished = vec![Finished {
        component: "app".into(),
        ended: ended.clone(),
    }];
    host.set(job("ended", Commands { finished, ..held }));
    let done = until(&host, "ended", |o| o.timings.started.is_some()).await;
    assert_eq!((done.progress, done.serving), (Progress::Completed, None));
    let run = done.components[0].run.as_ref();
    assert_eq!(run.and_then(Run::ended), Some(&ended));
}

#[tokio::test]
async fn a_service_runs_beside_what_is_called_and_takes_it_down_when_it_ends() {
    let (host, addr) = host().await;
    for (ends, running) in [("forever", true), ("trap", false)] {
        let mut both = workload("both", "a.test", HELLO);
        both.service = command("service", true, &[("DO", ends), ("SLEEP_MS", "50")]).service;
        let started = host.workload_start(request(both)).await;
        let id = started.expect("it starts").workload_id;
        let observed = until(&host, &id, |o| {
            let run = o.components[1].run.as_ref();
            run.is_some_and(|run| running == matches!(run.state, RunState::Running { .. }))
        })
        .await;
        assert_eq!(&*observed.components[1].name, "service");
        assert_eq!(observed.components[0].run, None, "it is called");
        let (line, _) = get(addr, "a.test", "/").await;
        assert!(line.contains("200"), "{line}");
        let ended = until(&host, &id, |o| running || o.serving.is_none()).await;
        match ended.progress {
            Progress::Running => assert!(running),
            Progress::Failed { fault, .. } => assert_eq!(fault.reason, Reason::Trapped),
            other => panic!("{other:?}"),
        }
        host.workload_stop(&id).await.expect("it stops");
    }
}

#[cfg(unix)]
/// Ends who reads a pipe, so that a test that fails ends, too.
struct Writer(PathBuf);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = OpenOptions::new().read(true).write(true).open(&self.0);
    }
}

#[tokio::test]
async fn what_serves_is_looked_at_while_its_successor_is_fetched() {
    let (host, _) = host().await;
    let generation = |generation: i64, source: Option<Source>| {
        let mut workload = command("service", true, &[("DO", "trap"), ("SLEEP_MS", "1000")]);
        if let (Some(service), Some(source)) = (&mut workload.service, source) {
            service.source = source;
        }
        let mut desired = workload.into_spec("id".into()).expect("a good one");
        desired.generation = generation;
        desired
    };
    host.set(generation(1, None));
    until(&host, "id", |o| o.serving.is_some()).await;
    // Nothing comes of this file until somebody writes it.
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("app.wasm");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let _writer = Writer(pipe.clone());
    host.set(generation(2, Some(Source::File(pipe.clone()))));
    let working = Progress::Working(Stage::Fetch);
    until(&host, "id", |o| o.generation == 2 && o.progress == working).await;
    let ended = until(&host, "id", |o| o.serving.is_none()).await;
    assert_eq!(ended.progress, working);
    let written = tokio::task::spawn_blocking(move || std::fs::write(pipe, SERVICE));
    written.await.expect("no panic").expect("it is read");
    host.remove_and_wait("id").await;
}

#[tokio::test]
async fn a_changed_service_is_another_run_and_an_unchanged_one_goes_on() {
    let (host, _) = host().await;
    let generation = |generation: i64, prints: &str| {
        let workload = command("service", true, &[("DO", "forever"), ("PRINT", prints)]);
        let mut desired = workload.into_spec("id".into()).expect("a good one");
        desired.generation = generation;
        desired
    };
    let since = |o: &Observed| match o.components[0].run.as_ref().map(|run| &run.state) {
        Some(RunState::Running { since }) => Some(*since),
        _ => None,
    };
    host.set(generation(1, "one"));
    let first = until(&host, "id", |o| since(o).is_some()).await;
    host.set(generation(2, "two"));
    let second = until(&host, "id", |o| {
        o.serving.as_ref().is_some_and(|s| s.generation == 2) && since(o).is_some()
    })
    .await;
    assert_ne!(since(&first), since(&second), "it is another run");
    // Nothing of it changes: the run goes on.
    host.set(generation(3, "two"));
    let third = until(&host, "id", |o| o.generation == 3).await;
    assert_eq!(since(&second), since(&third));
    let mut held = generation(3, "two");
    held.commands.held = true;
    host.set(held);
    let held = until(&host, "id", |o| since(o).is_none()).await;
    assert_eq!(held.progress, Progress::Running, "it is prepared");
    host.remove_and_wait("id").await;
}

#[tokio::test]
async fn a_service_that_is_none_is_refused() {
    let (host, _) = host().await;
    let service = Service {
        source: Source::Bytes(HELLO.into()),
        ..Service::default()
    };
    let workload = Workload {
        service: Some(service),
        ..Workload::default()
    };
    match host.workload_start(request(workload)).await {
        Err(HostApiError::Failed(fault)) => {
            assert_eq!(fault.reason, Reason::BindFailed);
            assert!(fault.message.contains("does not export wasi:cli/run"));
        }
        other => panic!("{other:?}"),
    }
}
