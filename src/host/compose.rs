//! Which components of a workload are linked to each other, and what is to be compiled: a pure decision on names, then the
//! engine's work.
//!
//! An import goes to the one sibling that exports it, else to the host; but WASI's base is the host's alone. A component
//! that the host calls, or that no sibling imports from, is a root: it becomes one component with all that it needs, and
//! each root has instances of its own. What follows sees the roots, each with what its parts were granted, and beside them
//! the grants of parts that stay apart (see [`grants`]).

mod plan;

use std::sync::Arc;

use futures::future::{join_all, try_join_all};

use self::plan::{Group, Offers, plan};
use super::{Shared, grants, link};
use crate::{
    content::Fetched,
    engine::{CompileError, Compiled, Composition},
    fault::{Fault, Reason, Stage},
    plugin::{Apart, wasi},
    spec,
    wit::{InterfaceId, World},
};

/// The components that are to be linked to the host, compiled.
pub(super) struct Roots {
    /// None if these are the workload's own.
    components: Option<Vec<spec::Component>>,
    /// One for each of them.
    pub compiled: Vec<Compiled>,
    /// Parts of each that are granted something else; empty if nothing was linked.
    apart: Vec<Arc<[Apart]>>,
}

impl Roots {
    /// Its parts that are granted something else, by the root's index.
    pub fn apart(&self, root: usize) -> Arc<[Apart]> {
        self.apart.get(root).cloned().unwrap_or_default()
    }

    /// The workload whose components are the roots.
    pub fn of(&self, workload: &Arc<spec::Workload>) -> Arc<spec::Workload> {
        match &self.components {
            None => workload.clone(),
            Some(components) => Arc::new(spec::Workload {
                components: components.clone(),
                ..spec::Workload::clone(workload)
            }),
        }
    }
}

/// Compiles what was fetched, after linking to each other what belongs together.
pub(super) async fn compile(
    shared: &Shared,
    workload: &spec::Workload,
    fetched: &[Fetched],
) -> Result<Roots, Fault> {
    // One component has nobody to be linked to: what it imports is not asked before it is compiled, or found in the cache.
    if workload.components.len() < 2 {
        let pairs = workload.components.iter().zip(fetched);
        let compiles = pairs.map(|(component, fetched)| single(shared, component, fetched));
        return Ok(Roots {
            components: None,
            compiled: try_join_all(compiles).await?,
            apart: Vec::new(),
        });
    }
    let worlds = inspect(shared, workload, fetched).await?;
    let called: Vec<InterfaceId> = shared
        .plugins
        .iter()
        .flat_map(|plugin| plugin.world().exports)
        .collect();
    let host = Offers {
        base: &wasi::offers(),
        all: &shared.offers,
        called: &called,
    };
    let groups = plan(&workload.components, &worlds, &host)?;
    let default_memory = shared.engine.max_memory() as u64;
    let mut components = Vec::with_capacity(groups.len());
    let mut apart: Vec<Arc<[Apart]>> = Vec::with_capacity(groups.len());
    for group in &groups {
        let parts = group.granted(&workload.components, &worlds);
        let Some(whole) = grants::merge(&parts, default_memory)? else {
            continue;
        };
        components.push(whole.component);
        let own = whole.apart.iter();
        let own = own.filter_map(|&index| Some((index, parts.get(index)?)));
        // A part's place follows from the imports that are its own, which the whole is known by.
        let own = own.filter_map(|(index, part)| grants::own(index, part).transpose());
        apart.push(own.collect::<Result<_, Fault>>()?);
    }
    let compiles = groups.iter().zip(&apart);
    let compiles = compiles.map(|(group, apart)| whole(group, apart, shared, workload, fetched));
    Ok(Roots {
        components: Some(components),
        // All of them, although one has failed: what nobody waits for is given up.
        compiled: join_all(compiles)
            .await
            .into_iter()
            .collect::<Result<_, Fault>>()?,
        apart,
    })
}

/// Compiles a root with all that it needs.
async fn whole(
    group: &Group,
    apart: &[Apart],
    shared: &Shared,
    workload: &spec::Workload,
    fetched: &[Fetched],
) -> Result<Compiled, Fault> {
    let parts = || {
        let index = group.parts.iter();
        index.filter_map(|&index| Some((workload.components.get(index)?, fetched.get(index)?)))
    };
    if let ([_], Some((component, fetched))) = (group.parts.as_slice(), parts().next()) {
        return single(shared, component, fetched).await;
    }
    let composition = Composition {
        parts: parts().map(|(_, fetched)| fetched.clone()).collect(),
        wires: group.wires.clone(),
        own: apart.iter().flat_map(|part| part.imports.clone()).collect(),
    };
    let components: Vec<&spec::Component> = parts().map(|(component, _)| component).collect();
    // One with fuel and one without are refused.
    let compiled = if components.iter().any(|component| component.fuel.is_some()) {
        shared.engine.compose_metered(composition).await
    } else {
        shared.engine.compose(composition).await
    };
    compiled.map_err(|error| blame(&components, error))
}

async fn single(
    shared: &Shared,
    component: &spec::Component,
    fetched: &Fetched,
) -> Result<Compiled, Fault> {
    let compiled = match component.fuel {
        Some(_) => shared.engine.compile_metered(fetched).await,
        None => shared.engine.compile(fetched).await,
    };
    compiled.map_err(|error| error.fault(&component.name, &component.source))
}

async fn inspect(
    shared: &Shared,
    workload: &spec::Workload,
    fetched: &[Fetched],
) -> Result<Vec<World>, Fault> {
    let worlds = join_all(fetched.iter().map(|fetched| shared.engine.inspect(fetched))).await;
    let pairs = workload.components.iter().zip(worlds);
    pairs
        .map(|(component, world)| {
            world.map_err(|error| error.fault(&component.name, &component.source))
        })
        .collect()
}

/// Whose fault it is that a composition cannot be compiled; the root's, if nobody's in particular.
fn blame(parts: &[&spec::Component], error: CompileError) -> Fault {
    let part = |index: usize| parts.get(index).or(parts.first());
    let (index, error) = match error {
        CompileError::Part { index, error } => (index, *error),
        CompileError::Unfit {
            importer,
            exporter,
            import,
            export,
            why,
        } => {
            let by = part(exporter).map_or("", |component| &component.name);
            let what = format!(
                "imports {import}, and the {export} that component \"{by}\" exports is another one: {why}; \
                 build both against the same WIT"
            );
            let fault = part(importer)
                .map(|component| link::refused(component, Reason::ImportNotSatisfied, &what));
            return fault.unwrap_or_else(|| nobody(&what));
        }
        other => (0, other),
    };
    match part(index) {
        Some(component) => error.fault(&component.name, &component.source),
        None => nobody(&error.to_string()),
    }
}

/// A composition of nothing, which is never made.
fn nobody(what: &str) -> Fault {
    Fault::new(Stage::Link, Reason::HostError, what)
}
