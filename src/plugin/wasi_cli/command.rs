//! One command of one generation: its runs, one after the other, and how each of them ended.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use futures::FutureExt as _;
use tokio::{sync::Notify, time::Instant};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, p2, p3};

use super::{
    Sleep,
    restart::{History, Next, Rule, ran},
};
use crate::{
    engine::{InstanceLimits, Place},
    fault::{Fault, Reason, Stage},
    plugin::{Linked, Run, RunState, StoreState, StoreTemplate},
    spec::{Ended, Exit},
};

/// Longest text about an end, in bytes: a guest can name its functions as it likes.
const MAX_TEXT: usize = 512;

/// One command.
pub(super) struct Command {
    pub component: Arc<str>,
    pub rule: Rule,
    pub label: Label,
    pub export: Export,
    pub template: Arc<StoreTemplate>,
    pub state: Shared,
    pub sleep: Sleep,
}

/// Whose it is, for logs.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
}

/// What is run.
pub(super) enum Export {
    /// `wasi:cli/run@0.2`.
    P2(p2::bindings::CommandPre<StoreState>),
    /// `wasi:cli/run@0.3`.
    P3(p3::bindings::CommandPre<StoreState>),
}

/// How a command is doing, where all can see it.
#[derive(Clone)]
pub(super) struct Shared {
    run: Arc<Mutex<Run>>,
    /// Rung when it changes.
    signal: Arc<Notify>,
}

impl Shared {
    pub fn new(component: Arc<str>, state: RunState, signal: Arc<Notify>) -> Self {
        let run = Run {
            component,
            state,
            restarts: 0,
            last: None,
        };
        Self {
            run: Arc::new(Mutex::new(run)),
            signal,
        }
    }

    /// How it is doing.
    pub fn get(&self) -> Run {
        self.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Run)) {
        change(&mut self.lock());
        self.signal.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Run> {
        // It is never left half changed, so a poisoned lock is as good as any.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Export {
    /// Finds what to run in a component's exports.
    ///
    /// # Errors
    /// A fault, if the export has another type than its name says.
    pub fn of(linked: &Linked, concurrent: bool) -> Result<Self, Fault> {
        let export = if concurrent {
            p3::bindings::CommandPre::new(linked.pre.clone()).map(Self::P3)
        } else {
            p2::bindings::CommandPre::new(linked.pre.clone()).map(Self::P2)
        };
        export.map_err(|error| {
            let name = &linked.facts.name;
            let message = format!(
                "component \"{name}\" exports another wasi:cli/run than its name says: {error:#}"
            );
            Fault::new(Stage::Start, Reason::BindFailed, message).of_component(name.clone())
        })
    }

    async fn call(&self, store: &mut Store<StoreState>) -> wasmtime::Result<Result<(), ()>> {
        match self {
            Self::P2(pre) => {
                let command = pre.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await
            }
            Self::P3(pre) => {
                let command = pre.instantiate_async(&mut *store).await?;
                store
                    .run_concurrent(async |accessor| {
                        let result = command.wasi_cli_run().call_run(accessor).await?;
                        // A task goes on after it has returned, for example to write what it printed.
                        poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                        Ok(result)
                    })
                    .await?
            }
        }
    }
}

impl Command {
    /// Runs it, again and again if it may be. Dropping the future cuts it.
    pub async fn run(&self) {
        let held = HeldOnDrop(&self.state);
        let mut history = History::default();
        loop {
            let place = self.place().await;
            let (since, started) = (SystemTime::now(), Instant::now());
            self.state
                .change(|run| run.state = RunState::Running { since });
            let exit = self.once().await;
            drop(place);
            let next = self
                .rule
                .next(&mut history, &exit, ran(started, Instant::now()));
            self.log(&exit, next);
            let ended = Ended {
                exit,
                at: SystemTime::now(),
            };
            let Next::Restart(wait) = next else {
                self.state.change(|run| run.state = RunState::Ended(ended));
                break;
            };
            if !wait.is_zero() {
                self.state.change(|run| {
                    run.state = RunState::BackingOff {
                        until: ended.at + wait,
                    };
                    run.last = Some(ended.clone());
                });
                (self.sleep)(wait).await;
            }
            self.state.change(|run| {
                run.restarts = history.restarts;
                run.last = Some(ended);
            });
        }
        drop(held);
    }

    /// A place in the engine's room, as each instance of a component has one. It begins late where all are in use, and does not
    /// fail for want of a slot.
    async fn place(&self) -> Place {
        let room = self.template.room();
        if let Some(place) = room.try_enter() {
            return place;
        }
        let Label {
            namespace,
            workload,
        } = &self.label;
        let (component, limit) = (&self.component, room.limit());
        tracing::warn!(%namespace, %workload, %component, limit, "all instances are in use; the run waits for one");
        self.state.change(|run| run.state = RunState::Held);
        room.enter().await
    }

    /// One run, in a store of its own.
    async fn once(&self) -> Exit {
        let mut store = self.template.store();
        let called = AssertUnwindSafe(self.export.call(&mut store))
            .catch_unwind()
            .await;
        match called {
            Ok(result) => exit(result, store.data().limits()),
            Err(_) => Exit::HostError("it panicked; please report it with the log".to_owned()),
        }
    }

    fn log(&self, exit: &Exit, next: Next) {
        let Label {
            namespace,
            workload,
        } = &self.label;
        let component = &self.component;
        let next = match next {
            Next::Restart(wait) => format!("it is started again in {} s", wait.as_secs()),
            Next::Stay => "it is not started again".to_owned(),
        };
        if exit.is_success() {
            tracing::info!(%namespace, %workload, %component, "the run {exit}; {next}");
        } else {
            tracing::warn!(%namespace, %workload, %component, "the run {exit}; {next}");
        }
    }
}

/// What is left of a run that was cut: nothing runs.
struct HeldOnDrop<'a>(&'a Shared);

impl Drop for HeldOnDrop<'_> {
    fn drop(&mut self) {
        if self.0.get().ended().is_none() {
            self.0.change(|run| run.state = RunState::Held);
        }
    }
}

/// How a run ended.
pub(super) fn exit(result: wasmtime::Result<Result<(), ()>>, limits: &InstanceLimits) -> Exit {
    let error = match result {
        Ok(Ok(())) => return Exit::Completed,
        Ok(Err(())) => return Exit::Error(1),
        Err(error) => error,
    };
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(I32Exit(0)), _) => Exit::Completed,
        (Some(I32Exit(code)), _) => Exit::Error(*code),
        (_, Some(Trap::OutOfFuel)) => Exit::OutOfFuel,
        (_, Some(Trap::Interrupt)) => Exit::DeadlineExceeded,
        _ if let Some(refusal) = limits.refusal() => Exit::MemoryLimit(refusal.to_string()),
        (_, Some(trap)) => Exit::Trapped(cut(match function(&error) {
            Some(name) => format!("{trap}, in {name}"),
            None => trap.to_string(),
        })),
        _ if error.is::<PoolConcurrencyLimitError>() => {
            Exit::HostError("all instances that the host has room for are in use".to_owned())
        }
        // A host function refused to go on.
        _ => Exit::Trapped(cut(format!("{:#}", error.root_cause()))),
    }
}

/// The function that a trap happened in, if it has a name.
fn function(error: &wasmtime::Error) -> Option<String> {
    let trace: &WasmBacktrace = error.downcast_ref()?;
    let name = trace.frames().first()?.func_name()?;
    Some(name.to_owned())
}

/// Cuts a text at a character boundary.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}
