//! Guests of WASI 0.3 that fail: in instances of their own, and where several requests share one.

use std::num::NonZeroU32;

use super::{
    reuse::{number, reuse, said, serve},
    *,
};
use crate::spec::{Component, Reuse};

const SPIN: &str = "(loop (br 0))";
const OVERFLOW: &str = "(drop (call $deep (i32.const 0)))";
const GROW: &str = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
const GROW_TABLE: &str =
    "(loop (br_if 0 (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))";

/// A guest whose first requests of each instance wait for ever, and the next ones do this.
fn faulty(waiting: u32, fault: &str) -> Vec<u8> {
    let text = include_str!("faults_p3.wat")
        .replace("WAITING", &waiting.to_string())
        .replace("FAULT", fault);
    wat::parse_str(text).unwrap()
}

/// A workload `faulty` that keeps one instance, which takes so many requests at a time; none keeps none.
async fn serve_faulty(
    world: &World,
    bytes: &[u8],
    concurrency: Option<NonZeroU32>,
    change: impl FnOnce(&mut Component),
) -> Served {
    let mut kit = world.kit("faulty", &[("host", "faulty")]);
    let component = &mut kit.workload.components[0];
    component.memory_limit = Some(16 << 20);
    component.request_timeout = Some(Duration::from_secs(7200));
    component.reuse = concurrency.map(|max_concurrency| Reuse {
        max_concurrency,
        ..reuse(1)
    });
    change(component);
    world.serve(kit, bytes).await
}

fn late_after(limit: Duration) -> impl Fn(&mut Component) {
    move |component| component.request_timeout = Some(limit)
}

/// All ways to have an instance: one's own, fresh or kept, and a shared one.
fn ways() -> [Option<NonZeroU32>; 3] {
    [None, Some(number(1)), Some(number(4))]
}

async fn ended(world: &World) {
    until(|| world.counts("faulty").in_flight == 0).await;
    until(|| world.counts("faulty").instances == 0).await;
}

#[tokio::test]
async fn each_fault_is_told_and_its_instance_is_not_used_again() {
    let world = World::new().await;
    let _good = serve(&world, "counter-p3", |c| c.reuse = Some(reuse(1))).await;
    // Trapped, out of memory, out of time.
    let cases = [
        (OVERFLOW, "500", "the component failed", [1, 0, 0]),
        (GROW, "500", "ran out of memory", [0, 1, 0]),
        (GROW_TABLE, "500", "ran out of memory", [0, 1, 0]),
        (SPIN, "504", "", [0, 0, 1]),
    ];
    for way in ways() {
        for (fault, code, text, wanted) in cases {
            let limit = Duration::from_millis(if fault == SPIN { 300 } else { 7_200_000 });
            let _served = serve_faulty(&world, &faulty(0, fault), way, late_after(limit)).await;
            let response = world.get("faulty", "/").await;
            assert_eq!(status(&response), code, "{fault}: {response}");
            assert!(response.contains(text), "{fault}: {response}");
            ended(&world).await;
            let now = world.counts("faulty");
            let counted = [now.trapped, now.out_of_memory, now.out_of_time];
            assert_eq!(counted, wanted, "{fault}: {now:?}");
        }
    }
    // Nobody else has noticed anything.
    for n in 1..4 {
        assert_eq!(said(&world.get("counter-p3", "/").await, "served"), n);
    }
}

#[tokio::test]
async fn a_guest_that_spins_stops_nobody_and_ends_with_its_client() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let world = World {
        server: Arc::new(server.workers(NonZeroUsize::MIN)),
        engine: Engine::builder().max_instances(8).build().unwrap(),
    };
    world.server.start().await.unwrap();
    let _good = serve(&world, "counter-p3", |_| ()).await;
    for way in ways() {
        let _served = serve_faulty(&world, &faulty(0, SPIN), way, |_| ()).await;
        let mut spinning = world.connect().await;
        let request = b"GET / HTTP/1.1\r\nhost: faulty\r\n\r\n";
        spinning.write_all(request).await.unwrap();
        until(|| world.counts("faulty").instances == 1).await;
        for _ in 0..5 {
            assert_eq!(status(&world.get("counter-p3", "/").await), "200");
        }
        assert_eq!(world.counts("faulty").in_flight, 1);
        drop(spinning);
        ended(&world).await;
    }
}

#[tokio::test]
async fn a_fault_in_a_shared_instance_is_that_of_all_who_share_it() {
    let world = World::new().await;
    let _good = serve(&world, "counter-p3", |c| c.reuse = Some(reuse(1))).await;
    for (fault, wanted) in [(OVERFLOW, "500"), (GROW, "500"), (SPIN, "504")] {
        let limit = Duration::from_secs(if fault == SPIN { 2 } else { 7200 });
        let bytes = faulty(1, fault);
        let _served = serve_faulty(&world, &bytes, Some(number(4)), late_after(limit)).await;
        let (beside, failed) = tokio::join!(world.get("faulty", "/"), async {
            until(|| world.counts("faulty").instances == 1).await;
            world.get("faulty", "/").await
        });
        assert_eq!(status(&failed), wanted, "{fault}: {failed}");
        assert_eq!(status(&beside), wanted, "{fault}: {beside}");
        ended(&world).await;
    }
    for n in 1..4 {
        assert_eq!(said(&world.get("counter-p3", "/").await, "served"), n);
    }
}
