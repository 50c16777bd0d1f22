//! Instances that nobody uses: how long they stay, and whom they give way to.

use super::{
    reuse::{number, reuse, said, serve},
    *,
};
use crate::{engine::Flavor, spec::Reuse};

const CONCURRENT: &str = "counter-p3";

#[tokio::test]
async fn a_shared_instance_stays_for_as_long_as_idle_ones_are_kept() {
    let world = World::new().await;
    let room = world.engine.room(Flavor::Concurrent).clone();
    let kept = |timeout, idle| {
        let reuse = Reuse {
            max_concurrency: number(4),
            idle,
            ..reuse(1)
        };
        serve(&world, CONCURRENT, move |c| {
            c.request_timeout = Some(timeout);
            c.reuse = Some(reuse);
        })
    };
    let short = Duration::from_secs(1);
    // For ever, however little time a request has.
    let served = kept(short, None).await;
    assert_eq!(said(&world.get(CONCURRENT, "/").await, "served"), 1);
    sleep(short * 3).await;
    assert_eq!(said(&world.get(CONCURRENT, "/").await, "served"), 2);
    drop(served);
    until(|| room.used() == 0).await;
    // For a moment, however much time a request has.
    let _served = kept(Duration::from_secs(600), Some(short)).await;
    for _ in 0..2 {
        assert_eq!(said(&world.get(CONCURRENT, "/?ms=100").await, "served"), 1);
        until(|| room.used() == 0).await;
    }
}

/// A component whose start function never ends.
const SPINS: &str = r#"(component
    (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $out))
    (core module $m
        (func $spin (loop br 0))
        (start $spin)
        (func (export "handle") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func $handle (param "request" (own $request)) (param "response-out" (own $out))
        (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

#[tokio::test]
async fn what_is_made_ahead_has_a_requests_time_to_start_and_ends_with_its_workload() {
    let world = World::new().await;
    let room = world.engine.room(Flavor::Plain).clone();
    let spins = wat::parse_str(SPINS).unwrap();
    for (timeout, ends) in [(1, false), (600, true)] {
        let mut kit = world.kit("spins", &[]);
        kit.workload.components[0].request_timeout = Some(Duration::from_secs(timeout));
        kit.workload.components[0].reuse = Some(Reuse {
            min_instances: 1,
            ..reuse(1)
        });
        let served = world.serve(kit, &spins).await;
        until(|| room.used() == 1).await;
        let served = Some(served).filter(|_| !ends);
        until(|| room.used() == 0).await;
        drop(served);
    }
}

#[tokio::test]
async fn a_generation_that_drains_keeps_no_instance_that_has_no_request() {
    let world = World::new().await;
    let room = world.engine.room(Flavor::Concurrent).clone();
    for concurrency in [1, 2] {
        let served = serve(&world, CONCURRENT, |c| {
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                min_instances: 2,
                ..reuse(4)
            });
        })
        .await;
        let all = futures::future::join_all((0..4).map(|_| world.get(CONCURRENT, "/?ms=100")));
        assert!(all.await.iter().all(|a| status(a) == "200"));
        until(|| world.counts(CONCURRENT).in_flight == 0).await;
        assert!(room.used() >= 2);
        let (last, ()) = tokio::join!(world.get(CONCURRENT, "/?ms=1500"), async {
            until(|| world.counts(CONCURRENT).in_flight == 1).await;
            sleep(Duration::from_millis(100)).await;
            let drained = timeout(Duration::from_secs(10), served.binding.drain());
            let (drained, ()) = tokio::join!(drained, until(|| room.used() == 1));
            drained.unwrap();
        });
        assert_eq!(status(&last), "200");
        // Nothing but the binding holds it now, and it has not been dropped.
        until(|| room.used() == 0).await;
        drop(served);
    }
}

#[tokio::test]
async fn instances_that_nobody_uses_give_way_to_a_request_of_another_workload() {
    let world = World::new().await;
    let room = world.engine.room(Flavor::Concurrent).clone();
    for concurrency in [1, 2] {
        let other = world.kit("other", &[("host", "other")]);
        let _other = world.serve(other, &guest("hello-p3")).await;
        let served = serve(&world, CONCURRENT, |c| {
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                min_instances: 1,
                ..reuse(2)
            });
        })
        .await;
        // Two of them at a time, whether or not they are shared.
        let calls = (0..concurrency + 1).map(|_| world.get(CONCURRENT, "/?ms=300"));
        futures::future::join_all(calls).await;
        until(|| world.counts(CONCURRENT).in_flight == 0 && room.used() == 2).await;
        let mut full: Vec<_> = std::iter::from_fn(|| room.try_enter()).collect();
        assert_eq!(status(&world.get("other", "/").await), "200");
        until(|| world.counts("other").instances == 0).await;
        // The one that is to be there whatever happens stays.
        full.extend(std::iter::from_fn(|| room.try_enter()));
        let (answer, ()) = tokio::join!(world.get("other", "/"), async {
            until(|| world.counts("other").waiting == 1).await;
            sleep(Duration::from_millis(200)).await;
            assert_eq!(world.counts("other").waiting, 1);
            full.pop();
        });
        assert_eq!(status(&answer), "200");
        assert_eq!(world.counts(CONCURRENT).instances, 1);
        drop((served, full));
        until(|| room.used() == 0).await;
    }
}
