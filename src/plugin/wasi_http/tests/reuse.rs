//! Instances that serve more than one request, and requests that wait for an instance.

use std::{num::NonZeroU32, time::Duration};

use futures::future::join_all;

use super::*;
use crate::spec::{self, Reuse};

pub(super) fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

pub(super) fn reuse(pool_size: u32) -> Reuse {
    Reuse {
        pool_size: number(pool_size),
        max_invocations: None,
        max_concurrency: NonZeroU32::MIN,
        min_instances: 0,
        idle: None,
    }
}

/// A workload of this name that runs this guest.
pub(super) async fn serve(
    world: &World,
    name: &str,
    change: impl FnOnce(&mut spec::Component),
) -> Served {
    let mut kit = world.kit(name, &[("host", name)]);
    change(&mut kit.workload.components[0]);
    world.serve(kit, &guest(name)).await
}

fn body(response: &str) -> &str {
    let text = response.split("\r\n\r\n").nth(1).unwrap_or(response);
    // Chunked, in one chunk.
    text.lines().nth(1).unwrap_or(text)
}

/// The number after a word of the guest's answer.
pub(super) fn said(response: &str, word: &str) -> u32 {
    let mut words = body(response).split_whitespace();
    words
        .find(|w| *w == word)
        .unwrap_or_else(|| panic!("{response}"));
    words.next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_a_pool_each_request_has_an_instance_of_its_own() {
    let world = World::new().await;
    for name in ["counter", "counter-p3"] {
        let _served = serve(&world, name, |_| {}).await;
        for _ in 0..3 {
            assert_eq!(said(&world.get(name, "/").await, "served"), 1);
        }
    }
}

#[tokio::test]
async fn a_kept_instance_serves_until_it_is_spent() {
    let world = World::new().await;
    for name in ["counter", "counter-p3"] {
        let _served = serve(&world, name, |c| {
            c.reuse = Some(Reuse {
                max_invocations: Some(number(3)),
                ..reuse(1)
            });
        })
        .await;
        let mut served = Vec::new();
        for _ in 0..5 {
            served.push(said(&world.get(name, "/").await, "served"));
            // The instance is given back after its response.
            until(|| world.counts(name).in_flight == 0).await;
        }
        assert_eq!(served, [1, 2, 3, 1, 2], "{name}");
    }
}

#[tokio::test]
async fn an_instance_that_trapped_is_not_used_again() {
    let world = World::new().await;
    for (name, concurrency) in [("counter", 1), ("counter-p3", 1), ("counter-p3", 2)] {
        let _served = serve(&world, name, |c| {
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                ..reuse(1)
            });
        })
        .await;
        assert_eq!(said(&world.get(name, "/").await, "served"), 1);
        until(|| world.counts(name).in_flight == 0).await;
        let before = world.counts(name).trapped;
        assert_eq!(status(&world.get(name, "/trap").await), "500", "{name}");
        until(|| world.counts(name).in_flight == 0).await;
        assert_eq!(said(&world.get(name, "/").await, "served"), 1, "{name}");
        assert_eq!(world.counts(name).trapped, before + 1, "{name}");
    }
}

/// Returns and keeps what it should answer with; traps when it is called again.
const SILENT: &str = r#"(component
    (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $out))
    (core module $m
        (global $called (mut i32) (i32.const 0))
        (func (export "handle") (param i32 i32)
            (if (global.get $called) (then (unreachable)))
            (global.set $called (i32.const 1))))
    (core instance $i (instantiate $m))
    (func $handle (param "request" (own $request)) (param "response-out" (own $out))
        (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

#[tokio::test]
async fn an_instance_that_keeps_its_answer_is_not_used_again_and_nobody_waits_for_it() {
    let world = World::new().await;
    let mut kit = world.kit("silent", &[("host", "silent")]);
    kit.workload.components[0].reuse = Some(reuse(1));
    let _served = world.serve(kit, &wat::parse_str(SILENT).unwrap()).await;
    for _ in 0..3 {
        let response = world.get("silent", "/").await;
        assert!(response.contains("gave no answer"), "{response}");
        until(|| world.counts("silent").in_flight == 0).await;
    }
    let counts = world.counts("silent");
    assert_eq!((counts.unanswered, counts.trapped), (3, 0));
}

#[tokio::test]
async fn an_answer_that_is_not_as_long_as_it_says_is_not_sent_or_cut() {
    let world = World::new().await;
    let name = "counter-p3";
    for concurrency in [1, 2] {
        let _served = serve(&world, name, |c| {
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                ..reuse(1)
            });
        })
        .await;
        let before = world.counts(name);
        let answer = world.get(name, "/?says=20").await;
        assert!(
            is_whole(&answer) && answer.contains("served 1 together 1"),
            "{answer}"
        );
        for path in ["/?says=100", "/?says=2", "/empty?says=100"] {
            let refused = world.soon(name, path, "500").await;
            assert!(is_whole(&refused), "{path}: {refused}");
        }
        let short = world.get(name, "/late?says=100").await;
        assert!(!is_whole(&short), "{short}");
        assert!(short.contains("content-length: 100"), "{short}");
        until(|| world.counts(name).in_flight == 0).await;
        let counts = world.counts(name);
        assert!(counts.cut > before.cut);
        assert_eq!(counts.unanswered, before.unanswered + 3);
    }
}

#[tokio::test]
async fn a_component_that_awaits_serves_several_requests_at_once() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| {
        c.reuse = Some(Reuse {
            max_concurrency: number(4),
            ..reuse(1)
        });
    })
    .await;
    let answers = join_all((0..4).map(|_| world.get(name, "/?ms=500"))).await;
    let mut served: Vec<u32> = answers.iter().map(|a| said(a, "served")).collect();
    served.sort_unstable();
    assert_eq!(served, [1, 2, 3, 4]);
    assert!(answers.iter().any(|a| said(a, "together") == 4));
    // Who has its answer may have its place still.
    until(|| world.counts(name).in_flight == 0).await;
    // A fifth one at the same time would have had an instance of its own.
    let answers = join_all((0..5).map(|_| world.get(name, "/?ms=500"))).await;
    assert_eq!(answers.iter().filter(|a| said(a, "served") == 1).count(), 1);
}

#[tokio::test]
async fn a_trap_ends_the_requests_that_share_the_instance_and_no_others() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| {
        c.reuse = Some(Reuse {
            max_concurrency: number(2),
            ..reuse(2)
        });
    })
    .await;
    let (beside, trap) = tokio::join!(world.get(name, "/?ms=2000"), async {
        sleep(Duration::from_millis(100)).await;
        world.get(name, "/trap?ms=100").await
    });
    assert_eq!(status(&trap), "500");
    assert_eq!(status(&beside), "500", "it was in the same instance");
    assert_eq!(status(&world.get(name, "/").await), "200");
}

#[tokio::test]
async fn out_of_time_in_a_shared_instance_is_one_requests_own() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| {
        c.request_timeout = Some(Duration::from_secs(1));
        c.reuse = Some(Reuse {
            max_concurrency: number(8),
            ..reuse(1)
        });
    })
    .await;
    let (late, soon) = tokio::join!(world.get(name, "/?ms=30000"), world.get(name, "/?ms=200"));
    assert_eq!(status(&late), "504");
    assert_eq!(status(&soon), "200");
    assert_eq!(world.counts(name).out_of_time, 1);
    // The instance is replaced, since what runs in it on cannot be stopped by itself.
    assert_eq!(said(&world.get(name, "/").await, "served"), 1);
    until(|| world.counts(name).in_flight == 0).await;
}

#[tokio::test]
async fn requests_wait_for_an_instance_and_the_queue_is_bounded() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| c.max_instances = Some(number(1))).await;
    // One runs, four may wait; each takes half a second.
    let answers = join_all((0..8).map(|_| world.get(name, "/?ms=500"))).await;
    let answered = answers.iter().filter(|a| status(a) == "200").count();
    let refused: Vec<&String> = answers.iter().filter(|a| status(a) == "503").collect();
    assert_eq!((answered, refused.len()), (5, 3), "{answers:?}");
    assert!(
        refused.iter().all(|a| a.contains("retry-after: 1")),
        "{refused:?}"
    );
    assert_eq!(world.counts(name).rejected, 3);
    assert_eq!(status(&world.get(name, "/").await), "200");
}

#[tokio::test]
async fn a_kept_instance_goes_to_whoever_waits() {
    let world = World::new().await;
    let name = "counter-p3";
    let _served = serve(&world, name, |c| {
        c.max_instances = Some(number(1));
        c.reuse = Some(reuse(1));
    })
    .await;
    let answers = join_all((0..3).map(|_| world.get(name, "/?ms=200"))).await;
    let mut served: Vec<u32> = answers.iter().map(|a| said(a, "served")).collect();
    served.sort_unstable();
    assert_eq!(served, [1, 2, 3]);
}

#[tokio::test]
async fn instances_are_made_ahead_and_given_up_when_idle() {
    let world = World::new().await;
    for name in ["counter", "counter-p3"] {
        let _served = serve(&world, name, |c| {
            c.reuse = Some(Reuse {
                min_instances: 2,
                idle: Some(Duration::from_secs(1)),
                ..reuse(8)
            });
        })
        .await;
        let flavor = if name == "counter" {
            crate::engine::Flavor::Plain
        } else {
            crate::engine::Flavor::Concurrent
        };
        let room = world.engine.room(flavor).clone();
        until(|| room.used() == 2).await;
        join_all((0..8).map(|_| world.get(name, "/?ms=300"))).await;
        assert!(room.used() >= 2, "{name}");
        until(|| room.used() == 2).await;
    }
}

#[tokio::test]
async fn a_workload_that_ends_leaves_no_instance() {
    let world = World::new().await;
    let room = world.engine.room(crate::engine::Flavor::Concurrent).clone();
    for concurrency in [1, 4] {
        let served = serve(&world, "counter-p3", |c| {
            c.reuse = Some(Reuse {
                max_concurrency: number(concurrency),
                ..reuse(4)
            });
        })
        .await;
        join_all((0..4).map(|_| world.get("counter-p3", "/?ms=50"))).await;
        until(|| room.used() > 0).await;
        timeout(Duration::from_secs(5), served.binding.drain())
            .await
            .unwrap();
        drop(served);
        until(|| room.used() == 0).await;
    }
}

#[tokio::test]
async fn what_an_instance_leaves_is_answered_or_given_back() {
    let world = World::new().await;
    let _served = serve(&world, "counter-p3", |c| {
        c.reuse = Some(Reuse {
            max_concurrency: number(4),
            ..reuse(1)
        });
    })
    .await;
    let handler = world.server.ingress.handler("counter-p3").unwrap();
    let left = super::super::shared::abandoned(&handler).await;
    assert_eq!(left, Some((true, true)));
}
