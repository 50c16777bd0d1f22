//! Runs that fail for what is not in the guest: limits, and the host itself.

use futures::future::BoxFuture;
use wasmtime::{ResourceLimiter as _, component::Linker};

use super::{super::*, Begun, GROW, OK, command};
use crate::{
    engine::{Engine, InstanceLimits},
    fault::Fault,
    plugin::testing::Kit,
    spec::Exit,
    wit::World,
};

/// Makes a table larger than it may be, and traps when that is refused.
const GROW_TABLE: &str = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)) \
                          (then (unreachable))) i32.const 0";

const NEVER: Option<RestartPolicy> = Some(RestartPolicy::Never);

/// The memory that the workload has in all; its component may have more by itself.
const WORKLOAD: u64 = 8 << 20;

#[tokio::test]
async fn what_was_refused_is_named_with_its_limit() {
    let of_all = "all instances of the workload together may have 8388608 bytes";
    let of_table = "a table may have 100000 elements";
    for (body, limit) in [(GROW, of_all), (GROW_TABLE, of_table)] {
        let begun = Begun::with(&command(body), |workload| {
            workload.memory_limit = Some(WORKLOAD);
            workload.components[0].memory_limit = None;
            workload.commands.restart_policy = NEVER;
        })
        .await;
        assert_eq!(begun.ended().await, Exit::MemoryLimit(limit.to_owned()));
    }
}

/// The last refusal counts, and one that the guest got over does not make another end of its own.
#[test]
fn a_refusal_is_told_only_by_a_trap() {
    let mut limits = InstanceLimits::new(1);
    assert!(!limits.memory_growing(0, 2, None).unwrap());
    assert_eq!(command::exit(Ok(Ok(())), &limits), Exit::Completed);
    assert_eq!(command::exit(Ok(Err(())), &limits), Exit::Error(1));
    let trap = || Err(wasmtime::Trap::UnreachableCodeReached.into());
    let limit = "an instance may have 1 bytes".to_owned();
    assert_eq!(command::exit(trap(), &limits), Exit::MemoryLimit(limit));
}

/// Offers a function that panics.
struct Panics;

impl HostPlugin for Panics {
    fn id(&self) -> &'static str {
        "panics"
    }

    fn world(&self) -> World {
        World::default()
    }

    fn link(&self, linker: &mut Linker<StoreState>, _: &ComponentFacts) -> wasmtime::Result<()> {
        let mut instance = linker.instance("test:panics/now")?;
        instance.func_wrap("panic", |_, (): ()| -> wasmtime::Result<()> {
            panic!("as the test asks")
        })
    }

    fn bind<'a>(&'a self, _: BindRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>> {
        Box::pin(async { Ok(Box::new(Nothing) as Box<dyn Binding>) })
    }
}

struct Nothing;

impl Binding for Nothing {}

#[tokio::test]
async fn a_host_that_panics_is_to_blame_and_goes_on() {
    let panics = wat::parse_str(
        r#"(component
            (import "test:panics/now" (instance $now (export "panic" (func))))
            (core func $panic (canon lower (func $now "panic")))
            (core module $m (import "" "panic" (func $panic))
                (func (export "run") (result i32) (call $panic) i32.const 0))
            (core instance $i (instantiate $m (with "" (instance (export "panic" (func $panic))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.12" (instance $r)))"#,
    )
    .unwrap();
    let engine = Engine::builder().max_instances(1).build().unwrap();
    // The place of the first one is free again.
    for (bytes, wanted) in [
        (panics.clone(), None),
        (panics, None),
        (command(OK), Some(())),
    ] {
        let mut kit = Kit::new(Arc::new(WasiCli::default()));
        kit.others = vec![Arc::new(Panics)];
        kit.workload.commands.restart_policy = NEVER;
        let mut begun = Begun(kit.link(&engine, &bytes).await.unwrap());
        begun.0.binding.start(&begun.0.linked).unwrap();
        begun.0.binding.run();
        match (begun.ended().await, wanted) {
            (Exit::Completed, Some(())) => {}
            (Exit::HostError(why), None) => assert!(why.contains("panicked"), "{why}"),
            (exit, _) => panic!("it {exit}"),
        }
    }
}

/// More core instances than the pool has left, although there is a place for the run.
#[tokio::test]
async fn a_pool_that_is_full_is_the_hosts_failure() {
    let mut begun = Begun::prepared(&command(OK), |workload| {
        workload.commands.restart_policy = NEVER;
    })
    .await;
    let linked = &begun.0.linked[0];
    let mut held = Vec::new();
    for _ in 0..linked.template.room().limit() {
        let mut store = linked.template.store();
        linked.pre.instantiate_async(&mut store).await.unwrap();
        held.push(store);
    }
    begun.0.binding.run();
    let full = "all instances that the host has room for are in use".to_owned();
    assert_eq!(begun.ended().await, Exit::HostError(full));
    drop(held);
}
