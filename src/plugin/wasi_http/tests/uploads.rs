//! Clients of HTTP/1.1 that leave in the middle of an upload that their guest does not read, and those that do not leave.

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    reuse::{number, reuse, said, serve},
    *,
};
use crate::spec::Reuse;

/// Far longer than a test.
const HOUR: &str = "/?ms=3600000";
/// What is announced, and more than is ever sent.
const ANNOUNCED: usize = 8 << 20;
/// More than is read ahead, and what the system has room for.
const SOME: usize = 64 << 10;
/// More than the system has room for where it is received; the rest waits where it is sent.
const MUCH: usize = 1 << 20;

fn head(host: &str, target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n")
}

/// A workload whose requests may take two hours.
async fn endless(world: &World, name: &str) -> Served {
    serve(world, name, |c| {
        c.request_timeout = Some(Duration::from_secs(7200));
    })
    .await
}

/// Sends so much of an upload that is so long and is not read, and waits until its guest runs.
async fn begin(
    world: &World,
    stream: &mut (impl AsyncWrite + Unpin),
    host: &str,
    (sent, announced): (usize, usize),
) {
    let mut request = head(host, HOUR, announced).into_bytes();
    request.resize(request.len() + sent, b'~');
    let written = timeout(Duration::from_secs(10), stream.write_all(&request));
    written.await.expect("there is no room").unwrap();
    stream.flush().await.unwrap();
    until(|| world.counts(host).in_flight == 1 && world.counts(host).instances == 1).await;
    // All that is read ahead is read.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.counts(host).in_flight, 1, "{host}");
}

async fn is_over(world: &World, host: &str, how: &str) {
    let over = async {
        while world.counts(host).in_flight + world.counts(host).instances > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let over = timeout(Duration::from_secs(10), over).await;
    assert!(over.is_ok(), "{host}: it goes on after {how}");
    let counts = world.counts(host);
    assert_eq!(
        (counts.trapped, counts.out_of_time, counts.stopped),
        (0, 0, 0),
        "{host}: {how}"
    );
}

#[tokio::test]
async fn who_leaves_an_upload_unread_ends_the_request() {
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let _served = endless(&world, name).await;
        let mut stream = world.connect().await;
        begin(&world, &mut stream, name, (SOME, ANNOUNCED)).await;
        drop(stream);
        is_over(&world, name, "an end").await;

        // A reset says enough, whatever has been sent.
        for sent in [(MUCH, ANNOUNCED), (MUCH, MUCH), (SOME, SOME)] {
            let mut stream = world.connect().await;
            begin(&world, &mut stream, name, sent).await;
            stream.set_zero_linger().unwrap();
            drop(stream);
            is_over(&world, name, &format!("a reset after {sent:?}")).await;
        }
    }
}

#[tokio::test]
async fn who_leaves_an_upload_unread_over_tls_ends_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let roots = https::certify(dir.path());
    let world = https::world(dir.path()).await;
    let mut kit = world.kit("slow", &[("host", "slow")]);
    kit.workload.components[0].request_timeout = Some(Duration::from_secs(7200));
    let _served = world.serve(kit, &guest("slow")).await;
    for version in [&TLS12, &TLS13] {
        for is_reset in [false, true] {
            let stream = https::connect(&world, &roots, version, &["http/1.1"]).await;
            let mut stream = stream.unwrap();
            begin(&world, &mut stream, "slow", (SOME, ANNOUNCED)).await;
            if is_reset {
                stream.get_ref().0.set_zero_linger().unwrap();
            }
            drop(stream);
            is_over(&world, "slow", &format!("{version:?} {is_reset}")).await;
        }
    }
}

#[tokio::test]
async fn who_leaves_an_upload_unread_in_a_shared_instance_frees_its_place() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| {
        c.request_timeout = Some(Duration::from_secs(7200));
        c.max_instances = Some(number(1));
        c.reuse = Some(Reuse {
            max_concurrency: number(4),
            ..reuse(1)
        });
    })
    .await;
    let mut stream = world.connect().await;
    begin(&world, &mut stream, name, (SOME, ANNOUNCED)).await;
    drop(stream);
    is_over(&world, name, "an end").await;
    assert_eq!(said(&world.get(name, "/").await, "served"), 1);
}

#[tokio::test]
async fn who_leaves_a_later_upload_of_a_connection_is_noticed_too() {
    let world = World::new().await;
    let _echo = endless(&world, "echo").await;
    let _slow = endless(&world, "slow").await;
    let mut stream = world.connect().await;
    let get = b"GET /?ms=0 HTTP/1.1\r\nhost: slow\r\n\r\n";
    stream.write_all(get).await.unwrap();
    response(&mut stream).await;
    // Slower than its guest, and then faster.
    for pause in [20, 0] {
        let mut sent = head("echo", "/", MUCH).into_bytes();
        sent.resize(sent.len() + MUCH, b'~');
        let (mut from, mut to) = stream.split();
        let write = async {
            for part in sent.chunks(MUCH / 16) {
                to.write_all(part).await.unwrap();
                sleep(Duration::from_millis(pause)).await;
            }
        };
        let ((), echoed) = tokio::join!(write, response(&mut from));
        assert_eq!(status(&echoed), "200");
        assert_eq!(echoed.matches('~').count(), MUCH);
        until(|| world.counts("echo").in_flight == 0).await;
    }
    until(|| world.counts("slow").instances == 0).await;
    begin(&world, &mut stream, "slow", (SOME, ANNOUNCED)).await;
    drop(stream);
    is_over(&world, "slow", "an end").await;
}

/// The whole next response.
async fn response(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut response = String::new();
    let mut part = vec![0; 64 << 10];
    while response.is_empty() || !is_whole(&response) {
        let read = timeout(Duration::from_secs(10), stream.read(&mut part));
        let read = read.await.unwrap().unwrap();
        assert!(read > 0, "{response:.200}");
        response.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    response
}

/// What is answered to a client that sends all of its upload and closes its half of the connection.
async fn half_closed(world: &World, host: &str, target: &str, length: usize) -> String {
    let mut stream = world.connect().await;
    let mut request = head(host, target, length).into_bytes();
    request.resize(request.len() + length, b'~');
    stream.write_all(&request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    let read = timeout(
        Duration::from_secs(20),
        stream.read_to_string(&mut response),
    );
    read.await.expect("it does not end").unwrap();
    response
}

#[tokio::test]
async fn who_has_sent_a_whole_upload_is_answered_without_its_half_of_the_connection() {
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let _served = endless(&world, name).await;
        // The last is so long that the end does not come before the answer.
        for length in [100_000, 120_000, MUCH] {
            // hyper takes the end for the client's if it finds it before the answer. It looks for it once the guest has given up
            // what it did not read, which a busy system may let happen some time before.
            let mut answered = false;
            for _ in 0..5 {
                answered |= status(&half_closed(&world, name, "/?ms=500", length).await) == "200";
                if answered {
                    break;
                }
            }
            assert!(answered, "{name} {length}");
        }
        // If all of it is read ahead, so is the end.
        assert_eq!(half_closed(&world, name, "/?ms=500", 2000).await, "");
        is_over(&world, name, "an end").await;
    }
}
