//! Clients that leave before they have their answer, where guests have instances of their own and where they share one.

use futures::future::{AbortHandle, Abortable};

use super::{
    client::{Client, empty, get},
    reuse::{number, reuse, said, serve},
    *,
};
use crate::spec::Reuse;

/// Far longer than a test: who waits for it waits in vain.
const HOUR: &str = "/?ms=3600000";

/// A client whose request runs.
enum Waiting {
    Http1(TcpStream),
    /// The connection stays, and only the stream is reset.
    Http2(Client, AbortHandle),
}

impl Waiting {
    /// Asks for what takes an hour, and waits until so many requests are in flight.
    async fn new(world: &World, host: &str, http2: bool, in_flight: u64) -> Self {
        let waiting = if http2 {
            let mut client = Client::of(world).await;
            let (stream, registration) = AbortHandle::new_pair();
            let answer = client.send(get(host, HOUR), empty());
            tokio::spawn(Abortable::new(answer, registration));
            Self::Http2(client, stream)
        } else {
            let mut stream = world.connect().await;
            let head = format!("GET {HOUR} HTTP/1.1\r\nhost: {host}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            Self::Http1(stream)
        };
        until(|| world.counts(host).in_flight == in_flight).await;
        waiting
    }

    /// Leaves. What is left of it has to be kept, for there to be no other reason why the request ends.
    fn leave(self) -> Option<Client> {
        match self {
            Self::Http1(stream) => {
                drop(stream);
                None
            }
            Self::Http2(client, stream) => {
                stream.abort();
                Some(client)
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request() {
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let _served = serve(&world, name, |c| {
            c.request_timeout = Some(Duration::from_secs(7200));
        })
        .await;
        // Before the head, with nothing to say that the client is gone but its connection; and in the middle of the body.
        let before = Waiting::new(&world, name, false, 1).await;
        until(|| world.counts(name).instances == 1).await;
        before.leave();
        until(|| world.counts(name).in_flight == 0).await;
        until(|| world.counts(name).instances == 0).await;

        let mut begun = world.connect().await;
        let head = format!("GET /?ms=300&chunks=10000 HTTP/1.1\r\nhost: {name}\r\n\r\n");
        begun.write_all(head.as_bytes()).await.unwrap();
        let mut response = vec![0; 12];
        begun.read_exact(&mut response).await.unwrap();
        assert_eq!(response, b"HTTP/1.1 200", "{name}");
        assert_eq!(world.counts(name).in_flight, 1);
        drop(begun);
        until(|| world.counts(name).in_flight == 0).await;
        until(|| world.counts(name).instances == 0).await;
    }
}

/// Requests that may take two hours, in instances that take four at a time; so many of them.
async fn patient(world: &World, pool_size: u32, most: u32) -> Served {
    serve(world, "counter-p3", |c| {
        c.request_timeout = Some(Duration::from_secs(7200));
        c.max_instances = Some(number(most));
        c.reuse = Some(Reuse {
            max_concurrency: number(4),
            ..reuse(pool_size)
        });
    })
    .await
}

/// Requests that shared instances have begun. One that is only in flight may still get another instance, and leaves none behind
/// that has to end.
fn begun(world: &World, host: &str) -> usize {
    let handler = world.server.ingress.handler(host).unwrap();
    handler.shared.as_ref().unwrap().begun()
}

#[tokio::test]
async fn the_last_client_of_a_shared_instance_that_leaves_ends_it() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = patient(&world, 1, 1).await;
    for http2 in [false, true] {
        let first = Waiting::new(&world, name, http2, 1).await;
        let second = Waiting::new(&world, name, http2, 2).await;
        until(|| begun(&world, name) == 2).await;
        assert_eq!(world.counts(name).instances, 1);
        let left = (first.leave(), second.leave());
        until(|| world.counts(name).in_flight == 0).await;
        until(|| world.counts(name).instances == 0).await;
        assert_eq!(said(&world.get(name, "/").await, "served"), 1);
        until(|| world.counts(name).in_flight == 0).await;
        // What serves after it has to be gone, too.
        assert_eq!(status(&world.get(name, "/trap").await), "500");
        until(|| world.counts(name).instances == 0).await;
        drop(left);
    }
    let counts = world.counts(name);
    assert_eq!(
        (counts.trapped, counts.out_of_time, counts.stopped),
        (2, 0, 0)
    );
}

#[tokio::test]
async fn a_client_that_leaves_a_shared_instance_does_not_end_its_neighbours() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = patient(&world, 2, 2).await;
    for http2 in [false, true] {
        let leaver = Waiting::new(&world, name, http2, 1).await;
        until(|| begun(&world, name) == 1).await;
        let neighbour = world.get(name, "/?ms=3000");
        let (neighbour, left) = tokio::join!(neighbour, async {
            until(|| begun(&world, name) == 2).await;
            assert_eq!(world.counts(name).instances, 1);
            let left = leaver.leave();
            until(|| world.counts(name).in_flight == 1).await;
            // Its place is nobody's: who comes has another instance.
            assert_eq!(said(&world.get(name, "/").await, "served"), 1);
            left
        });
        assert_eq!(said(&neighbour, "served"), 2, "it went on");
        until(|| world.counts(name).instances == 1).await;
        assert_eq!(said(&world.get(name, "/").await, "served"), 2);
        assert_eq!(status(&world.get(name, "/trap").await), "500");
        until(|| world.counts(name).instances == 0).await;
        drop(left);
    }
}
