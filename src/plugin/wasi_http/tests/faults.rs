//! Guests that fail, and their neighbours.

use super::*;

#[tokio::test]
async fn faults_of_a_guest_are_its_own() {
    let world = World::new().await;
    let mut kit = world.kit("faults", &[]);
    kit.workload.components[0].request_timeout = Some(Duration::from_millis(300));
    kit.workload.components[0].memory_limit = Some(16 << 20);
    let _served = world.serve(kit, &guest("faults")).await;
    for (path, wanted) in [
        ("/panic", "500"),
        ("/stack", "500"),
        ("/no-response", "500"),
        ("/spin", "504"),
        ("/ok", "200"),
    ] {
        let response = world.get("a", path).await;
        assert_eq!(status(&response), wanted, "{path}: {response}");
    }
    let response = world.get("a", "/alloc").await;
    assert!(
        response.contains("refused at 16 MiB") || response.contains("refused at 15 MiB"),
        "{response}"
    );
    let cut = world.get("a", "/drop-body").await;
    assert!(
        status(&cut) == "200" && cut.contains("the first half") && !is_whole(&cut),
        "{cut}"
    );
    until(|| world.counts("faults").in_flight == 0).await;
    let counts = world.counts("faults");
    assert_eq!(
        (
            counts.requests,
            counts.trapped,
            counts.out_of_time,
            counts.unanswered
        ),
        (7, 3, 1, 1),
        "{counts:?}"
    );
}

/// HTTP/1.0 has no other end of a body whose length is not known than the connection's.
#[tokio::test]
async fn a_body_that_fails_does_not_look_whole_to_old_clients() {
    let world = World::new().await;
    let _served = world
        .serve(world.kit("faults", &[]), &guest("faults"))
        .await;
    for (path, fails) in [("/drop-body", true), ("/ok", false)] {
        let mut stream = world.connect().await;
        let head = format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut response));
        assert_eq!(read.await.unwrap().is_err(), fails, "{path}: {response:?}");
    }
}

#[tokio::test]
async fn what_fails_before_anything_was_sent_is_answered_in_its_place() {
    let world = World::new().await;
    for kept in [false, true] {
        let mut kit = world.kit("faults", &[]);
        kit.workload.components[0].reuse = kept.then(|| reuse::reuse(1));
        let _served = world.serve(kit, &guest("faults")).await;
        let trapped = world.soon("a", "/drop-early", "500").await;
        assert!(trapped.contains("the component failed"), "{trapped}");
        // Nobody waits for the rest of a body that a guest has kept, and nobody else asks such a guest.
        for _ in 0..2 {
            let unanswered = world.soon("a", "/keep-body", "500").await;
            assert!(unanswered.contains("gave no answer"), "{unanswered}");
            until(|| world.counts("faults").in_flight == 0).await;
            assert_eq!(world.counts("faults").instances, 0);
        }
    }
}

#[tokio::test]
async fn a_guest_that_needs_more_memory_than_it_may_have_is_told_apart() {
    let world = World::new().await;
    let mut kit = world.kit("small", &[]);
    kit.workload.components[0].memory_limit = Some(64 << 10);
    let _served = world.serve(kit, &guest("v1")).await;
    let response = world.get("a", "/").await;
    assert!(
        status(&response) == "500" && response.contains("ran out of memory"),
        "{response}"
    );
    assert_eq!(world.counts("small").out_of_memory, 1);
}

#[tokio::test]
async fn a_guest_that_spins_does_not_stop_its_neighbours() {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let world = World {
        server: Arc::new(server.workers(NonZeroUsize::MIN)),
        engine: Engine::builder().max_instances(8).build().unwrap(),
    };
    world.server.start().await.unwrap();
    let _spins = world
        .serve(world.kit("spins", &[("host", "spins")]), &guest("faults"))
        .await;
    let _good = world
        .serve(world.kit("good", &[("host", "good")]), &guest("v1"))
        .await;
    let mut spinning = world.connect().await;
    spinning
        .write_all(b"GET /spin HTTP/1.1\r\nhost: spins\r\n\r\n")
        .await
        .unwrap();
    until(|| world.counts("spins").in_flight == 1).await;
    for _ in 0..5 {
        assert_eq!(
            status(
                &timeout(Duration::from_secs(1), world.get("good", "/"))
                    .await
                    .unwrap()
            ),
            "200"
        );
    }
    // The client goes, and with it the guest.
    drop(spinning);
    until(|| world.counts("spins").in_flight == 0).await;
}

/// Makes so many resources, keeps them, and returns without an answer.
fn hoards(resources: u32) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))
                (export "fields" (type $fields (sub resource)))
                (export "[constructor]fields" (func (result (own $fields))))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core func $make (canon lower (func $types "[constructor]fields")))
            (core module $m
                (import "" "make" (func $make (result i32)))
                (func (export "handle") (param i32 i32) (local $made i32)
                    (loop
                        (drop (call $make))
                        (local.set $made (i32.add (local.get $made) (i32.const 1)))
                        (br_if 0 (i32.lt_u (local.get $made) (i32.const {resources}))))))
            (core instance $i (instantiate $m (with "" (instance (export "make" (func $make))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_guest_that_makes_too_many_resources_fails_by_itself() {
    let world = World::new().await;
    let _neighbour = world
        .serve(world.kit("b", &[("host", "b")]), &guest("v1"))
        .await;
    for (resources, text, wanted) in [
        (9_000, "gave no answer", (1, 0)),
        (10_001, "the component failed", (0, 1)),
    ] {
        let mut kit = world.kit("hoards", &[("host", "hoards")]);
        kit.workload.components[0].request_timeout = Some(Duration::from_secs(7200));
        kit.workload.components[0].reuse = Some(reuse::reuse(1));
        let _served = world.serve(kit, &hoards(resources)).await;
        let response = world.get("hoards", "/").await;
        assert_eq!(status(&response), "500", "{resources}: {response}");
        assert!(response.contains(text), "{resources}: {response}");
        until(|| world.counts("hoards").instances == 0).await;
        let counts = world.counts("hoards");
        assert_eq!((counts.unanswered, counts.trapped), wanted, "{counts:?}");
        assert_eq!(status(&world.get("b", "/").await), "200");
    }
}

#[tokio::test]
async fn instances_of_a_workload_share_its_memory() {
    let world = World::new().await;
    let mut kit = world.kit("shared", &[("host", "shared")]);
    kit.workload.memory_limit = Some(20 << 20);
    let mut bound = kit.link(&world.engine, &guest("faults")).await.unwrap();
    bound.binding.start(&bound.linked).unwrap();
    let _neighbour = world
        .serve(world.kit("b", &[("host", "b")]), &guest("v1"))
        .await;

    for _ in 0..2 {
        let response = world.get("shared", "/alloc").await;
        assert!(
            response.contains("refused at 20 MiB") || response.contains("refused at 19 MiB"),
            "what an instance had is given back: {response}"
        );
        // The answer may be here before it is.
        until(|| bound.kept.memory().used() == 0).await;
    }

    // As another instance of the workload would have it.
    let memory = bound.kept.memory().clone();
    let mut other = crate::engine::InstanceLimits::new(usize::MAX).within(memory, 20 << 20);
    assert!(wasmtime::ResourceLimiter::memory_growing(&mut other, 0, 20 << 20, None).unwrap());
    let response = world.get("shared", "/ok").await;
    assert!(
        status(&response) == "500" && response.contains("ran out of memory"),
        "{response}"
    );
    assert_eq!(world.counts("shared").out_of_memory, 1);
    assert_eq!(status(&world.get("b", "/").await), "200");
    drop(other);
    assert_eq!(status(&world.get("shared", "/ok").await), "200");
}
