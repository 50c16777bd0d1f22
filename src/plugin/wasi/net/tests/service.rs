//! Guests that listen, in every version of WASI, and what reaches them.

use std::{future::poll_fn, sync::Arc, time::Duration};

use wasmtime_wasi::{p2, p3, sockets::ErrorCode};

use super::{
    super::{loopback::Family, udp::UdpSocket},
    Guest, Instance, Network, Role, guest,
};
use crate::{
    engine::{Engine, Flavor},
    plugin::{ComponentFacts, Part, Slots, StoreTemplate, testing, wasi},
};

/// Bytes of an exchange: more than all buffers on the way hold, so that each side has to wait for the other.
const BYTES: usize = 300_000;

/// Runs a guest that is checked in as the service of a network.
async fn serve(network: &Network, name: &str) -> tokio::task::JoinHandle<()> {
    let engine = Engine::builder().max_instances(4).build().unwrap();
    let compiled = testing::compile(&engine, &testing::guest(name)).await;
    let facts = ComponentFacts {
        name: "main".into(),
        world: compiled.world.clone(),
        flavor: compiled.flavor,
        apart: Arc::default(),
    };
    let mut linker = engine.linker(compiled.flavor);
    wasi::link(&mut linker, &facts).unwrap();
    let pre = linker.instantiate_pre(&compiled.component).unwrap();
    let workload = testing::workload("test");
    let component = &workload.components[0];
    let whole = Part::new(
        &workload,
        component,
        Slots::default(),
        network,
        Role::Service,
    );
    let template = StoreTemplate::new(
        &engine,
        &workload,
        &workload.components[0],
        &compiled,
        whole,
        Vec::new(),
    );
    tokio::spawn(async move {
        let mut store = template.store();
        let ended = if compiled.flavor == Flavor::Concurrent {
            let command = p3::bindings::CommandPre::new(pre).unwrap();
            let command = command.instantiate_async(&mut store).await.unwrap();
            let run = async |store: &_| command.wasi_cli_run().call_run(store).await;
            store.run_concurrent(run).await.unwrap().unwrap()
        } else {
            let command = p2::bindings::CommandPre::new(pre).unwrap();
            let command = command.instantiate_async(&mut store).await.unwrap();
            command.wasi_cli_run().call_run(&mut store).await.unwrap()
        };
        panic!("the service has ended: {ended:?}");
    })
}

/// Sends bytes to the service, and takes what comes back until the end.
async fn exchange(guest: &Guest) -> Vec<u8> {
    let (_socket, connection) = loop {
        match guest.connect("127.0.0.1:7000").await {
            Ok(connected) => break connected,
            // It has not come to listening yet.
            Err(ErrorCode::ConnectionRefused) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let (write, read) = (connection.write, connection.read);
    let send = async move {
        let bytes: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = poll_fn(|context| write.poll_write(context, rest)).await;
            rest = &rest[count.unwrap()..];
        }
    };
    let receive = async {
        let mut received = Vec::new();
        let mut some = [0; 5000];
        loop {
            match poll_fn(|context| read.poll_read(context, &mut some)).await {
                Ok(0) => return received,
                Ok(count) => received.extend_from_slice(&some[..count]),
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(send, receive).1
}

async fn echoes(name: &str) {
    let networks = [(); 2].map(|()| Network::default());
    // Two workloads with the same service: the same port, twice.
    let services = [
        serve(&networks[0], name).await,
        serve(&networks[1], name).await,
    ];
    let clients = networks
        .each_ref()
        .map(|network| guest(network, Role::Component, &[], &[], &[]));
    let all = async {
        for client in &clients {
            for _ in 0..3 {
                let received = exchange(client).await;
                assert_eq!(received.len(), BYTES);
                assert!(
                    received
                        .iter()
                        .enumerate()
                        .all(|(i, b)| *b == (i % 251) as u8)
                );
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap();
    for service in services {
        assert!(!service.is_finished());
        service.abort();
        assert!(service.await.unwrap_err().is_cancelled());
    }
    for client in &clients {
        let refused = client.connect("127.0.0.1:7000").await;
        assert!(matches!(refused, Err(ErrorCode::ConnectionRefused)));
        assert_eq!(
            client.grants.network.sockets.available_permits(),
            super::MAX_SOCKETS
        );
    }
}

/// Sends datagrams to the service, and takes what comes back.
async fn echoes_datagrams(name: &str) {
    let networks = [(); 2].map(|()| Network::default());
    let _services = [
        serve(&networks[0], name).await,
        serve(&networks[1], name).await,
    ];
    let all = async {
        for network in &networks {
            let client = guest(network, Role::Component, &[], &[], &[]);
            let socket = UdpSocket::new(&client.grants, Family::V4).unwrap();
            let instance = Instance::default();
            let to = "127.0.0.1:7000".parse().unwrap();
            for size in [0, 1, 1400, 65_507] {
                let sent = vec![b'x'; size];
                let peer = socket.peer(&instance, Some(to)).unwrap();
                loop {
                    socket.send(peer, &sent).await.unwrap();
                    let answer = tokio::time::timeout(Duration::from_millis(100), socket.receive());
                    // It may not have come to receiving yet, or this answers an earlier try.
                    if let Ok(received) = answer.await.map(Result::unwrap) {
                        assert_eq!(received.from, to);
                        if received.data == sent {
                            break;
                        }
                    }
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_of_0_2_answers_datagrams() {
    echoes_datagrams("udp-service").await;
}

#[tokio::test]
async fn a_service_of_0_3_answers_datagrams() {
    echoes_datagrams("udp-service-p3").await;
}

#[tokio::test]
async fn a_service_of_0_2_serves_its_workload() {
    echoes("net-service").await;
}

#[tokio::test]
async fn a_service_of_0_3_serves_its_workload() {
    echoes("net-service-p3").await;
}
