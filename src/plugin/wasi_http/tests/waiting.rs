//! Requests that wait for an instance, and who makes room for them.

use futures::future::join_all;

use super::{
    reuse::{number, reuse, said, serve},
    *,
};
use crate::{
    engine::{Flavor, Place},
    spec::Reuse,
};

const CONCURRENT: &str = "counter-p3";

/// All places of an engine that there are.
fn fill(world: &World, flavor: Flavor) -> Vec<Place> {
    let room = world.engine.room(flavor);
    std::iter::from_fn(|| room.try_enter()).collect()
}

#[tokio::test]
async fn a_request_whose_time_ends_in_the_queue_was_refused_and_not_late() {
    let world = World::new().await;
    let _served = serve(&world, CONCURRENT, |c| {
        c.request_timeout = Some(Duration::from_millis(300));
    })
    .await;
    let full = fill(&world, Flavor::Concurrent);
    let refused = world.get(CONCURRENT, "/").await;
    assert_eq!(status(&refused), "503", "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    let counts = world.counts(CONCURRENT);
    assert_eq!((counts.rejected, counts.out_of_time), (1, 0));
    drop(full);
    assert_eq!(status(&world.get(CONCURRENT, "/").await), "200");
}

#[tokio::test]
async fn a_request_waits_for_an_instance_no_longer_than_it_may_however_much_time_it_has() {
    let mut server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    Arc::get_mut(&mut server.ingress).unwrap().wait = Duration::from_millis(300);
    let world = World::with(server).await;
    let full = fill(&world, Flavor::Concurrent);
    for concurrency in [1, 2] {
        let _served = serve(&world, CONCURRENT, |c| {
            c.request_timeout = Some(Duration::from_secs(7200));
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                ..reuse(1)
            });
        })
        .await;
        let before = world.counts(CONCURRENT);
        let refused = world.get(CONCURRENT, "/").await;
        assert_eq!(status(&refused), "503", "{refused}");
        assert!(refused.contains("retry-after: 1"), "{refused}");
        let counts = world.counts(CONCURRENT);
        assert_eq!(counts.rejected, before.rejected + 1);
        assert_eq!(counts.out_of_time, 0);
    }
    drop(full);
}

#[tokio::test]
async fn a_request_that_a_shared_instance_has_ended_leaves_its_place_to_one_that_waits() {
    let world = World::new().await;
    for spent in [None, Some(number(4))] {
        let _served = serve(&world, CONCURRENT, |c| {
            c.max_instances = Some(number(1));
            c.reuse = Some(Reuse {
                max_concurrency: number(4),
                max_invocations: spent,
                ..reuse(1)
            });
        })
        .await;
        // Four run and four wait.
        let answers = join_all((0..8).map(|_| world.get(CONCURRENT, "/?ms=300"))).await;
        let mut served: Vec<u32> = answers.iter().map(|a| said(a, "served")).collect();
        served.sort_unstable();
        let wanted = match spent {
            None => [1, 2, 3, 4, 5, 6, 7, 8],
            Some(_) => [1, 1, 2, 2, 3, 3, 4, 4],
        };
        assert_eq!(served, wanted);
        until(|| world.counts(CONCURRENT).in_flight == 0).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_shared_instance_is_bounded_in_number_and_time_and_is_cut() {
    let world = World::new().await;
    let limited = |timeout| {
        move |c: &mut crate::spec::Component| {
            c.request_timeout = Some(Duration::from_millis(timeout));
            c.max_instances = Some(number(1));
            c.reuse = Some(Reuse {
                max_concurrency: number(2),
                ..reuse(1)
            });
        }
    };
    let full = fill(&world, Flavor::Concurrent);
    let served = serve(&world, CONCURRENT, limited(300)).await;
    let answers = join_all((0..5).map(|_| world.get(CONCURRENT, "/"))).await;
    assert!(answers.iter().all(|a| status(a) == "503"), "{answers:?}");
    let counts = world.counts(CONCURRENT);
    assert_eq!((counts.rejected, counts.out_of_time), (5, 0));
    drop(served);

    let served = serve(&world, CONCURRENT, limited(20_000)).await;
    let before = world.counts(CONCURRENT);
    let (answers, ()) = tokio::join!(
        join_all((0..5).map(|_| world.get(CONCURRENT, "/"))),
        async {
            // The fifth is one too many, and the others wait.
            until(|| world.counts(CONCURRENT).rejected == before.rejected + 1).await;
            assert_eq!(world.counts(CONCURRENT).waiting, 4);
            drop(served);
        }
    );
    assert!(answers.iter().all(|a| status(a) == "503"), "{answers:?}");
    drop(full);
}
