//! `wasi:cli/run`: runs the workload's service, or its jobs, from the time at which its generation serves.
//!
//! A *service* is what the workload names so; it runs for as long as the workload does. A *job* is a component that nobody
//! could call: it exports `wasi:cli/run`, no handler, nothing that another component imports, and the workload has no service.
//! Both are started again as the [restart policy](spec::RestartPolicy) says. They get no arguments and no standard input.
//!
//! Guests have no signals, so a command cannot be asked to end: it runs until the generation's other bindings have drained,
//! and is cut when the binding is dropped. Every host has this plugin; nobody has to give it.

mod command;
mod restart;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify},
    task::{JoinHandle, unconstrained},
};
use wasmtime::component::Linker;

use self::{
    command::{Command, Export, Label, Shared},
    restart::Rule,
};
use super::{
    BindRequest, Binding, ComponentFacts, HostPlugin, Linked, Run, RunState, StoreState,
    interface_ids,
    lane::{Lane, Laned, SlowLane},
};
use crate::{
    fault::{Class, Fault, Reason, Stage},
    spec::{self, Commands, Ended, RestartPolicy, Role},
    wit::World,
};

const RUN_2: &str = "wasi:cli/run@0.2.12";
const RUN_3: &str = "wasi:cli/run@0.3.0";

/// Runs commands.
pub(crate) struct WasiCli {
    /// Lets the time between two runs pass.
    sleep: Sleep,
    /// Made for the first command; none inside if its threads cannot be started.
    slow: OnceLock<Option<Arc<SlowLane>>>,
}

type Sleep = fn(Duration) -> BoxFuture<'static, ()>;

impl Default for WasiCli {
    fn default() -> Self {
        Self::with_sleep(|wait| Box::pin(tokio::time::sleep(wait)))
    }
}

impl WasiCli {
    const fn with_sleep(sleep: Sleep) -> Self {
        Self {
            sleep,
            slow: OnceLock::new(),
        }
    }

    /// Where a command goes on that takes long at a time.
    fn slow(&self) -> Option<Arc<SlowLane>> {
        let made = self.slow.get_or_init(|| {
            let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            SlowLane::new(threads)
                .map(Arc::new)
                .inspect_err(|error| {
                    tracing::warn!(%error, "no threads of low priority for services and jobs");
                })
                .ok()
        });
        made.clone()
    }
}

/// What a component is, as far as running it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    Job,
}

/// The commands of one generation. Dropping it cuts them.
struct Bound {
    planned: Vec<Planned>,
    /// Nothing else of the workload could answer.
    alone: bool,
    commands: Commands,
    label: Label,
    sleep: Sleep,
    /// Kept for as long as anything may move there.
    slow: Option<Arc<SlowLane>>,
    /// The generation serves.
    begun: bool,
}

/// A command on its way to running.
struct Planned {
    component: Arc<str>,
    kind: Kind,
    rule: Rule,
    concurrent: bool,
    state: Shared,
    /// None before it is linked.
    command: Option<Arc<Command>>,
    task: Option<Task>,
    /// Held by the one that runs.
    turn: Arc<Mutex<()>>,
}

/// Cuts what it runs when it is dropped, which may take a moment to end.
struct Task(JoinHandle<()>);

impl Task {
    /// Runs a command in its `turn`: after what was cut has ended, on whichever thread that is.
    fn start(command: Arc<Command>, turn: Arc<Mutex<()>>, slow: Option<Handle>) -> Self {
        let run = async move {
            let _turn = turn.lock_owned().await;
            // What was cut may have ended well at the last moment.
            if command.state.get().ended().is_none() {
                command.run().await;
            }
            true
        };
        // A turn ends with its slice. Tokio would end those of one that is busy with sockets earlier, and it would never be
        // found to take long.
        let run = Laned::single(|| unconstrained(run), &Lane::new(slow));
        Self(tokio::spawn(run))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HostPlugin for WasiCli {
    fn id(&self) -> &'static str {
        "wasi-cli"
    }

    fn world(&self) -> World {
        World {
            imports: Vec::new(),
            exports: interface_ids(&[RUN_2, RUN_3]),
        }
    }

    fn link(&self, _: &mut Linker<StoreState>, _: &ComponentFacts) -> wasmtime::Result<()> {
        Ok(())
    }

    fn bind<'a>(
        &'a self,
        request: BindRequest<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>> {
        let bound = Bound::new(&request, self).map(|bound| Box::new(bound) as Box<dyn Binding>);
        Box::pin(async move { bound })
    }
}

impl Bound {
    fn new(request: &BindRequest<'_>, plugin: &WasiCli) -> Result<Self, Fault> {
        let workload = request.workload;
        check_entries(workload)?;
        let mut planned = Vec::new();
        for facts in request.components {
            if let Some((kind, max_restarts)) = kind(workload, facts, request.components)? {
                planned.push(Planned::new(
                    workload,
                    facts,
                    (kind, max_restarts),
                    &request.signal,
                ));
            }
        }
        let is_planned = |facts: &&ComponentFacts| {
            let mut names = planned.iter().map(|planned| &planned.component);
            names.any(|name| *name == facts.name)
        };
        let mut others = request.components.iter().filter(|f| !is_planned(f));
        Ok(Self {
            alone: !others.any(serves_http),
            slow: if planned.is_empty() {
                None
            } else {
                plugin.slow()
            },
            planned,
            commands: workload.commands.clone(),
            label: Label {
                namespace: workload.namespace.as_str().into(),
                workload: workload.name.as_str().into(),
            },
            sleep: plugin.sleep,
            begun: false,
        })
    }

    /// Starts what is to run and does not, and cuts what is not to run.
    fn settle(&mut self) {
        if !self.begun {
            return;
        }
        for planned in &mut self.planned {
            if self.commands.held {
                planned.hold();
            }
            if planned.task.is_some() || planned.state.get().ended().is_some() {
                continue;
            }
            let mut finished = self.commands.finished.iter();
            if let Some(finished) = finished.find(|f| f.component == planned.component) {
                // Whoever is to run it: it is over.
                planned.end(finished.ended.clone());
            } else if !self.commands.held {
                planned.start(self.slow.as_deref());
            }
        }
    }

    /// Whether there are commands, and all have ended for good in such a way.
    fn all_ended(&self, so: impl Fn(&Ended) -> bool) -> bool {
        !self.planned.is_empty()
            && self.planned.iter().all(|planned| {
                let run = planned.state.get();
                run.ended().is_some_and(&so)
            })
    }
}

impl Planned {
    fn new(
        workload: &spec::Workload,
        facts: &ComponentFacts,
        (kind, max_restarts): (Kind, Option<u32>),
        signal: &Arc<Notify>,
    ) -> Self {
        let by_default = match kind {
            Kind::Service => RestartPolicy::Always,
            Kind::Job => RestartPolicy::OnFailure,
        };
        let name = facts.name.clone();
        Self {
            component: name.clone(),
            kind,
            rule: Rule {
                policy: workload.commands.restart_policy.unwrap_or(by_default),
                max_restarts,
            },
            // A component that exports both is run by the newer one.
            concurrent: exports_any(facts, &[RUN_3]),
            state: Shared::new(name, RunState::Held, signal.clone()),
            command: None,
            task: None,
            turn: Arc::default(),
        }
    }

    fn hold(&mut self) {
        self.task = None;
    }

    fn end(&self, ended: Ended) {
        self.state.change(|run| run.state = RunState::Ended(ended));
    }

    fn start(&mut self, slow: Option<&SlowLane>) {
        if let Some(command) = self.command.clone() {
            let slow = slow.and_then(SlowLane::handle);
            self.task = Some(Task::start(command, self.turn.clone(), slow));
        }
    }

    /// Why the workload does not answer, if it is for this command.
    fn fault(&self) -> Option<Fault> {
        let run = self.state.get();
        let name = &self.component;
        let what = match self.kind {
            Kind::Service => "service",
            Kind::Job => "job",
        };
        let fault = match (&run.state, &run.last) {
            (RunState::BackingOff { until }, Some(last)) => {
                let wait = until.duration_since(last.at).unwrap_or_default();
                let message = format!(
                    "{what} \"{name}\" {} after {} restarts; the next one follows {} s after that",
                    last.exit,
                    run.restarts,
                    wait.as_secs()
                );
                // It tells by itself when it runs again.
                Fault::new(Stage::Start, Reason::CrashLoopBackOff, message).class(Class::Signal)
            }
            (RunState::Ended(ended), _) => {
                if self.kind == Kind::Job && ended.exit.is_success() {
                    return None;
                }
                let why = match (self.rule.policy, self.rule.max_restarts) {
                    (RestartPolicy::Never, _) => "restartPolicy Never".to_owned(),
                    (RestartPolicy::OnFailure, _) if ended.exit.is_success() => {
                        "restartPolicy OnFailure".to_owned()
                    }
                    (_, Some(max)) => format!("maxRestarts {max}"),
                    (_, None) => "the restart policy".to_owned(),
                };
                let message = format!(
                    "{what} \"{name}\" {}; it is not started again ({why})",
                    ended.exit
                );
                Fault::new(Stage::Start, Reason::from(&ended.exit), message)
            }
            _ => return None,
        };
        Some(fault.of_component(name.clone()))
    }
}

impl Binding for Bound {
    fn start(&mut self, linked: &[Linked]) -> Result<(), Fault> {
        for planned in &mut self.planned {
            let name = &planned.component;
            let linked = linked
                .iter()
                .find(|linked| linked.facts.name == *name)
                .ok_or_else(|| {
                    let message = format!("component \"{name}\" was not linked");
                    Fault::new(Stage::Start, Reason::HostError, message)
                })?;
            planned.command = Some(Arc::new(Command {
                component: name.clone(),
                rule: planned.rule,
                label: self.label.clone(),
                export: Export::of(linked, planned.concurrent)?,
                template: linked.template.clone(),
                state: planned.state.clone(),
                sleep: self.sleep,
            }));
        }
        Ok(())
    }

    fn run(&mut self) {
        self.begun = true;
        self.settle();
    }

    fn runs(&self) -> Vec<Run> {
        let runs = self.planned.iter();
        runs.map(|planned| planned.state.get()).collect()
    }

    fn completed(&self) -> bool {
        self.alone && self.all_ended(|ended| ended.exit.is_success())
    }

    fn over(&self) -> bool {
        self.alone && self.all_ended(|_| true)
    }

    fn update(&mut self, workload: &spec::Workload) {
        self.commands = workload.commands.clone();
        self.settle();
    }

    fn fault(&self) -> Option<Fault> {
        let faults: Vec<Fault> = self.planned.iter().filter_map(Planned::fault).collect();
        // What does not pass by itself is the better answer.
        let lasting = faults.iter().find(|f| f.class == Class::Terminal);
        lasting.or(faults.first()).cloned()
    }
}

/// The package has no options: nobody would read them.
fn check_entries(workload: &spec::Workload) -> Result<(), Fault> {
    let mut entries = workload.interfaces.iter().enumerate();
    match entries.find(|(_, entry)| entry.is("wasi", "cli") && !entry.config.is_empty()) {
        None => Ok(()),
        Some((index, _)) => {
            let message = format!(
                "spec.hostInterfaces[{index}]: wasi:cli has no options; remove its `config`"
            );
            Err(Fault::new(Stage::Link, Reason::BindFailed, message))
        }
    }
}

/// What a component is if it is to be run, and how often it may be restarted.
///
/// # Errors
/// It could only be run, but nobody would.
fn kind(
    workload: &spec::Workload,
    facts: &ComponentFacts,
    all: &[ComponentFacts],
) -> Result<Option<(Kind, Option<u32>)>, Fault> {
    let component = workload.components.iter().find(|c| c.name == facts.name);
    let role = component.map_or(Role::Component, |c| c.role);
    if let Role::Service { max_restarts } = role {
        return Ok(Some((Kind::Service, max_restarts)));
    }
    let imported = |export| {
        let others = all.iter().filter(|other| other.name != facts.name);
        others
            .flat_map(|other| &other.world.imports)
            .any(|import: &crate::wit::InterfaceId| import.served_by(export))
    };
    if !exports_any(facts, &[RUN_2, RUN_3])
        || serves_http(facts)
        || facts.world.exports.iter().any(imported)
    {
        return Ok(None);
    }
    if workload.service().is_some() {
        let name = &facts.name;
        let message = format!(
            "component \"{name}\" can only be run (it exports wasi:cli/run, and nothing that could be called), but beside a \
             service nobody runs it; make it a workload of its own, or remove it"
        );
        return Err(
            Fault::new(Stage::Link, Reason::UnsupportedSpec, message).of_component(name.clone())
        );
    }
    Ok(Some((Kind::Job, None)))
}

fn exports_any(facts: &ComponentFacts, names: &[&str]) -> bool {
    interface_ids(names).iter().any(|id| facts.exports(id))
}

/// Whether a component can be run.
pub(crate) fn can_run(facts: &ComponentFacts) -> bool {
    exports_any(facts, &[RUN_2, RUN_3])
}

/// Whether a component is called over HTTP, whether or not this host does that.
fn serves_http(facts: &ComponentFacts) -> bool {
    let mut exports = facts.world.exports.iter();
    exports.any(|export| export.namespace == "wasi" && export.package == "http")
}
