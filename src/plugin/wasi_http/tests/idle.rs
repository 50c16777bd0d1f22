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
    let short = Duration::from_millis(500);
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
