//! Components whose instructions are counted.

use std::num::NonZeroU64;

use futures::future::join_all;

use super::*;
use crate::spec::Reuse;

/// Enough for any request of these tests, and by far not for an endless one.
const PLENTY: u64 = 100_000_000;

/// A workload `app` that runs this guest with so much fuel, and keeps `pool` instances.
async fn serve(world: &World, name: &str, fuel: u64, pool: u32) -> Served {
    let mut kit = world.kit("app", &[("host", "app")]);
    let component = &mut kit.workload.components[0];
    component.fuel = NonZeroU64::new(fuel);
    component.reuse = pool.try_into().ok().map(|pool_size| Reuse {
        pool_size,
        max_invocations: None,
        max_concurrency: 8.try_into().unwrap(),
        min_instances: 0,
        idle: None,
    });
    world.serve(kit, &guest(name)).await
}

/// Whether the guest has answered as a whole, and the fuel that it took.
async fn took(world: &World, path: &str) -> (bool, u64) {
    let before = world.counts("app").fuel;
    let answer = world.get("app", path).await;
    until(|| world.counts("app").in_flight == 0).await;
    let answered = status(&answer) == "200" && is_whole(&answer);
    (answered, world.counts("app").fuel - before)
}

#[tokio::test]
async fn the_same_request_takes_the_same_fuel_in_a_fresh_instance_and_in_a_kept_one() {
    let world = World::new().await;
    let all = async |fuel: u64, pool: u32| {
        let _served = serve(&world, "counter", fuel, pool).await;
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(took(&world, "/").await);
        }
        all
    };
    let fresh = all(PLENTY, 0).await;
    assert!(fresh[0].0 && fresh[0].1 > 100, "{fresh:?}");
    assert!(fresh.iter().all(|one| *one == fresh[0]), "{fresh:?}");
    // Starting takes nothing of the first request's. The next ones find what that one has prepared.
    let kept = all(PLENTY, 1).await;
    assert_eq!(kept[0], fresh[0]);
    assert!(kept[1].1 < fresh[0].1, "{kept:?}");
    assert!(kept[1..].iter().all(|one| *one == kept[1]), "{kept:?}");
    // What one leaves over is not the next one's, and what one lacks it does not borrow.
    assert_eq!(all(fresh[0].1, 1).await, kept);
    let half = fresh[0].1 / 2;
    assert_eq!(all(half, 1).await, vec![(false, half); 8]);
}

#[tokio::test]
async fn a_response_is_cut_at_the_same_point_each_time() {
    let world = World::new().await;
    for (name, pool) in [("slow", 0), ("slow", 2), ("slow-p3", 0), ("slow-p3", 2)] {
        let _served = serve(&world, name, 2_000_000, pool).await;
        let before = world.counts("app");
        let mut cuts = Vec::new();
        for _ in 0..4 {
            let answer = world.get("app", "/?ms=0&chunks=1000000").await;
            assert_eq!(status(&answer), "200");
            assert!(!is_whole(&answer), "{name}");
            cuts.push(answer.matches("chunk ").count());
        }
        assert!(cuts.iter().all(|cut| *cut > 10), "{name}: {cuts:?}");
        if name == "slow" {
            // In the other one it depends on the reader's pace how often a task has to wait, which takes instructions too.
            assert!(cuts.iter().all(|cut| *cut == cuts[0]), "{name}: {cuts:?}");
        }
        until(|| world.counts("app").in_flight == 0).await;
        let counts = world.counts("app");
        assert_eq!(counts.out_of_fuel - before.out_of_fuel, 4, "{counts:?}");
        assert_eq!(counts.cut - before.cut, 4, "{counts:?}");
        for _ in 0..4 {
            assert_eq!(status(&world.get("app", "/?ms=0&chunks=10").await), "200");
        }
    }
}

#[tokio::test]
async fn out_of_fuel_is_a_reason_of_its_own() {
    let world = World::new().await;
    let _served = serve(&world, "faults", PLENTY, 0).await;
    let answer = world.get("app", "/spin").await;
    assert_eq!(status(&answer), "500");
    assert!(answer.contains("used up its fuel"), "{answer}");
    assert_eq!(status(&world.get("app", "/panic").await), "500");
    assert_eq!(status(&world.get("app", "/ok").await), "200");
    let counts = world.counts("app");
    assert_eq!((counts.out_of_fuel, counts.trapped), (1, 1), "{counts:?}");
}

#[tokio::test]
async fn requests_do_not_share_their_fuel() {
    let world = World::new().await;
    // It asks for eight at a time in one instance, which fuel does not allow.
    let _served = serve(&world, "counter-p3", PLENTY, 4).await;
    let answers = join_all((0..4).map(|_| world.get("app", "/?ms=300"))).await;
    for answer in answers {
        assert!(answer.contains("together 1"), "{answer}");
    }
}

#[tokio::test]
async fn without_fuel_nothing_is_counted() {
    let world = World::new().await;
    let _served = serve(&world, "counter", 0, 1).await;
    assert_eq!(took(&world, "/").await, (true, 0));
}
