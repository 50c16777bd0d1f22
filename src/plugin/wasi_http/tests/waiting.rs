//! Requests that wait for an instance, and who makes room for them.

use super::{reuse::serve, *};
use crate::engine::{Flavor, Place};

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
