//! What a component's sockets reach, and what they do not. No guest: the host's sockets themselves.

mod service;
mod udp;

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wasmtime_wasi::sockets::ErrorCode;

use super::{
    Grants, Instance, MAX_SOCKETS, Network, Role,
    lookup::{self, Lookup, LookupError},
    loopback::Family,
    policy::Route,
    stream::Connection,
    tcp::TcpSocket,
};
use crate::{
    plugin::testing::{self, events_of},
    spec::Protocol,
};

/// A component of a workload, and how often it was denied something.
struct Guest {
    grants: Arc<Grants>,
    denied: Arc<AtomicU64>,
}

/// What a component is granted: entries of `allowedHosts`, `allowedIpNameLookups` and `allowedHostLoopbackPorts`.
fn guest(network: &Network, role: Role, hosts: &[&str], names: &[&str], ports: &[&str]) -> Guest {
    let workload = testing::workload("test");
    let mut component = workload.components[0].clone();
    component.allowed_hosts = hosts.iter().map(|h| h.parse().unwrap()).collect();
    component.allowed_names = names.iter().map(|n| n.parse().unwrap()).collect();
    component.loopback_ports = ports.iter().map(|p| p.parse().unwrap()).collect();
    let denied = Arc::<AtomicU64>::default();
    let counter = denied.clone();
    let count = Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let grants = Grants::new(network, role, &workload, &component, count);
    Guest {
        grants: Arc::new(grants),
        denied,
    }
}

impl Guest {
    fn socket(&self) -> TcpSocket {
        TcpSocket::new(&self.grants, Family::V4).unwrap()
    }

    fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    fn route(&self, to: &str) -> Result<Route, ErrorCode> {
        let instance = Instance::default();
        self.grants.connect(Protocol::Tcp, address(to), &instance)
    }

    fn listen(&self, at: &str) -> Result<TcpSocket, ErrorCode> {
        let mut socket = self.socket();
        socket.bind(address(at))?;
        socket.listen()?;
        Ok(socket)
    }

    async fn connect(&self, to: &str) -> Result<(TcpSocket, Connection), ErrorCode> {
        let mut socket = self.socket();
        socket.start_connect(&Instance::default(), address(to))?;
        poll_fn(|context| socket.poll_connect(context)).await?;
        let connection = socket.take_connection()?;
        Ok((socket, connection))
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn denied<T>(result: Result<T, ErrorCode>) -> bool {
    matches!(result, Err(ErrorCode::AccessDenied))
}

async fn accept(listener: &mut TcpSocket) -> Result<Connection, ErrorCode> {
    let mut socket = poll_fn(|context| listener.acceptor()?.poll_accept(context)).await?;
    socket.take_connection()
}

#[tokio::test]
async fn components_reach_their_own_service_and_nobody_elses() {
    let [ours, theirs] = [(); 2].map(|()| Network::default());
    let [our_service, their_service] =
        [&ours, &theirs].map(|n| guest(n, Role::Service, &[], &[], &[]));
    // Both on one port, however they name the address.
    let mut our_listener = our_service.listen("127.0.0.1:7000").unwrap();
    let _their_listener = their_service.listen("0.0.0.0:7000").unwrap();
    let component = guest(&ours, Role::Component, &[], &[], &[]);
    let (socket, client) = component.connect("127.0.0.1:7000").await.unwrap();
    let server = accept(&mut our_listener).await.unwrap();
    assert_eq!(server.remote, socket.local_address().unwrap());
    client.write.try_write(b"ping").unwrap();
    let mut bytes = [0; 8];
    let read = poll_fn(|context| server.read.poll_read(context, &mut bytes)).await;
    assert_eq!(&bytes[..read.unwrap()], b"ping");

    let stranger = guest(&Network::default(), Role::Component, &["*"], &["*"], &[]);
    let refused = stranger.connect("127.0.0.1:7000").await;
    assert!(matches!(refused, Err(ErrorCode::ConnectionRefused)));
    let machine = tokio::net::TcpStream::connect("127.0.0.1:7000").await;
    assert!(machine.is_err(), "the machine has the port");
}

#[tokio::test]
async fn the_machines_loopback_is_not_the_workloads() {
    let machine = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = machine.local_addr().unwrap().port();
    let everything = guest(&Network::default(), Role::Component, &["*"], &["*"], &[]);
    for to in [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")] {
        let refused = everything.connect(&to).await;
        assert!(matches!(refused, Err(ErrorCode::ConnectionRefused)), "{to}");
    }
    assert!(denied(
        everything.connect(&format!("127.255.255.254:{port}")).await
    ));

    let granted = format!("{port}");
    let granted = guest(&Network::default(), Role::Component, &[], &[], &[&granted]);
    let outside = granted.connect(&format!("127.255.255.254:{port}")).await;
    let (_socket, outside) = outside.unwrap();
    let (mut server, _) = machine.accept().await.unwrap();
    outside.write.try_write(b"ping").unwrap();
    drop(outside.write);
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"ping", "a dropped half is the end");
    server.write_all(b"pong").await.unwrap();
    let mut bytes = [0; 8];
    let read = poll_fn(|context| outside.read.poll_read(context, &mut bytes)).await;
    assert_eq!(&bytes[..read.unwrap()], b"pong");
    // Another port, and another protocol, are not granted with it.
    assert!(denied(granted.route("127.255.255.254:1")));
    let to = SocketAddr::from(([127, 255, 255, 254], port));
    let instance = Instance::default();
    assert!(denied(granted.grants.connect(Protocol::Udp, to, &instance)));
}

#[test]
fn the_operators_networks_are_closed_to_sockets_too() {
    let networks = ["10.0.0.0/8".parse().unwrap()];
    let network = Network::new(networks.into());
    let everything = guest(&network, Role::Component, &["*", "10.1.2.3"], &["*"], &[]);
    assert!(denied(everything.route("10.1.2.3:80")));
    assert!(!denied(everything.route("192.0.2.1:80")));
}

#[test]
fn only_a_service_listens_and_only_on_loopback() {
    let network = Network::default();
    let component = guest(&network, Role::Component, &["*"], &["*"], &["80"]);
    for at in ["127.0.0.1:80", "0.0.0.0:80", "10.0.0.1:80"] {
        assert!(denied(component.listen(at)), "{at}");
    }
    assert!(denied(component.socket().listen()), "unbound");
    let service = guest(&network, Role::Service, &["*"], &["*"], &["80"]);
    for at in ["10.0.0.1:80", "192.168.0.1:0", "169.254.1.1:80"] {
        assert!(denied(service.listen(at)), "{at}");
    }
    service.listen("127.0.0.1:80").unwrap();
    service.socket().listen().unwrap();
    let mapped = service.listen("[::ffff:127.0.0.1]:80");
    assert!(matches!(mapped, Err(ErrorCode::InvalidArgument)));
}

#[test]
fn connections_out_of_the_workload_need_a_rule_that_fits() {
    let network = Network::default();
    for (rule, allowed, not) in [
        ("", "", "10.0.0.1:80 [fd00::1]:80 169.254.169.254:80"),
        (
            "*",
            "10.0.0.1:80 1.1.1.1:53 [fd00::1]:80",
            "169.254.169.254:80 [fe80::1]:80 [fd00:ec2::254]:80 0.0.0.1:80 [64:ff9b::a9fe:a9fe]:80 [2002:7f00:1::]:80",
        ),
        (
            "tcp://10.0.0.0/8:5432",
            "10.1.2.3:5432",
            "10.1.2.3:80 11.0.0.1:5432",
        ),
        ("udp://10.0.0.1", "", "10.0.0.1:53"),
        ("https://10.0.0.1", "", "10.0.0.1:443"),
        ("10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:81"),
        (
            "169.254.169.254",
            "169.254.169.254:80",
            "169.254.169.253:80",
        ),
        ("0.0.0.0/0", "10.0.0.1:80", "169.254.169.254:80"),
    ] {
        let rules: Vec<&str> = rule.split_whitespace().collect();
        let guest = guest(&network, Role::Component, &rules, &[], &[]);
        for to in allowed.split_whitespace() {
            let route = Ok(Route::Outside(address(to)));
            assert_eq!(guest.route(to).map_err(|_| ()), route, "{rule} {to}");
        }
        for to in not.split_whitespace() {
            assert!(denied(guest.route(to)), "{rule} {to}");
        }
    }
}

#[test]
fn a_rule_with_a_name_counts_for_what_the_lookup_of_it_found() {
    let network = Network::default();
    let guest = guest(
        &network,
        Role::Component,
        &["db.example.com:5432"],
        &["*"],
        &[],
    );
    let other = crate::plugin::wasi::net::tests::guest(&network, Role::Component, &[], &["*"], &[]);
    let connect =
        |instance: &Instance, to: &str| guest.grants.connect(Protocol::Tcp, address(to), instance);
    let mut instance = Instance::default();
    assert!(denied(connect(&instance, "10.0.0.1:5432")));
    let mut learn = |by: &Guest, name: &str, address: &str| {
        instance.learn(&by.grants, name, &[address.parse().unwrap()]);
    };
    learn(&guest, "db.example.com", "10.0.0.1");
    learn(&guest, "evil.example.com", "10.0.0.2");
    // What another part of the same instance has looked up is its own.
    learn(&other, "db.example.com", "10.0.0.3");
    assert!(connect(&instance, "10.0.0.1:5432").is_ok());
    assert!(denied(connect(&instance, "10.0.0.1:80")), "port");
    assert!(denied(connect(&instance, "10.0.0.2:5432")), "other name");
    assert!(denied(connect(&instance, "10.0.0.3:5432")), "other part");
    assert!(
        denied(connect(&Instance::default(), "10.0.0.1:5432")),
        "other instance"
    );
    // Whoever owns the name cannot point it at the node's credentials.
    instance.learn(
        &guest.grants,
        "db.example.com",
        &["169.254.169.254".parse().unwrap()],
    );
    assert!(denied(connect(&instance, "169.254.169.254:5432")));
}

#[test]
fn an_instance_remembers_a_bounded_number_of_names() {
    let part = || guest(&Network::default(), Role::Component, &[], &["*"], &[]);
    let (one, other) = (part(), part());
    let mut instance = Instance::default();
    let address = |index| std::net::Ipv4Addr::from_bits(index).into();
    instance.learn(&other.grants, "a", &[address(7)]);
    for index in 0..1000_u32 {
        instance.learn(&one.grants, "a", &[address(index)]);
    }
    // And forgets none that another part has learnt.
    assert_eq!(instance.names.len(), super::MAX_NAMES + 1);
    assert_eq!(instance.names_of(&other.grants, address(7)).count(), 1);
    assert_eq!(instance.names_of(&one.grants, address(999)).count(), 1);
}

#[test]
fn denials_are_counted_and_each_is_logged_once() {
    let guest = guest(&Network::default(), Role::Component, &[], &[], &[]);
    let events = events_of(|| {
        for _ in 0..3 {
            let _ = guest.route("10.0.0.1:80");
        }
        for port in 1..200 {
            let _ = guest.route(&format!("10.0.0.2:{port}"));
        }
    });
    assert_eq!(guest.denied(), 202);
    assert_eq!(events.len(), 64);
    assert!(
        events[0].contains("tcp://10.0.0.1:80") && events[0].contains("allowedHosts"),
        "{}",
        events[0]
    );
}

#[test]
fn only_granted_names_are_looked_up() {
    let network = Network::default();
    let some = guest(
        &network,
        Role::Component,
        &[],
        &["*.example.com", "10.0.0.1"],
        &[],
    );
    let judge = |name: &str| lookup::judge(&some.grants, name);
    assert_eq!(
        judge("A.example.com."),
        Ok(Lookup::Ask("a.example.com".to_owned()))
    );
    assert_eq!(
        judge("10.0.0.1"),
        Ok(Lookup::Known(vec!["10.0.0.1".parse().unwrap()]))
    );
    for name in ["example.com", "example.org", "10.0.0.2", "[::1]"] {
        assert_eq!(judge(name), Err(LookupError::Denied), "{name}");
    }
    for name in ["", ".", "a b", "a..b", "http://a", "bücher.example"] {
        assert_eq!(judge(name), Err(LookupError::Invalid), "{name}");
    }
}

#[test]
fn the_workloads_own_names_need_no_grant() {
    let none = guest(&Network::default(), Role::Component, &[], &[], &[]);
    let first = |name: &str| match lookup::judge(&none.grants, name) {
        Ok(Lookup::Known(addresses)) => Ok(addresses[0].to_string()),
        Ok(Lookup::Ask(name)) => panic!("{name} is asked for"),
        Err(error) => Err(error),
    };
    for (name, expected) in [
        ("localhost", Ok("127.0.0.1")),
        ("LOCALHOST.", Ok("127.0.0.1")),
        ("db.localhost", Ok("127.0.0.1")),
        ("service.wasmcloud.internal", Ok("127.0.0.1")),
        ("db.svc.wasmcloud.internal", Ok("127.0.0.1")),
        ("host.wasmcloud.internal", Ok("127.255.255.254")),
        ("wasmcloud.internal", Err(LookupError::Unknown)),
        ("a.b.svc.wasmcloud.internal", Err(LookupError::Unknown)),
        ("other.wasmcloud.internal", Err(LookupError::Unknown)),
        ("notwasmcloud.internal", Err(LookupError::Denied)),
    ] {
        assert_eq!(first(name), expected.map(str::to_owned), "{name}");
    }
    assert_eq!(none.denied(), 1);
}

#[tokio::test]
async fn lookups_are_bounded() {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let busy = lookup::resolve(permits, "localhost".to_owned()).await;
    assert_eq!(busy, Err(LookupError::Busy));
}

#[tokio::test]
async fn sockets_are_bounded_for_each_workload() {
    let [full, other] = [(); 2].map(|()| Network::default());
    let service = guest(&full, Role::Service, &[], &[], &[]);
    let mut listener = service.listen("127.0.0.1:80").unwrap();
    let client = service.connect("127.0.0.1:80").await.unwrap();
    let mut sockets = Vec::new();
    while let Some(socket) = TcpSocket::new(&service.grants, Family::V4) {
        sockets.push(socket);
    }
    assert_eq!(sockets.len(), MAX_SOCKETS - 2);
    let full = accept(&mut listener).await.map(drop);
    assert!(matches!(full, Err(ErrorCode::OutOfMemory)));
    assert!(
        TcpSocket::new(
            &guest(&other, Role::Component, &[], &[], &[]).grants,
            Family::V4
        )
        .is_some()
    );
    // The connection waited for room.
    sockets.pop();
    accept(&mut listener).await.unwrap();
    drop(client);
}
