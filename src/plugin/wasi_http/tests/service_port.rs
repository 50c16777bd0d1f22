//! Ports of workloads.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    time::Instant,
};

use super::*;

/// A port that nobody has, and that nobody who asks for any port will get meanwhile.
fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(31);
        let port = 6_000 + u16::try_from(number % 3_900).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn ask(port: u16) -> io::Result<String> {
    let request = "GET / HTTP/1.1\r\nhost: whoever.it.is\r\nconnection: close\r\n\r\n";
    send_to(port, request).await
}

impl World {
    /// A workload that has no route of its own but a host that nobody asks for, and a port.
    fn at_port(&self, name: &str, port: u16) -> Kit {
        let mut kit = self.kit(name, &[("host", name)]);
        kit.workload.service_port = Some(port);
        kit
    }
}

async fn closed(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpListener::bind(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{port} stays open");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn workloads_of_one_port_share_it_whatever_the_host() {
    let world = World::new().await;
    let port = free();
    let one = world.serve(world.at_port("one", port), &guest("v1")).await;
    assert_eq!(status(&ask(port).await.unwrap()), "200");
    let two = world.serve(world.at_port("two", port), &guest("v2")).await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(ask(port).await.unwrap());
    }
    let of = |version: &str| bodies.iter().filter(|b| b.contains(version)).count();
    assert_eq!((of("v1"), of("v2")), (2, 2), "{bodies:?}");
    // The routes go on as they were, and the other port has nothing to do with them.
    assert!(world.get("one", "/").await.contains("v1"));
    assert_eq!(status(&world.get("whoever.it.is", "/").await), "404");

    // Who stays takes over at once, though the other has not ended.
    tokio::join!(one.binding.drain(), async {
        assert!(ask(port).await.unwrap().contains("v2"));
    });
    drop(one);
    assert!(ask(port).await.unwrap().contains("v2"));
    drop(two);
    closed(port).await;
}

#[tokio::test]
async fn every_address_is_one_of_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not tested: this machine has no IPv6");
        return;
    }
    let world = World::with(HttpServer::new("[::]:0".parse().unwrap())).await;
    let port = free();
    let _served = world.serve(world.at_port("app", port), &guest("v1")).await;
    for port in [world.port(), port] {
        for address in ["127.0.0.1", "::1"] {
            let mut stream = TcpStream::connect((address, port)).await.unwrap();
            let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            assert_eq!(status(&response), "200", "{address} {port}");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_closed_can_be_opened_again_at_once() {
    let world = World::new().await;
    let port = free();
    for _ in 0..5 {
        let served = world.serve(world.at_port("app", port), &guest("v1")).await;
        until(|| served.binding.fault().is_none()).await;
        // The listener of before may be on its way out.
        let deadline = Instant::now() + Duration::from_secs(5);
        while ask(port).await.ok().is_none_or(|r| status(&r) != "200") {
            assert!(Instant::now() < deadline);
        }
        assert!(served.binding.fault().is_none());
    }
    closed(port).await;
}

#[tokio::test]
async fn a_port_that_something_else_has_is_named_and_tried_again() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let served = world.serve(world.at_port("app", port), &guest("v1")).await;
    let fault = served.binding.fault().unwrap();
    assert_eq!(
        (fault.reason, fault.class),
        (Reason::PortConflict, Class::Signal)
    );
    assert!(
        fault.message.contains(&format!("127.0.0.1:{port}")),
        "{fault}"
    );
    // Its route is not touched by that.
    assert_eq!(status(&world.get("app", "/").await), "200");
    served.signal.notified().await;
    drop(taken);
    timeout(Duration::from_secs(5), served.signal.notified())
        .await
        .unwrap();
    assert_eq!(served.binding.fault(), None);
    assert_eq!(status(&ask(port).await.unwrap()), "200");
}

#[tokio::test]
async fn a_running_workload_gets_a_port_and_loses_its_routes() {
    let world = World::new().await;
    let (first, second) = (free(), free());
    let kit = world.at_port("app", first);
    let mut desired = kit.workload.clone();
    // Half a second of the lame duck.
    desired.grace = Duration::from_secs(1);
    let mut kit = kit;
    kit.workload = desired.clone();
    kit.workload.service_port = None;
    let mut served = world.serve(kit, &guest("v1")).await;
    assert!(ask(first).await.is_err());
    served.binding.update(&desired);
    assert_eq!(status(&ask(first).await.unwrap()), "200");

    // There and back again, and there: what was left for a moment only is not given up.
    for port in [second, first, second] {
        desired.service_port = Some(port);
        served.binding.update(&desired);
    }
    // Clients learn of it only later.
    for port in [first, second] {
        assert_eq!(status(&ask(port).await.unwrap()), "200");
    }
    closed(first).await;

    desired.routes_withheld = Some("default/other has it".into());
    served.binding.update(&desired);
    let fault = served.binding.fault().unwrap();
    assert_eq!(fault.reason, Reason::RouteConflict);
    assert_eq!(fault.message, "default/other has it");
    assert_eq!(status(&world.get("app", "/").await), "404");
    assert_eq!(status(&ask(second).await.unwrap()), "200");

    desired.routes_withheld = None;
    served.binding.update(&desired);
    assert_eq!(served.binding.fault(), None);
    assert_eq!(status(&world.get("app", "/").await), "200");
}

#[tokio::test]
async fn a_new_generation_takes_the_port_over_without_a_lost_request() {
    let world = World::new().await;
    let port = free();
    let mut current = world.serve(world.at_port("app", port), &guest("v1")).await;
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = async {
        while !stop.load(Ordering::Relaxed) {
            let response = ask(port).await.unwrap();
            assert_eq!(status(&response), "200", "{response}");
            asked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let rollout = async {
        for version in ["v2", "v1", "v2", "v1", "v2"] {
            let next = world
                .serve(world.at_port("app", port), &guest(version))
                .await;
            let former = std::mem::replace(&mut current, next);
            let begun = Instant::now();
            former.binding.drain().await;
            assert!(begun.elapsed() < LONG, "nobody waits for a lame duck here");
            let before = asked.load(Ordering::Relaxed);
            until(|| asked.load(Ordering::Relaxed) > before + 5).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(client, rollout);
    assert!(ask(port).await.unwrap().contains("v2"));
}

/// Far shorter than the lame duck of a default grace.
const LONG: Duration = Duration::from_secs(3);

#[tokio::test]
async fn the_last_one_at_a_port_answers_on_for_a_while() {
    let world = World::new().await;
    let port = free();
    let mut kit = world.at_port("app", port);
    kit.workload.grace = Duration::from_secs(2);
    let served = world.serve(kit, &guest("v1")).await;
    let begun = Instant::now();
    let asking = async {
        let mut answers = 0;
        while begun.elapsed() < Duration::from_millis(800) {
            assert_eq!(status(&ask(port).await.unwrap()), "200");
            answers += 1;
        }
        answers
    };
    let ((), answers) = tokio::join!(served.binding.drain(), asking);
    // Half of the grace.
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert!(answers > 0);
    drop(served);
    closed(port).await;
}

#[tokio::test]
async fn a_port_needs_a_component_that_answers() {
    let world = World::new().await;
    let mut kit = world.at_port("fetch", free());
    kit.workload.interfaces.clear();
    // A handler without an entry is one too.
    let port = kit.workload.service_port.unwrap();
    let served = world.serve(kit, &guest("v1")).await;
    assert_eq!(served.binding.fault(), None);
    assert_eq!(status(&ask(port).await.unwrap()), "200");

    let mut kit = world.at_port("cli", free());
    kit.workload.interfaces.clear();
    let cli = world.serve(kit, &guest("run-only")).await;
    let fault = cli.binding.fault().unwrap();
    assert_eq!(fault.reason, Reason::BindFailed);
    assert!(fault.message.contains("a service port asks"), "{fault}");
}

/// A connection that is kept.
struct Kept(TcpStream);

impl Kept {
    async fn to(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// The whole answer.
    async fn get(&mut self, host: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            assert!(self.0.read_buf(&mut answer).await.unwrap() > 0, "closed");
            let so_far = String::from_utf8_lossy(&answer);
            if is_whole(&so_far) {
                return so_far.into_owned();
            }
        }
    }

    /// What comes until the server closes, which it does in this time.
    async fn rest(mut self, limit: Duration) -> String {
        let mut rest = String::new();
        timeout(limit, self.0.read_to_string(&mut rest))
            .await
            .expect("it stays open")
            .unwrap();
        rest
    }
}

fn says_close(answer: &str) -> bool {
    assert_eq!(status(answer), "200", "{answer}");
    answer
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
}

#[tokio::test]
async fn clients_are_sent_away_before_the_last_one_leaves() {
    let world = World::new().await;
    let port = free();
    let mut kit = world.at_port("app", port);
    kit.workload.grace = Duration::from_secs(3);
    let served = world.serve(kit, &guest("v1")).await;
    let (mut busy, mut idle) = (Kept::to(port).await, Kept::to(port).await);
    let mut elsewhere = Kept::to(world.port()).await;
    for kept in [&mut busy, &mut idle, &mut elsewhere] {
        assert!(!says_close(&kept.get("app").await));
    }
    let drain = async {
        served.binding.drain().await;
        served
    };
    let asking = async {
        sleep(Duration::from_millis(300)).await;
        assert!(says_close(&busy.get("app").await));
        assert_eq!(busy.rest(Duration::from_secs(1)).await, "");
        assert!(says_close(&Kept::to(port).await.get("app").await));
        // The main port is not the Service's.
        assert!(!says_close(&elsewhere.get("app").await));
        // Who does not ask is not told that it stops, but that it is over.
        assert_eq!(idle.rest(Duration::from_secs(5)).await, "");
    };
    let (served, ()) = tokio::join!(drain, asking);
    drop(served);
    closed(port).await;
}

#[tokio::test]
async fn clients_of_a_former_port_are_sent_away_unless_it_is_the_port_again() {
    let world = World::new().await;
    let (first, second) = (free(), free());
    let mut kit = world.at_port("app", first);
    kit.workload.grace = Duration::from_secs(2);
    let mut desired = kit.workload.clone();
    let mut served = world.serve(kit, &guest("v1")).await;
    let mut move_to = |port| {
        desired.service_port = Some(port);
        served.binding.update(&desired);
    };
    let mut kept = Kept::to(first).await;
    assert!(!says_close(&kept.get("any").await));
    move_to(second);
    move_to(first);
    assert!(!says_close(&kept.get("any").await));
    move_to(second);
    // Somebody who stays comes to the port.
    let other = world
        .serve(world.at_port("other", first), &guest("v2"))
        .await;
    assert!(!says_close(&kept.get("any").await));
    drop(other);
    let idle = Kept::to(first).await;
    assert!(says_close(&kept.get("any").await));
    assert_eq!(idle.rest(Duration::from_secs(5)).await, "");
    closed(first).await;
    assert!(!says_close(&Kept::to(second).await.get("any").await));
}

#[tokio::test]
async fn a_server_can_send_all_clients_away() {
    let world = World::new().await;
    let port = free();
    let _served = world.serve(world.at_port("app", port), &guest("v1")).await;
    let (mut main, mut at_port) = (Kept::to(world.port()).await, Kept::to(port).await);
    for kept in [&mut main, &mut at_port] {
        assert!(!says_close(&kept.get("app").await));
    }
    // Those that were not sent away are not closed.
    world.server.close_connections().await;
    let (idle, idle_at_port) = (Kept::to(world.port()).await, Kept::to(port).await);
    world.server.send_away();
    for kept in [&mut main, &mut at_port] {
        assert!(says_close(&kept.get("app").await));
    }
    // Also at a port that is opened after that.
    let late = free();
    let _late = world.serve(world.at_port("late", late), &guest("v1")).await;
    for (port, host) in [(world.port(), "late"), (late, "any")] {
        assert!(says_close(&Kept::to(port).await.get(host).await));
    }
    until(|| world.counts("app").in_flight == 0).await;
    world.server.close_connections().await;
    for kept in [idle, idle_at_port] {
        assert_eq!(kept.rest(Duration::from_secs(1)).await, "");
    }
    // The server itself goes on.
    assert!(says_close(&world.get("app", "/").await));
}
