//! Linking: every import of every component to what the host offers, or a diagnosis that a person can act on.

mod checks;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;
use wasmtime::component::InstancePre;

use checks::{check_entries, check_exports, check_imports, check_loopback, unlinkable};
pub(super) use checks::{refused, unmet};

use super::{Shared, compose::Roots};
use crate::{
    engine::Compiled,
    fault::Fault,
    plugin::{
        Apart, BindRequest, Binding, ComponentFacts, HostPlugin, Linked, Notices, Part, StoreState,
        StoreTemplate,
        wasi::{self, Kept},
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
    desired: &Arc<spec::Workload>,
    roots: &Roots,
    signal: &Arc<Notify>,
    kept: &Kept,
) -> Result<Parts, Fault> {
    let workload = &roots.of(desired);
    let all = roots.compiled.iter().enumerate();
    let facts: Vec<ComponentFacts> = workload
        .components
        .iter()
        .zip(all)
        .map(|(component, (index, compiled))| facts(component, compiled, roots.apart(index)))
        .collect();
    let granted = Granted::of(desired, workload, &facts);
    check_entries(&shared.offers, &shared.plugins, workload)?;
    check_loopback(shared.host_loopback, &granted.workload, desired)?;
    for (component, own) in workload.components.iter().zip(&facts) {
        check_imports(&shared.offers, component, own)?;
        check_exports(component, own)?;
    }

    let kept = kept.slots(&granted.workload, &granted.facts).await?;
    let mut bound: Vec<Bound<'_>> = Vec::new();
    for plugin in shared
        .plugins
        .iter()
        .filter(|p| needs(workload, &facts, &p.world()))
    {
        let world = plugin.world();
        let request = BindRequest {
            workload: &granted.workload,
            interfaces: workload
                .interfaces
                .iter()
                .filter(|entry| configures(entry, &world))
                .collect(),
            components: &facts,
            signal: signal.clone(),
            notices: Notices::new(workload, &shared.notices),
        };
        bound.push((plugin, plugin.bind(request).await?));
    }

    let network = wasi::Network::new(shared.blocked_networks.clone());
    let part = |name: &str, role: wasi::Role| {
        let (component, kept) = granted.find(name, &kept)?;
        let slots = bound.iter().filter_map(|(_, b)| b.slot(name));
        let slots = slots.chain(kept.iter().cloned()).collect();
        Some(Part::new(workload, component, slots, &network, role))
    };
    let mut linked = Vec::with_capacity(facts.len());
    let components = workload.components.iter().zip(&roots.compiled).zip(facts);
    for ((component, compiled), facts) in components {
        let pre = instantiable(shared, component, compiled, &facts, &bound)?;
        let role = if component.is_service() {
            wasi::Role::Service
        } else {
            wasi::Role::Component
        };
        let apart = facts.apart.iter();
        let apart = apart.filter_map(|apart| part(&apart.component, role));
        let apart = apart.collect();
        // Each of these components is among those that are granted something.
        let Some(whole) = part(&component.name, role) else {
            continue;
        };
        let template =
            StoreTemplate::new(&shared.engine, workload, component, compiled, whole, apart);
        linked.push(Linked {
            facts,
            pre,
            template: Arc::new(template),
        });
    }
    Ok((
        bound.into_iter().map(|(_, binding)| binding).collect(),
        linked,
    ))
}

/// What is known of a component. Of what its parts import for themselves it says what that is, as if they shared it.
fn facts(component: &spec::Component, compiled: &Compiled, apart: Arc<[Apart]>) -> ComponentFacts {
    let own: HashMap<InterfaceId, &InterfaceId> = apart
        .iter()
        .flat_map(|part| &part.imports)
        .map(|own| (own.name(), &own.import))
        .collect();
    let world = if own.is_empty() {
        compiled.world.clone()
    } else {
        let imports = compiled.world.imports.iter();
        let imports = imports.map(|import| own.get(import).copied().unwrap_or(import).clone());
        let imports: BTreeSet<InterfaceId> = imports.collect();
        Arc::new(World {
            imports: imports.into_iter().collect(),
            exports: compiled.world.exports.clone(),
        })
    };
    ComponentFacts {
        name: component.name.clone(),
        world,
        flavor: compiled.flavor,
        apart,
    }
}

/// All that is granted something by itself: components, and parts of them that stay apart.
struct Granted {
    workload: Arc<spec::Workload>,
    facts: Vec<ComponentFacts>,
}

impl Granted {
    fn of(desired: &spec::Workload, roots: &Arc<spec::Workload>, facts: &[ComponentFacts]) -> Self {
        let mut granted = Self {
            workload: roots.clone(),
            facts: facts.to_vec(),
        };
        let parts = facts
            .iter()
            .flat_map(|facts| facts.apart.iter().zip(std::iter::repeat(facts)));
        for (part, whole) in parts {
            let named = desired.components.iter().find(|c| c.name == part.component);
            let known = granted
                .facts
                .iter()
                .any(|facts| facts.name == part.component);
            let Some(component) = named.filter(|_| !known) else {
                continue;
            };
            let imports = part.imports.iter().map(|own| own.import.clone());
            granted.facts.push(ComponentFacts {
                name: part.component.clone(),
                world: Arc::new(World {
                    imports: imports.collect(),
                    exports: Vec::new(),
                }),
                flavor: whole.flavor,
                apart: Arc::default(),
            });
            let component = spec::Component {
                // Nobody runs it by itself.
                role: spec::Role::Component,
                ..component.clone()
            };
            Arc::make_mut(&mut granted.workload)
                .components
                .push(component);
        }
        granted
    }

    /// One of them, and what belongs to it in a list of something for each.
    fn find<'a, T>(&'a self, name: &str, each: &'a [T]) -> Option<(&'a spec::Component, &'a T)> {
        let mut components = self.workload.components.iter().zip(each);
        components.find(|(component, _)| &*component.name == name)
    }
}

/// The component with its imports resolved, and the last type check by Wasmtime itself: once for all workloads that use the
/// same bytes with the same plugins, since what a plugin defines is the same for each of them.
fn instantiable(
    shared: &Shared,
    component: &spec::Component,
    compiled: &Compiled,
    facts: &ComponentFacts,
    bound: &[Bound<'_>],
) -> Result<InstancePre<StoreState>, Fault> {
    let plugins = bound.iter().map(|(plugin, _)| *plugin);
    let plugins: Vec<_> = plugins.filter(|p| uses(facts, &p.world())).collect();
    let ids: Vec<&'static str> = plugins.iter().map(|plugin| plugin.id()).collect();
    let link = || {
        let mut linker = shared.engine.linker(compiled.flavor);
        wasi::link(&mut linker, facts)?;
        for plugin in plugins {
            plugin.link(&mut linker, facts)?;
        }
        linker.instantiate_pre(&compiled.component)
    };
    let linked = compiled.memo.get_or_make((shared.number, &ids), link);
    linked.map_err(|error| unlinkable(component, &error))
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
