//! What can be said of a workload before Wasmtime links it, in words that its owner can act on.

use std::sync::Arc;

use crate::{
    fault::{Fault, Reason, Stage},
    plugin::{ComponentFacts, HostPlugin, wasi_cli},
    spec,
    wit::InterfaceId,
};

use super::configures;

/// Every entry of `hostInterfaces` names something that this host has.
pub(super) fn check_entries(
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

/// The host's own loopback is opened by the workload and the operator together.
pub(super) fn check_loopback(
    allowed: bool,
    granted: &spec::Workload,
    desired: &spec::Workload,
) -> Result<(), Fault> {
    let mut components = granted.components.iter();
    let asks = components.find(|component| !component.loopback_ports.is_empty());
    let Some(component) = asks.filter(|_| !allowed) else {
        return Ok(());
    };
    // A root may have the ports of one of its parts, and is told of in its place.
    let mut all = desired.components.iter();
    let index = all.position(|c| c.name == component.name).unwrap_or(0);
    let message = format!(
        "spec.components[{index}].localResources.allowedHostLoopbackPorts: this host keeps its loopback to itself; \
         remove the ports, or start the host with --allow-host-loopback"
    );
    Err(Fault::new(Stage::Link, Reason::Forbidden, message).of_component(component.name.clone()))
}

/// An HTTP component is configured as `incoming-handler` or `handler`, whichever version it exports.
fn known_as(interface: &str, entry: &str) -> bool {
    const HANDLERS: [&str; 2] = ["incoming-handler", "handler"];
    interface == entry || HANDLERS.contains(&interface) && HANDLERS.contains(&entry)
}

/// Every import of a component is offered at a version that serves it.
pub(super) fn check_imports(
    offers: &[InterfaceId],
    component: &spec::Component,
    facts: &ComponentFacts,
) -> Result<(), Fault> {
    let missing = facts.world.imports.iter();
    let missing: Vec<&InterfaceId> = missing
        .filter(|import| !offers.iter().any(|offer| import.served_by(offer)))
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(unmet(component, missing, offers, [])),
    }
}

/// Imports that nobody serves: neither the host, nor another component of the workload, given with what it exports.
pub(in super::super) fn unmet<'a>(
    component: &spec::Component,
    missing: &[&InterfaceId],
    offers: &[InterfaceId],
    siblings: impl IntoIterator<Item = (&'a str, &'a Vec<InterfaceId>)>,
) -> Fault {
    let siblings: Vec<(&str, &Vec<InterfaceId>)> = siblings.into_iter().collect();
    let explain = |import: &&InterfaceId| {
        let exported = siblings
            .iter()
            .flat_map(|(name, exports)| exports.iter().map(move |export| (*name, export)));
        let exported: Vec<(&str, &InterfaceId)> = exported.collect();
        let all = offers.iter().chain(exported.iter().map(|(_, id)| *id));
        match import.nearest(all) {
            Some(nearest) => {
                let by = exported.iter().find(|(_, id)| *id == nearest);
                let by = by.map_or(String::new(), |(name, _)| {
                    format!(", which component \"{name}\" exports")
                });
                format!("{import} (the nearest offer is {nearest}{by})")
            }
            None => {
                let (namespace, package) = (&import.namespace, &import.package);
                let nobody = if siblings.is_empty() {
                    "the host offers nothing"
                } else {
                    "the host and the other components offer nothing"
                };
                format!("{import} ({nobody} of {namespace}:{package})")
            }
        }
    };
    let missing: Vec<String> = missing.iter().map(explain).collect();
    let what = format!(
        "imports what nobody offers: {}; build it against an offered version, add a component that exports it, or use a host \
         with a plugin for it",
        missing.join(", ")
    );
    refused(component, Reason::ImportNotSatisfied, &what)
}

/// A service is there to be run.
pub(super) fn check_exports(
    component: &spec::Component,
    facts: &ComponentFacts,
) -> Result<(), Fault> {
    if !component.is_service() || wasi_cli::can_run(facts) {
        return Ok(());
    }
    let mut exports = facts.world.exports.iter().map(ToString::to_string);
    let has = match exports.by_ref().take(4).collect::<Vec<_>>() {
        has if has.is_empty() => "nothing".to_owned(),
        has => has.join(", "),
    };
    let what = format!(
        "is the service, but it does not export wasi:cli/run at 0.2 or 0.3 (it exports {has}); build it for the world \
         wasi:cli/command, or make it a component"
    );
    Err(refused(component, Reason::BindFailed, &what))
}

/// Names are offered, but types differ: Wasmtime's words are the best there are.
pub(super) fn unlinkable(component: &spec::Component, error: &wasmtime::Error) -> Fault {
    let what = format!("does not fit the host's interfaces: {error:#}");
    refused(component, Reason::ImportNotSatisfied, &what)
}

/// What is wrong with one component, which the message names as the engine's messages do.
pub(in super::super) fn refused(component: &spec::Component, reason: Reason, what: &str) -> Fault {
    let message = format!(
        "component \"{}\" ({}): it {what}",
        component.name,
        component.source.describe()
    );
    Fault::new(Stage::Link, reason, message).of_component(component.name.clone())
}
