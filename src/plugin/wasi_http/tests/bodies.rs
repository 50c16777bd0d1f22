//! Bodies: as long as they are, whatever their pieces, and however their clients read.

use std::num::NonZeroU32;

use futures::future::join_all;
use tokio::net::TcpSocket;

use super::*;
use crate::spec::Reuse;

#[tokio::test]
async fn bodies_stream_through() {
    let world = World::new().await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let body = "x".repeat(300_000);
        let head = format!(
            "POST /p?q HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let response = world.send(&(head + &body)).await;
        assert_eq!(status(&response), "200", "{name}");
        assert_eq!(
            response.matches('x').count()
                - response[..400]
                    .split("\r\n\r\n")
                    .next()
                    .unwrap()
                    .matches('x')
                    .count(),
            300_000
        );
        assert!(is_whole(&response), "{name}");
        until(|| world.counts(name).in_flight == 0).await;
    }
}

#[tokio::test]
async fn a_body_goes_on_when_its_client_reads_again() {
    const SIZE: usize = 8 << 20;
    let world = World::new().await;
    for (name, together) in [("echo", 1), ("echo-p3", 1), ("echo-p3", 2)] {
        let mut kit = world.kit(name, &[("host", name)]);
        kit.workload.components[0].reuse = Some(Reuse {
            max_concurrency: NonZeroU32::new(together).unwrap(),
            ..reuse::reuse(1)
        });
        let _served = world.serve(kit, &guest(name)).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let stream = socket.connect(world.server.addr().unwrap()).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        let write = async {
            to.write_all(head.as_bytes()).await.unwrap();
            to.write_all(&vec![b'~'; SIZE]).await.unwrap();
        };
        let read = async {
            let mut response = vec![0; 100_000];
            from.read_exact(&mut response).await.unwrap();
            // All that keeps something on the way is full.
            sleep(Duration::from_millis(300)).await;
            from.read_to_end(&mut response).await.unwrap();
            response
        };
        let ((), response) = timeout(Duration::from_secs(60), async { tokio::join!(write, read) })
            .await
            .expect("it does not go on");
        let echoed = response.iter().filter(|byte| **byte == b'~').count();
        assert_eq!(echoed, SIZE, "{name} {together}");
        assert!(response.ends_with(b"\r\n0\r\n\r\n"), "{name} {together}");
    }
}

#[tokio::test]
async fn small_pieces_are_sent_however_many_they_are() {
    let world = World::new().await;
    let _served = world.serve(world.kit("slow", &[]), &guest("slow")).await;
    // Some of these use up Tokio's budget just where the body ends.
    for chunks in 100..400 {
        let response = world.get("a", &format!("/?ms=0&chunks={chunks}")).await;
        let sent = response.matches("chunk ").count();
        assert!(
            is_whole(&response) && sent == chunks,
            "{chunks}: {response}"
        );
    }
    // So many that the head is sent before the guest fails.
    for chunks in (1100..1250).step_by(3) {
        let path = format!("/?ms=0&chunks={chunks}&then=panic");
        let response = world.get("a", &path).await;
        let sent = response.matches("chunk ").count();
        assert!(
            !is_whole(&response) && sent == chunks,
            "{chunks}, {sent}: {response}"
        );
    }
}

#[tokio::test]
async fn what_a_guest_has_written_before_it_fails_is_sent_to_who_reads_slowly() {
    const SIZE: usize = 64 << 10;
    let world = World::new().await;
    let read = async |name: &str, chunks: usize| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 << 10).unwrap();
        let addr = world.server.addr().unwrap();
        let mut client = socket.connect(addr).await.unwrap();
        let query = format!("ms=0&chunks={chunks}&size={SIZE}&then=panic");
        let request = format!("GET /?{query} HTTP/1.1\r\nhost: {name}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::with_capacity(SIZE);
        while let 1.. = client.read_buf(&mut response).await.unwrap() {
            response.reserve(SIZE);
            sleep(Duration::from_millis(15)).await;
        }
        let response = String::from_utf8(response).unwrap();
        assert!(!is_whole(&response), "{name}");
        assert_eq!(response.matches("chunk ").count(), chunks, "{name}");
        let last = response.rsplit_once("chunk ").unwrap().1;
        assert!(last.len() > SIZE - 20, "{name}: {}", last.len());
    };
    for name in ["slow", "slow-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        // More than the 4 MiB that the system takes in, so that some of them end just when it takes nothing.
        join_all((90..122).step_by(4).map(|chunks| read(name, chunks))).await;
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(world.counts(name).cut, 8, "{name}");
    }
}

#[tokio::test]
async fn a_guest_that_writes_without_end_is_stopped() {
    let world = World::new().await;
    let mut kit = world.kit("slow", &[]);
    kit.workload.components[0].request_timeout = Some(Duration::from_millis(500));
    let _served = world.serve(kit, &guest("slow")).await;
    let endless = world.get("a", "/?ms=0&chunks=1000000000");
    let endless = timeout(Duration::from_secs(20), endless).await;
    assert!(!is_whole(&endless.expect("it goes on")));
    assert_eq!(world.counts("slow").out_of_time, 1);
}
