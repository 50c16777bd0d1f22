//! Datagrams: within a workload, to the outside, and from strangers.

use std::{sync::Arc, time::Duration};

use tokio::{net, time::timeout};
use wasmtime_wasi::sockets::ErrorCode;

use super::{
    super::{
        MAX_OUTSIDE, MAX_SOCKETS,
        inbox::{CAPACITY, Datagram, TOTAL},
        loopback::Family,
        udp::UdpSocket,
    },
    Guest, Instance, Network, Role, address, denied, guest,
};

/// The name under which guests know the machine's loopback.
const HOST: &str = "127.255.255.254";

impl Guest {
    fn udp(&self) -> Arc<UdpSocket> {
        UdpSocket::new(&self.grants, Family::V4).unwrap()
    }

    fn bound(&self, at: &str) -> Result<Arc<UdpSocket>, ErrorCode> {
        let socket = self.udp();
        socket.bind(address(at))?;
        Ok(socket)
    }
}

fn send(socket: &UdpSocket, to: Option<&str>, data: &[u8]) -> Result<(), ErrorCode> {
    let peer = socket.peer(&Instance::default(), to.map(address))?;
    assert!(socket.try_send(peer, data)?, "there is no room");
    Ok(())
}

fn connect(socket: &UdpSocket, to: &str) -> Result<(), ErrorCode> {
    socket.connect(&Instance::default(), address(to))
}

fn error<T>(result: Result<T, ErrorCode>) -> String {
    let error = result.err().map(|error| format!("{error:?}"));
    error.unwrap_or_default()
}

async fn receive(socket: &UdpSocket) -> Datagram {
    let received = timeout(Duration::from_secs(10), socket.receive()).await;
    received.expect("nothing came").unwrap()
}

/// Nothing waits, and what is on its way on this machine had its time.
async fn nothing(socket: &UdpSocket) -> bool {
    timeout(Duration::from_millis(100), socket.receive())
        .await
        .is_err()
}

/// A component that may send to some ports of the machine's loopback.
fn granted(network: &Network, servers: &[&net::UdpSocket]) -> Guest {
    let ports = servers.iter().map(|server| {
        let port = server.local_addr().unwrap().port();
        format!("{port}/udp")
    });
    let ports: Vec<String> = ports.collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    guest(network, Role::Component, &[], &[], &ports)
}

async fn server() -> (net::UdpSocket, String) {
    let server = net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    (server, format!("{HOST}:{port}"))
}

#[tokio::test]
async fn datagrams_reach_the_service_of_their_own_workload_and_come_back() {
    let [ours, theirs] = [(); 2].map(|()| Network::default());
    let services = [&ours, &theirs].map(|network| {
        let service = guest(network, Role::Service, &[], &[], &[]);
        service.bound("127.0.0.1:7000").unwrap()
    });
    let component = guest(&ours, Role::Component, &[], &[], &[]);
    let client = component.bound("0.0.0.0:0").unwrap();
    send(&client, Some("127.0.0.1:7000"), b"ping").unwrap();
    send(&client, Some("127.0.0.1:7000"), b"").unwrap();
    let ping = receive(&services[0]).await;
    assert_eq!(
        (&ping.data[..], ping.from),
        (&b"ping"[..], client.local_address().unwrap())
    );
    assert_eq!(receive(&services[0]).await.data, b"");
    assert!(nothing(&services[1]).await, "it is another workload's");
    send(&services[0], Some(&ping.from.to_string()), b"pong").unwrap();
    let pong = receive(&client).await;
    assert_eq!(
        (&pong.data[..], pong.from),
        (&b"pong"[..], address("127.0.0.1:7000"))
    );
    // TCP has other ports, and whoever receives nowhere receives nothing.
    assert!(ours.loopback.bind(Family::V4, 7000).is_ok());
    send(&client, Some("127.0.0.1:7001"), b"lost").unwrap();
}

#[tokio::test]
async fn a_connected_socket_has_one_peer() {
    let network = Network::default();
    let service = guest(&network, Role::Service, &[], &[], &[]);
    let [server, other] = ["127.0.0.1:7000", "0.0.0.0:7001"].map(|at| service.bound(at).unwrap());
    let component = guest(&network, Role::Component, &[], &[], &[]);
    let client = component.udp();
    // Any address of the loopback, and a port that nobody chose.
    connect(&client, "127.1.2.3:7000").unwrap();
    assert_eq!(client.remote_address().unwrap(), address("127.1.2.3:7000"));
    let own = client.local_address().unwrap().to_string();
    send(&client, None, b"ping").unwrap();
    assert_eq!(receive(&server).await.data, b"ping");
    send(&other, Some(&own), b"not me").unwrap();
    send(&server, Some(&own), b"pong").unwrap();
    let pong = receive(&client).await;
    assert_eq!(
        (&pong.data[..], pong.from),
        (&b"pong"[..], address("127.1.2.3:7000"))
    );
    let elsewhere = send(&client, Some("127.0.0.1:7001"), b"");
    assert_eq!(error(elsewhere), "InvalidArgument");
    drop(server);
    assert_eq!(error(send(&client, None, b"")), "ConnectionRefused");

    client.disconnect().unwrap();
    assert_eq!(error(client.disconnect()), "InvalidState");
    assert_eq!(error(client.remote_address()), "InvalidState");
    assert_eq!(error(send(&client, None, b"")), "InvalidArgument");
    send(&other, Some(&own), b"and now").unwrap();
    assert_eq!(receive(&client).await.from, address("127.0.0.1:7001"));
}

#[tokio::test]
async fn what_leaves_the_host_is_answered_by_its_peers_alone() {
    let (first, first_at) = server().await;
    let (second, second_at) = server().await;
    let stranger = net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let network = Network::default();
    let component = granted(&network, &[&first, &second]);
    let client = component.bound("0.0.0.0:0").unwrap();
    // It waits before it has a socket of the machine at all.
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { receive(&client).await })
    };
    tokio::task::yield_now().await;
    send(&client, Some(&first_at), b"ping").unwrap();
    let mut bytes = [0; 8];
    let (length, from) = first.recv_from(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..length], b"ping");
    for other in [&stranger, &second] {
        other.send_to(b"not me", from).await.unwrap();
    }
    first.send_to(b"pong", from).await.unwrap();
    let pong = waiting.await.unwrap();
    assert_eq!(
        (&pong.data[..], pong.from),
        (&b"pong"[..], address(&first_at))
    );
    // Whom it has sent to may answer from then on, to the same port.
    send(&client, Some(&second_at), b"ping").unwrap();
    assert_eq!(second.recv_from(&mut bytes).await.unwrap().1, from);
    second.send_to(b"pong", from).await.unwrap();
    assert_eq!(receive(&client).await.from, address(&second_at));

    // By the same port as before.
    connect(&client, &second_at).unwrap();
    send(&client, None, b"ping").unwrap();
    assert_eq!(second.recv_from(&mut bytes).await.unwrap().1, from);
    for server in [&first, &stranger, &second] {
        server.send_to(b"pong", from).await.unwrap();
    }
    assert_eq!(receive(&client).await.from, address(&second_at));
    assert!(nothing(&client).await);
    // Only a connected socket is told that nobody is there.
    drop(second);
    send(&client, None, b"ping").unwrap();
    let refused = timeout(Duration::from_secs(10), client.receive()).await;
    assert!(
        matches!(refused, Ok(Err(ErrorCode::ConnectionRefused))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_peer_stays_where_another_one_cannot_be_had() {
    let (server, at) = server().await;
    let port = format!("{}/udp", server.local_addr().unwrap().port());
    let network = Network::default();
    // The system refuses that one, which is a broadcast.
    let broadcast = "255.255.255.255:9";
    let component = guest(&network, Role::Component, &[broadcast], &[], &[&port]);
    let client = component.udp();
    connect(&client, &at).unwrap();
    send(&client, None, b"ping").unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).await.unwrap();
    assert!(connect(&client, broadcast).is_err());
    assert_eq!(component.denied(), 0, "it was granted");
    assert_eq!(client.remote_address().unwrap(), address(&at));
    send(&client, None, b"ping").unwrap();
    assert_eq!(server.recv_from(&mut [0; 8]).await.unwrap().1, from);
}

#[tokio::test]
async fn datagrams_need_a_rule_that_fits() {
    let (server, at) = server().await;
    let port = server.local_addr().unwrap().port();
    let network = Network::default();
    let tcp_only = format!("{port}/tcp");
    let rules = ["tcp://192.0.2.1:53", "udp://192.0.2.2:53"];
    let component = guest(&network, Role::Component, &rules, &[], &[&tcp_only]);
    let client = component.bound("0.0.0.0:0").unwrap();
    for to in [&*at, "192.0.2.1:53", "192.0.2.2:54", "169.254.169.254:53"] {
        assert!(denied(send(&client, Some(to), b"")), "{to}");
        assert!(denied(connect(&client, to)), "{to}");
    }
    assert_eq!(component.denied(), 8);
    let instance = Instance::default();
    assert!(
        client
            .peer(&instance, Some(address("192.0.2.2:53")))
            .is_ok()
    );
    for to in [
        "0.0.0.0:53",
        "192.0.2.2:0",
        "224.0.0.1:53",
        "[::1]:53",
        "[::ffff:192.0.2.2]:53",
    ] {
        let refused = client.peer(&instance, Some(address(to)));
        assert_eq!(error(refused), "InvalidArgument", "{to}");
    }
    let everything = guest(&network, Role::Component, &["*"], &[], &[]);
    let client = everything.bound("0.0.0.0:0").unwrap();
    assert!(denied(send(&client, Some("255.255.255.255:53"), b"")));
    assert!(
        denied(send(&client, Some(&at), b"")),
        "the machine's loopback"
    );
}

#[tokio::test]
async fn only_a_service_chooses_a_port() {
    let network = Network::default();
    let component = guest(&network, Role::Component, &["*"], &[], &[]);
    for at in ["127.0.0.1:7000", "0.0.0.0:7000", "192.0.2.1:0"] {
        assert!(denied(component.bound(at)), "{at}");
    }
    let bound = component.bound("127.0.0.1:0").unwrap();
    assert_eq!(error(bound.bind(address("127.0.0.1:0"))), "InvalidState");
    let service = guest(&network, Role::Service, &[], &[], &[]);
    let _taken = service.bound("0.0.0.0:7000").unwrap();
    assert!(matches!(
        service.bound("127.0.0.1:7000"),
        Err(ErrorCode::AddressInUse)
    ));
    assert!(denied(service.bound("192.0.2.1:7001")));
    let unbound = component.udp();
    assert!(matches!(
        unbound.try_receive(),
        Err(ErrorCode::InvalidState)
    ));
    assert!(matches!(
        unbound.local_address(),
        Err(ErrorCode::InvalidState)
    ));
    send(&unbound, Some("127.0.0.1:7000"), b"").unwrap();
    assert!(unbound.local_address().is_ok(), "to send is to be bound");
}

#[tokio::test]
async fn what_waits_in_a_workload_is_bounded() {
    let network = Network::default();
    let component = guest(&network, Role::Component, &[], &[], &[]);
    let sender = component.udp();
    let receivers: Vec<_> = (0..MAX_SOCKETS - 1)
        .map(|_| component.bound("127.0.0.1:0").unwrap())
        .collect();
    let fill = || {
        for receiver in &receivers {
            let to = receiver.local_address().unwrap().to_string();
            for _ in 0..4 {
                send(&sender, Some(&to), &[0; 60_000]).unwrap();
            }
        }
    };
    let empty = |receiver: &Arc<UdpSocket>| {
        let mut taken = 0;
        while let Some(datagram) = receiver.try_receive().unwrap() {
            taken += datagram.data.len() + 512;
        }
        taken
    };
    for _ in 0..2 {
        fill();
        let taken: usize = receivers.iter().map(empty).sum();
        assert!((TOTAL / 2..=TOTAL).contains(&taken), "{taken} bytes waited");
    }
    fill();
    drop(receivers);
    assert_eq!(network.loopback.room().available_permits(), TOTAL);
}

#[tokio::test]
async fn datagrams_and_sockets_are_bounded() {
    let network = Network::default();
    let service = guest(&network, Role::Service, &[], &[], &[]);
    let receiver = service.bound("127.0.0.1:7000").unwrap();
    let sender = service.udp();
    let to = Some("127.0.0.1:7000");
    let large = send(&sender, to, &[0; 65_508]);
    assert_eq!(error(large), "DatagramTooLarge");
    for size in [65_507, 0] {
        for _ in 0..10_000 {
            send(&sender, to, &vec![0; size]).unwrap();
        }
        let mut taken = 0;
        while let Some(datagram) = receiver.try_receive().unwrap() {
            taken += datagram.data.len() + 512;
        }
        assert!(
            (CAPACITY / 2..=CAPACITY).contains(&taken),
            "{taken} bytes waited"
        );
    }

    let (server, at) = server().await;
    let component = granted(&network, &[&server]);
    let mut clients = Vec::new();
    for _ in 0..MAX_OUTSIDE {
        clients.push(component.udp());
        send(clients.last().unwrap(), Some(&at), b"").unwrap();
    }
    let client = component.udp();
    assert_eq!(error(send(&client, Some(&at), b"")), "OutOfMemory");
    clients.pop();
    send(&client, Some(&at), b"").unwrap();
    let sockets = MAX_SOCKETS - MAX_OUTSIDE - 2;
    let more: Vec<_> = (0..sockets).map(|_| component.udp()).collect();
    assert!(UdpSocket::new(&component.grants, Family::V4).is_none());
    drop((clients, client, more, receiver, sender));
    assert_eq!(network.sockets.available_permits(), MAX_SOCKETS);
    assert_eq!(network.outside.available_permits(), MAX_OUTSIDE);
    assert!(service.bound("127.0.0.1:7000").is_ok());
}
