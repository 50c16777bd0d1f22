//! Generations of a workload: who has a route, and what becomes of requests in flight.

use super::*;

#[tokio::test]
async fn draining_lets_requests_end_and_takes_no_new_ones() {
    let world = World::new().await;
    let served = world.serve(world.kit("slow", &[]), &guest("slow")).await;
    let (response, ()) = tokio::join!(world.get("a", "/?ms=100&chunks=4"), async {
        until(|| world.counts("slow").in_flight == 1).await;
        let (_, refused) = tokio::join!(
            timeout(Duration::from_secs(10), served.binding.drain()),
            async {
                sleep(Duration::from_millis(50)).await;
                world.get("a", "/").await
            }
        );
        // Nobody else has the route: it is no wrong address, but the wrong moment.
        assert_eq!(status(&refused), "503", "{refused}");
        for header in ["retry-after: 1", "connection: close"] {
            assert!(refused.contains(header), "{refused}");
        }
    });
    assert!(
        response.contains("chunk 4") && is_whole(&response),
        "{response}"
    );
    assert_eq!(status(&world.get("a", "/").await), "404");
}

#[tokio::test]
async fn what_is_dropped_is_cut() {
    let world = World::new().await;
    for name in ["slow", "slow-p3"] {
        let served = world
            .serve(world.kit(name, &[("host", name)]), &guest(name))
            .await;
        let (cut, unanswered, ()) = tokio::join!(
            world.get(name, "/?ms=50&chunks=1000"),
            world.get(name, "/?ms=20000"),
            async {
                until(|| world.counts(name).in_flight == 2).await;
                sleep(Duration::from_millis(200)).await;
                drop(served);
            }
        );
        assert!(
            status(&cut) == "200" && cut.contains("chunk 1") && !is_whole(&cut),
            "{name}: {cut}"
        );
        assert_eq!(status(&unanswered), "503", "{name}: {unanswered}");
    }
}

#[tokio::test]
async fn a_new_generation_takes_over() {
    let world = World::new().await;
    let first = world.serve(world.kit("app", &[]), &guest("v1")).await;
    // A guest that is interrupted on a busy machine has its answer sent in chunks.
    let body = |response: String| ["v1", "v2"].into_iter().find(|v| response.contains(v));
    let old = body(world.get("a", "/").await);
    let second = world.serve(world.kit("app", &[]), &guest("v2")).await;
    let new = body(world.get("a", "/").await);
    assert_eq!((old, new), (Some("v1"), Some("v2")));
    assert!(first.binding.fault().is_none() && second.binding.fault().is_none());
    first.binding.drain().await;
    drop(first);
    assert_eq!(body(world.get("a", "/").await), new);
    assert_eq!(world.counts("app").requests, 3);
}

#[tokio::test]
async fn the_younger_workload_waits_for_the_route() {
    let world = World::new().await;
    let old = world
        .serve(world.kit("old", &[("host", "a.com")]), &guest("v1"))
        .await;
    let mut kit = world.kit("young", &[("host", "a.com")]);
    kit.workload.created = 1;
    let young = world.serve(kit, &guest("v2")).await;
    let fault = young.binding.fault().unwrap();
    assert_eq!(
        (fault.reason, fault.class),
        (Reason::RouteConflict, Class::Signal)
    );
    assert!(
        fault.message.contains("a.com") && fault.message.contains("default/old"),
        "{fault}"
    );
    young.signal.notified().await;
    assert_eq!(world.counts("young").requests, 0);
    drop(old);
    timeout(Duration::from_secs(1), young.signal.notified())
        .await
        .unwrap();
    assert!(young.binding.fault().is_none());
    assert_eq!(status(&world.get("a.com", "/").await), "200");
    assert_eq!(world.counts("young").requests, 1);
}

#[tokio::test]
async fn a_route_needs_one_component_that_answers() {
    let world = World::new().await;
    let mut kit = world.kit("cli", &[]);
    let fault = kit
        .link(&world.engine, &guest("run-only"))
        .await
        .err()
        .unwrap();
    assert_eq!(fault.reason, Reason::BindFailed);
    assert!(fault.message.contains("wasi:cli/run"), "{fault}");
    let mut kit = world.kit("bad", &[("hots", "a")]);
    let fault = kit.link(&world.engine, &guest("v1")).await.err().unwrap();
    assert!(fault.message.contains("`hots`"), "{fault}");
    // Without an entry nothing is served, and nothing is wrong.
    let mut kit = world.kit("quiet", &[]);
    kit.workload.interfaces.clear();
    let _served = world.serve(kit, &guest("v1")).await;
    assert_eq!(status(&world.get("a", "/").await), "404");
}
