//! Linking: every import of every component to what the host offers, or a diagnosis that a person can act on.

use std::sync::Arc;

use tokio::sync::Notify;
use wasmtime::component::Linker;

use super::Shared;
use crate::{
    engine::Compiled,
    fault::{Fault, Reason, Stage},
    plugin::{
        BindRequest, Binding, ComponentFacts, HostPlugin, Linked, Slots, StoreState, StoreTemplate,
        wasi,
    },
    spec,
    wit::{InterfaceId, World},
};

/// A plugin, and its state for the workload.
type Bound<'a> = (&'a Arc<dyn HostPlugin>, Box<dyn Binding>);

/// What linking yields: the plugins' state for the workload, and its components.
pub(super) type Parts = (Vec<Box<dyn Binding>>, Vec<Linked>);

/// Binds the plugins that the workload needs and links its components to them.
pub(super) async fn link(
    shared: &Shared,
    workload: &spec::Workload,
    compiled: &[Compiled],
    signal: &Arc<Notify>,
) -> Result<Parts, Fault> {
    let facts: Vec<ComponentFacts> = workload
        .components
        .iter()
        .zip(compiled)
        .map(|(component, compiled)| ComponentFacts {
            name: component.name.clone(),
            world: compiled.world.clone(),
            flavor: compiled.flavor,
        })
        .collect();
    check_entries(&shared.offers, &shared.plugins, workload)?;
    for (component, own) in workload.components.iter().zip(&facts) {
        check_imports(&shared.offers, component, own, &facts)?;
        check_exports(component, own, &shared.plugins)?;
    }

    let mut bound: Vec<Bound<'_>> = Vec::new();
    for plugin in shared
        .plugins
        .iter()
        .filter(|p| needs(workload, &facts, &p.world()))
    {
        let world = plugin.world();
        let request = BindRequest {
            workload,
            interfaces: workload
                .interfaces
                .iter()
                .filter(|entry| configures(entry, &world))
                .collect(),
            components: &facts,
            signal: signal.clone(),
        };
        bound.push((plugin, plugin.bind(request).await?));
    }

    let mut linked = Vec::with_capacity(facts.len());
    for ((component, compiled), facts) in workload.components.iter().zip(compiled).zip(facts) {
        let mut linker = shared.engine.linker(compiled.flavor);
        wasi::link(&mut linker, &facts).map_err(|error| unlinkable(component, &error))?;
        for (plugin, _) in &bound {
            if uses(&facts, &plugin.world()) {
                plugin
                    .link(&mut linker, &facts)
                    .map_err(|error| unlinkable(component, &error))?;
            }
        }
        let slots = bound
            .iter()
            .filter_map(|(_, binding)| binding.slot(&component.name))
            .collect();
        linked.push(instantiable(
            shared, workload, component, compiled, facts, &linker, slots,
        )?);
    }
    Ok((
        bound.into_iter().map(|(_, binding)| binding).collect(),
        linked,
    ))
}

/// The last type check, by Wasmtime itself.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one component, used once"
)]
fn instantiable(
    shared: &Shared,
    workload: &spec::Workload,
    component: &spec::Component,
    compiled: &Compiled,
    facts: ComponentFacts,
    linker: &Linker<StoreState>,
    slots: Slots,
) -> Result<Linked, Fault> {
    let pre = linker
        .instantiate_pre(&compiled.component)
        .map_err(|error| unlinkable(component, &error))?;
    let template = StoreTemplate::new(&shared.engine, workload, component, compiled, slots);
    Ok(Linked {
        facts,
        pre,
        template: Arc::new(template),
    })
}

/// Whether a component imports or exports anything of a plugin's world.
fn uses(facts: &ComponentFacts, world: &World) -> bool {
    world.imports.iter().any(|offer| facts.imports(offer))
        || world.exports.iter().any(|called| facts.exports(called))
}

/// Whether an entry of the workload configures a plugin with this world.
fn configures(entry: &spec::Interface, world: &World) -> bool {
    world
        .imports
        .iter()
        .chain(&world.exports)
        .any(|id| entry.is(&id.namespace, &id.package))
}

/// Whether the workload has to do with a plugin at all.
fn needs(workload: &spec::Workload, facts: &[ComponentFacts], world: &World) -> bool {
    facts.iter().any(|f| uses(f, world))
        || workload
            .interfaces
            .iter()
            .any(|entry| configures(entry, world))
}

/// Every entry of `hostInterfaces` names something that this host has.
fn check_entries(
    offers: &[InterfaceId],
    plugins: &[Arc<dyn HostPlugin>],
    workload: &spec::Workload,
) -> Result<(), Fault> {
    let called: Vec<InterfaceId> = plugins.iter().flat_map(|p| p.world().exports).collect();
    for (index, entry) in workload.interfaces.iter().enumerate() {
        let of_package = || {
            offers
                .iter()
                .chain(&called)
                .filter(|id| entry.is(&id.namespace, &id.package))
        };
        let package = format!("{}:{}", entry.namespace, entry.package);
        let refuse = |what: String| {
            Err(Fault::new(
                Stage::Link,
                Reason::ImportNotSatisfied,
                format!("spec.hostInterfaces[{index}]: {what}"),
            ))
        };
        if of_package().next().is_none() {
            return refuse(format!(
                "no plugin of this host offers {package}; remove the entry or use a host that has it"
            ));
        }
        // Of WASI's base, which is no plugin: nobody would read them.
        if !entry.config.is_empty() && !plugins.iter().any(|p| configures(entry, &p.world())) {
            let message = format!(
                "spec.hostInterfaces[{index}]: {package} has no options; remove its `config`"
            );
            return Err(Fault::new(Stage::Link, Reason::BindFailed, message));
        }
        for interface in &entry.interfaces {
            let known = of_package()
                .filter(|id| known_as(&id.interface, interface))
                .any(|id| {
                    entry.version.as_ref().is_none_or(|wanted| {
                        let wanted = InterfaceId {
                            version: Some(wanted.clone()),
                            ..id.clone()
                        };
                        wanted.served_by(id)
                    })
                });
            if !known {
                let version = entry
                    .version
                    .as_ref()
                    .map(|v| format!("@{v}"))
                    .unwrap_or_default();
                let mut has: Vec<String> = of_package().map(ToString::to_string).collect();
                has.sort();
                has.dedup();
                return refuse(format!(
                    "this host has no {package}/{interface}{version}; it has {}",
                    has.join(", ")
                ));
            }
        }
    }
    Ok(())
}

/// An HTTP component is configured as `incoming-handler` or `handler`, whichever version it exports.
fn known_as(interface: &str, entry: &str) -> bool {
    const HANDLERS: [&str; 2] = ["incoming-handler", "handler"];
    interface == entry || HANDLERS.contains(&interface) && HANDLERS.contains(&entry)
}

/// Every import of a component is offered at a version that serves it.
fn check_imports(
    offers: &[InterfaceId],
    component: &spec::Component,
    facts: &ComponentFacts,
    all: &[ComponentFacts],
) -> Result<(), Fault> {
    let missing: Vec<String> = facts
        .world
        .imports
        .iter()
        .filter(|import| !offers.iter().any(|offer| import.served_by(offer)))
        .map(|import| {
            let sibling = all.iter().find(|other| other.name != component.name && other.exports(import));
            match (sibling, import.nearest(offers)) {
                (Some(other), _) => {
                    format!("{import} (component \"{}\" exports it, but components are not linked to each other yet)", other.name)
                }
                (None, Some(offer)) => format!("{import} (the nearest offer is {offer})"),
                (None, None) => format!("{import} (the host offers nothing of {}:{})", import.namespace, import.package),
            }
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!(
        "imports what nobody offers: {}; build it against an offered version, or use a host with a plugin for it",
        missing.join(", ")
    );
    Err(refused(component, Reason::ImportNotSatisfied, &what))
}

/// A command that nobody would run is refused rather than reported as running.
fn check_exports(
    component: &spec::Component,
    facts: &ComponentFacts,
    plugins: &[Arc<dyn HostPlugin>],
) -> Result<(), Fault> {
    let exports = &facts.world.exports;
    let called = plugins
        .iter()
        .flat_map(|p| p.world().exports)
        .any(|id| facts.exports(&id));
    let command = exports
        .iter()
        .find(|e| e.namespace == "wasi" && e.package == "cli" && e.interface == "run");
    match command {
        Some(run) if !called => {
            let what = format!(
                "exports only {run}: services and jobs are not supported yet; export wasi:http/incoming-handler to be called over HTTP"
            );
            Err(refused(component, Reason::UnsupportedSpec, &what))
        }
        _ => Ok(()),
    }
}

/// Names are offered, but types differ: Wasmtime's words are the best there are.
fn unlinkable(component: &spec::Component, error: &wasmtime::Error) -> Fault {
    let what = format!("does not fit the host's interfaces: {error:#}");
    refused(component, Reason::ImportNotSatisfied, &what)
}

/// What is wrong with one component, which the message names as the engine's messages do.
fn refused(component: &spec::Component, reason: Reason, what: &str) -> Fault {
    let message = format!(
        "component \"{}\" ({}): it {what}",
        component.name,
        component.source.describe()
    );
    Fault::new(Stage::Link, reason, message).of_component(component.name.clone())
}
