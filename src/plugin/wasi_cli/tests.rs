//! Commands written as text, each a few instructions long.

use std::time::{Duration, SystemTime};

mod failing;

use super::*;
use crate::{
    engine::Engine,
    plugin::testing::{self, Kit, guest},
    spec::{Ended, Exit, Finished},
};

/// Returns well.
const OK: &str = "i32.const 0";
/// Returns an error.
const ERR: &str = "i32.const 1";
const TRAP: &str = "unreachable";
const SPIN: &str = "(loop br 0) i32.const 0";
/// Asks for 64 MiB, and traps when it is refused.
const GROW: &str =
    "(if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable)) i32.const 0";

/// A component that exports `wasi:cli/run` with this body.
fn command(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m (memory 1) (table $t 1 funcref) (func $body (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.12" (instance $r)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A component that exits with this code.
fn exits(code: u8) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:cli/exit@0.2.12" (instance $exit
                (export "exit-with-code" (func (param "status-code" u8)))))
            (core func $out (canon lower (func $exit "exit-with-code")))
            (core module $m (import "" "exit" (func $exit (param i32)))
                (func (export "run") (result i32) (call $exit (i32.const {code})) i32.const 0))
            (core instance $i (instantiate $m (with "" (instance (export "exit" (func $out))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.12" (instance $r)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A command that is bound and begun.
struct Begun(testing::Bound);

impl Begun {
    /// Of a workload that is a service, or a job.
    async fn new(role: Role, policy: Option<RestartPolicy>, bytes: &[u8]) -> Self {
        Self::with(bytes, |workload| {
            workload.components[0].role = role;
            workload.commands.restart_policy = policy;
        })
        .await
    }

    async fn with(bytes: &[u8], change: impl FnOnce(&mut spec::Workload)) -> Self {
        let mut begun = Self::prepared(bytes, change).await;
        begun.0.binding.run();
        begun
    }

    async fn prepared(bytes: &[u8], change: impl FnOnce(&mut spec::Workload)) -> Self {
        let engine = Engine::builder().max_instances(4).build().unwrap();
        // Waits pass at once; at the fourth restart the time stands still.
        let sleep: Sleep = |wait| match wait.as_secs() {
            40.. => Box::pin(std::future::pending()),
            _ => Box::pin(tokio::task::yield_now()),
        };
        let mut kit = Kit::new(Arc::new(WasiCli::with_sleep(sleep)));
        kit.workload.components[0].memory_limit = Some(16 << 20);
        change(&mut kit.workload);
        let mut bound = kit.link(&engine, bytes).await.unwrap();
        bound.binding.start(&bound.linked).unwrap();
        Self(bound)
    }

    fn run(&self) -> Run {
        self.0.binding.runs().remove(0)
    }

    /// Waits until it is as it should be.
    async fn until(&self, is: impl Fn(&Run) -> bool) -> Run {
        let waited = async {
            while !is(&self.run()) {
                self.0.signal.notified().await;
            }
        };
        // Far longer than anything takes, in whatever time the test has.
        let limit = Duration::from_secs(24 * 3600);
        tokio::time::timeout(limit, waited).await.unwrap();
        self.run()
    }

    async fn ended(&self) -> Exit {
        let run = self.until(|run| run.ended().is_some()).await;
        run.ended().unwrap().exit.clone()
    }
}

const SERVICE: Role = Role::Service { max_restarts: None };

#[tokio::test]
async fn each_end_has_its_own_name() {
    let trapped = "wasm trap: wasm `unreachable` instruction executed, in body";
    let memory = "an instance may have 16777216 bytes";
    let cases = [
        (command(OK), Exit::Completed, 0),
        (command(ERR), Exit::Error(1), 1),
        (exits(0), Exit::Completed, 0),
        (exits(3), Exit::Error(3), 3),
        (exits(137), Exit::Error(137), 137),
        (command(TRAP), Exit::Trapped(trapped.to_owned()), 1),
        (command(GROW), Exit::MemoryLimit(memory.to_owned()), 1),
        (guest("run-only"), Exit::Completed, 0),
    ];
    for (bytes, exit, code) in cases {
        let begun = Begun::new(Role::Component, Some(RestartPolicy::Never), &bytes).await;
        assert_eq!(begun.ended().await, exit);
        assert_eq!(exit.code(), code);
        let fault = begun.0.binding.fault();
        assert_eq!(fault.is_none(), exit.is_success(), "{exit}");
        if let Some(fault) = fault {
            assert_eq!(
                (fault.reason, fault.class),
                (Reason::from(&exit), Class::Terminal)
            );
            assert!(fault.message.contains("restartPolicy Never"), "{fault}");
        }
    }
}

#[tokio::test]
async fn a_command_is_cut_when_its_fuel_ends() {
    for (body, exit) in [(SPIN, Exit::OutOfFuel), (OK, Exit::Completed)] {
        let begun = Begun::with(&command(body), |workload| {
            workload.components[0].fuel = std::num::NonZeroU64::new(1000);
            workload.commands.restart_policy = Some(RestartPolicy::Never);
        })
        .await;
        assert_eq!(begun.ended().await, exit);
    }
}

#[test]
fn ends_that_no_guest_here_has() {
    use crate::engine::InstanceLimits;
    let limits = InstanceLimits::new(1);
    let cases = [
        (wasmtime::Trap::OutOfFuel, Exit::OutOfFuel),
        (wasmtime::Trap::Interrupt, Exit::DeadlineExceeded),
    ];
    for (trap, exit) in cases {
        assert_eq!(command::exit(Err(trap.into()), &limits), exit);
    }
    let other = wasmtime::Error::msg("no such resource").context("in a host function");
    let exit = command::exit(Err(other), &limits);
    assert_eq!(exit, Exit::Trapped("no such resource".to_owned()));
}

#[tokio::test]
async fn a_job_that_ended_well_is_done() {
    let begun = Begun::new(Role::Component, None, &command(OK)).await;
    assert_eq!(begun.ended().await, Exit::Completed);
    assert!(begun.0.binding.completed());
    assert_eq!(begun.run().restarts, 0);
}

#[tokio::test]
async fn a_job_that_fails_is_started_again_by_default_and_told() {
    let begun = Begun::new(Role::Component, None, &command(ERR)).await;
    let run = begun
        .until(|run| run.restarts == 3 && run.until().is_some())
        .await;
    let last = run.last.clone().unwrap();
    assert_eq!(last.exit, Exit::Error(1));
    assert_eq!(run.until().unwrap(), last.at + Duration::from_secs(40));
    let fault = begun.0.binding.fault().unwrap();
    assert_eq!(fault.reason, Reason::CrashLoopBackOff);
    assert_eq!(fault.class, Class::Signal);
    assert_eq!(
        fault.message,
        "job \"main\" ended with exit code 1 after 3 restarts; the next one follows 40 s after that"
    );
    assert!(!begun.0.binding.completed());
}

#[tokio::test]
async fn a_service_is_started_again_however_it_ended() {
    for body in [OK, ERR, TRAP] {
        let begun = Begun::new(SERVICE, None, &command(body)).await;
        let run = begun.until(|run| run.restarts == 2).await;
        assert!(run.last.is_some());
    }
}

#[tokio::test]
async fn a_service_that_has_used_up_its_restarts_stays_down() {
    let max_restarts = Some(2);
    let begun = Begun::new(Role::Service { max_restarts }, None, &command(ERR)).await;
    assert_eq!(begun.ended().await, Exit::Error(1));
    assert_eq!(begun.run().restarts, 2);
    let fault = begun.0.binding.fault().unwrap();
    assert_eq!(fault.reason, Reason::Error);
    assert!(fault.message.contains("maxRestarts 2"), "{fault}");
}

#[tokio::test]
async fn a_service_that_ended_well_and_is_left_so_does_not_answer() {
    let begun = Begun::new(SERVICE, Some(RestartPolicy::OnFailure), &command(OK)).await;
    assert_eq!(begun.ended().await, Exit::Completed);
    let fault = begun.0.binding.fault().unwrap();
    assert_eq!(fault.reason, Reason::Completed);
}

/// On one thread, the test itself gets its turns only because the guest gives them back.
#[tokio::test]
async fn a_command_that_spins_leaves_turns_to_others_and_is_cut_with_its_binding() {
    let begun = Begun::new(SERVICE, None, &command(SPIN)).await;
    begun
        .until(|run| matches!(run.state, RunState::Running { .. }))
        .await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(begun.0.binding.fault().is_none());
    let template = Arc::downgrade(&begun.0.linked[0].template);
    drop(begun);
    while template.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_runs_before_the_generation_serves_or_while_it_is_held() {
    let mut begun = Begun::prepared(&command(SPIN), |workload| {
        workload.components[0].role = SERVICE;
        workload.commands.held = true;
    })
    .await;
    assert_eq!(begun.run().state, RunState::Held);
    begun.0.binding.run();
    tokio::task::yield_now().await;
    assert_eq!(begun.run().state, RunState::Held);
    assert!(begun.0.binding.fault().is_none(), "it is prepared");

    let mut workload = testing::workload("test");
    for _ in 0..2 {
        workload.commands.held = false;
        begun.0.binding.update(&workload);
        begun
            .until(|run| matches!(run.state, RunState::Running { .. }))
            .await;
        workload.commands.held = true;
        begun.0.binding.update(&workload);
        begun.until(|run| run.state == RunState::Held).await;
    }
    // However often it changes, one runs at a time, and what is shown is of the last one.
    for held in [false, true, false, true, false] {
        workload.commands.held = held;
        begun.0.binding.update(&workload);
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(begun.run().state, RunState::Running { .. }));
}

#[tokio::test]
async fn a_command_has_a_place_of_the_engine_and_waits_for_one() {
    let prepared = |bytes, policy| async move {
        let change = |workload: &mut spec::Workload| {
            workload.commands.restart_policy = Some(policy);
        };
        Begun::prepared(bytes, change).await
    };
    let job = command(OK);
    let mut begun = prepared(&job, RestartPolicy::Never).await;
    let room = begun.0.linked[0].template.room().clone();
    let mut full: Vec<_> = std::iter::from_fn(|| room.try_enter()).collect();
    begun.0.binding.run();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(begun.run().state, RunState::Held);
    full.pop();
    assert_eq!(begun.ended().await, Exit::Completed);
    drop(full);

    let spins = command(SPIN);
    let mut begun = prepared(&spins, RestartPolicy::Always).await;
    let room = begun.0.linked[0].template.room().clone();
    begun.0.binding.run();
    begun
        .until(|run| matches!(run.state, RunState::Running { .. }))
        .await;
    assert_eq!(room.used(), 1);
    drop(begun);
    while room.used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_has_ended_for_good_is_not_run_again() {
    let ended = Ended {
        exit: Exit::Completed,
        at: SystemTime::UNIX_EPOCH,
    };
    // Nor does it wait for another host to end.
    for held in [false, true] {
        let begun = Begun::with(&command(TRAP), |workload| {
            workload.commands.held = held;
            workload.commands.finished = vec![Finished {
                component: "main".into(),
                ended: ended.clone(),
            }];
        })
        .await;
        assert_eq!(begun.run().ended(), Some(&ended), "held: {held}");
        assert!(begun.0.binding.completed(), "held: {held}");
    }
}

#[tokio::test]
async fn what_nobody_would_run_is_refused() {
    let engine = Engine::builder().max_instances(1).build().unwrap();
    let mut kit = Kit::new(Arc::new(WasiCli::default()));
    kit.workload.components.push(spec::Component {
        name: "service".into(),
        role: SERVICE,
        ..kit.workload.components[0].clone()
    });
    let refused = kit.link(&engine, &command(OK)).await.err().unwrap();
    assert_eq!(refused.reason, Reason::UnsupportedSpec);
    assert!(refused.message.contains("\"main\""), "{refused}");
}

#[tokio::test]
async fn what_can_be_called_is_no_job() {
    let both = wat::parse_str(
        r#"(component
            (instance $r)
            (export "wasi:cli/run@0.2.12" (instance $r))
            (export "wasi:http/incoming-handler@0.2.0" (instance $r)))"#,
    )
    .unwrap();
    let begun = Begun::prepared(&both, |_| ()).await;
    assert_eq!(begun.0.binding.runs(), []);
    assert!(!begun.0.binding.completed());
}

#[tokio::test]
async fn options_are_refused() {
    let mut kit = Kit::new(Arc::new(WasiCli::default()));
    kit.workload.interfaces = vec![testing::config_entry("wasi:cli", &["run"], &[("a", "b")])];
    let refused = kit.bind().await.err().unwrap();
    assert!(
        refused.message.starts_with("spec.hostInterfaces[0]"),
        "{refused}"
    );
}
