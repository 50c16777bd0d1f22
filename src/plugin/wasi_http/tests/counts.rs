//! What is counted, and of whom.

use super::*;
use crate::spec;

/// Of one workload, by its name.
fn of(world: &World, name: &str) -> Option<HttpSnapshot> {
    let mut snapshots = world.server.snapshots();
    snapshots.remove(&("default".into(), name.into()))
}

#[tokio::test]
async fn responses_are_counted_by_class_whoever_gives_them() {
    let world = World::new().await;
    let _served = world
        .serve(world.kit("faults", &[("host", "a")]), &guest("faults"))
        .await;
    for _ in 0..2 {
        assert_eq!(status(&world.get("a", "/ok").await), "200");
    }
    for path in ["/panic", "/no-response"] {
        assert_eq!(status(&world.get("a", path).await), "500");
    }
    // It begins well.
    assert!(!is_whole(&world.get("a", "/drop-body").await));
    until(|| world.counts("faults").in_flight == 0).await;
    let counts = world.counts("faults");
    assert_eq!(counts.responses, [0, 3, 0, 0, 2], "{counts:?}");
    assert_eq!((counts.requests, counts.cut), (5, 1), "{counts:?}");
}

#[tokio::test]
async fn requests_of_nobody_are_counted_by_reason() {
    let world = World::new().await;
    let _served = world
        .serve(world.kit("v1", &[("host", "a")]), &guest("v1"))
        .await;
    assert_eq!(status(&world.get("elsewhere", "/").await), "404");
    assert_eq!(status(&world.get("b", "/").await), "404");
    let without = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&world.send(without).await), "400");
    assert_eq!(status(&world.get("a", "/").await), "200");
    let refused = world.server.refused();
    assert_eq!((refused.no_route, refused.no_host), (2, 1), "{refused:?}");
    assert_eq!(
        (refused.large_head, refused.stopping),
        (0, 0),
        "{refused:?}"
    );
    assert_eq!(of(&world, "v1").unwrap().requests, 1);
}

#[tokio::test]
async fn what_is_there_now_is_told() {
    let world = World::new().await;
    let mut kit = world.kit("slow", &[("host", "slow")]);
    kit.workload.components[0].max_instances = Some(1.try_into().unwrap());
    kit.workload.components[0].reuse = Some(spec::Reuse {
        pool_size: 1.try_into().unwrap(),
        max_invocations: None,
        max_concurrency: 1.try_into().unwrap(),
        min_instances: 0,
        idle: None,
    });
    let _served = world.serve(kit, &guest("slow")).await;
    let now = || {
        let counts = of(&world, "slow").unwrap();
        let HttpSnapshot {
            in_flight,
            waiting,
            instances,
            idle_instances,
            ..
        } = counts;
        (in_flight, waiting, instances, idle_instances)
    };
    assert_eq!(now(), (0, 0, 0, 0));
    tokio::join!(
        world.get("slow", "/?ms=500"),
        world.get("slow", "/?ms=500"),
        until(|| now() == (2, 1, 1, 0))
    );
    until(|| now() == (0, 0, 1, 1)).await;
}

#[tokio::test]
async fn generations_count_together_and_a_workload_that_is_gone_does_not() {
    let world = World::new().await;
    let kit = |id: &str| {
        let mut kit = world.kit("app", &[("host", "app")]);
        kit.workload.id = id.into();
        kit.workload.components[0].request_timeout = None;
        kit
    };
    let first = world.serve(kit("1"), &guest("slow")).await;
    let cut = tokio::join!(world.get("app", "/?ms=20000"), async {
        until(|| of(&world, "app").unwrap().in_flight == 1).await;
        let second = world.serve(kit("1"), &guest("slow")).await;
        drop(first);
        second
    });
    assert_eq!(status(&cut.0), "503");
    assert_eq!(status(&world.get("app", "/").await), "200");
    until(|| of(&world, "app").unwrap().in_flight == 0).await;
    let counts = of(&world, "app").unwrap();
    assert_eq!((counts.requests, counts.stopped), (2, 1), "{counts:?}");

    // Deleted, and made anew under the same name.
    let mut other = kit("2");
    other.workload.interfaces[0].config = [("host".to_owned(), "other".to_owned())].into();
    let other = world.serve(other, &guest("slow")).await;
    assert_eq!(status(&world.get("other", "/").await), "200");
    assert_eq!(of(&world, "app").unwrap().requests, 3);
    drop(cut.1);
    assert_eq!(of(&world, "app").unwrap().requests, 1);
    drop(other);
    assert_eq!(of(&world, "app"), None);
}
