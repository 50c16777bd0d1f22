//! Who imports from whom among the components of a workload, and which of them are there for the host: a pure decision on
//! names.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    super::{grants, link},
    nobody,
};
use crate::{
    engine::Wire,
    fault::{Fault, Reason},
    spec,
    wit::{InterfaceId, World},
};

/// What the host has for components.
pub(super) struct Offers<'a> {
    /// WASI's base, which siblings do not replace.
    pub base: &'a [InterfaceId],
    /// All that may be imported, the base included.
    pub all: &'a [InterfaceId],
    /// What the host calls on components.
    pub called: &'a [InterfaceId],
}

/// A root and all that it needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Indices of components in the workload, the root first.
    pub parts: Vec<usize>,
    /// Between these parts, by their indices in `parts`.
    pub wires: Vec<Wire>,
}

impl Group {
    /// Its parts, each with what it imports from the host rather than from another part.
    pub fn granted<'a>(
        &self,
        components: &'a [spec::Component],
        worlds: &[World],
    ) -> Vec<grants::Part<'a>> {
        let wires = self.wires.iter();
        let wired: BTreeSet<(usize, &InterfaceId)> =
            wires.map(|wire| (wire.importer, &wire.import)).collect();
        let parts = self.parts.iter().enumerate();
        let granted = parts.filter_map(|(part, &index)| {
            let imports = worlds.get(index)?.imports.iter();
            Some(grants::Part {
                component: components.get(index)?,
                imports: imports
                    .filter(|import| !wired.contains(&(part, *import)))
                    .cloned()
                    .collect(),
            })
        });
        granted.collect()
    }
}

/// Decides who imports from whom, and which components are roots.
pub(super) fn plan(
    components: &[spec::Component],
    worlds: &[World],
    host: &Offers<'_>,
) -> Result<Vec<Group>, Fault> {
    let exporters = Exporters::of(worlds);
    let mut wires = Vec::new();
    for (importer, (component, world)) in components.iter().zip(worlds).enumerate() {
        let mut missing = Vec::new();
        for import in &world.imports {
            let siblings = || exporters.beside(importer, import);
            match provider(import, siblings, host) {
                Provider::Host => {}
                Provider::Sibling(exporter, export) => wires.push(Wire {
                    importer,
                    import: import.clone(),
                    exporter,
                    export: export.clone(),
                }),
                Provider::Several(able) => {
                    return Err(ambiguous(component, import, components, &able));
                }
                Provider::Nobody => missing.push(import),
            }
        }
        if !missing.is_empty() {
            let siblings = components.iter().zip(worlds).enumerate();
            let siblings = siblings
                .filter(|(index, _)| *index != importer)
                .map(|(_, (component, world))| (&*component.name, &world.exports));
            return Err(link::unmet(component, &missing, host.all, siblings));
        }
    }
    wires.sort();
    for start in 0..components.len() {
        if let Some(cycle) = cycle_from(start, &wires) {
            return Err(cyclic(components, &wires, &cycle));
        }
    }
    let roots = (0..worlds.len()).filter(|&index| is_root(index, worlds, &wires, host));
    Ok(roots.map(|root| group(root, &wires)).collect())
}

/// An export, and the component that it is of.
type Export<'a> = (usize, &'a InterfaceId);

/// The exports of all components, by name without version: a component may have hundreds, and each import asks.
struct Exporters<'a>(BTreeMap<[&'a str; 3], Vec<Export<'a>>>);

impl<'a> Exporters<'a> {
    fn of(worlds: &'a [World]) -> Self {
        let mut by_name: BTreeMap<_, Vec<Export<'a>>> = BTreeMap::new();
        for (index, world) in worlds.iter().enumerate() {
            for export in &world.exports {
                by_name
                    .entry(name(export))
                    .or_default()
                    .push((index, export));
            }
        }
        Self(by_name)
    }

    /// What others than the importer export by this name.
    fn beside<'b>(
        &'b self,
        importer: usize,
        import: &'b InterfaceId,
    ) -> impl Iterator<Item = Export<'a>> + 'b {
        let named = self.0.get(&name(import)).into_iter().flatten();
        named.copied().filter(move |(index, _)| *index != importer)
    }
}

fn name(id: &InterfaceId) -> [&str; 3] {
    [&id.namespace, &id.package, &id.interface]
}

enum Provider<'a> {
    Host,
    Sibling(usize, &'a InterfaceId),
    Several(Vec<Export<'a>>),
    Nobody,
}

/// Who gives an import to a component: the sibling that exports it in this very version, else the one that has it in a
/// version that serves, else the host.
fn provider<'a, S: Iterator<Item = Export<'a>>>(
    import: &InterfaceId,
    siblings: impl Fn() -> S,
    host: &Offers<'_>,
) -> Provider<'a> {
    if host.base.iter().any(|offer| import.served_by(offer)) {
        return Provider::Host;
    }
    let mut able: Vec<Export<'a>> = siblings().filter(|(_, id)| *id == import).collect();
    if able.is_empty() {
        able = siblings().filter(|(_, id)| import.served_by(id)).collect();
        // Of several versions that one component has, the newest.
        able.sort_by_key(|(index, id)| (*index, Reverse(*id)));
        able.dedup_by_key(|(index, _)| *index);
    }
    match able.as_slice() {
        [] if host.all.iter().any(|offer| import.served_by(offer)) => Provider::Host,
        [] => Provider::Nobody,
        [(exporter, export)] => Provider::Sibling(*exporter, export),
        _ => Provider::Several(able),
    }
}

/// Several siblings export what a component imports, and nothing says which of them is meant.
fn ambiguous(
    component: &spec::Component,
    import: &InterfaceId,
    components: &[spec::Component],
    able: &[Export<'_>],
) -> Fault {
    let exports = able.iter().map(|(index, id)| {
        let name = components.get(*index).map_or("", |c| &c.name);
        format!("component \"{name}\" ({id})")
    });
    let exports: Vec<String> = exports.collect();
    let what = format!(
        "imports {import}, which more than one other component exports: {}; keep one of them, or give them versions that do \
         not serve each other",
        exports.join(", ")
    );
    link::refused(component, Reason::ImportNotSatisfied, &what)
}

/// The components that one imports from, each once.
fn needs(importer: usize, wires: &[Wire]) -> BTreeSet<usize> {
    let own = wires.iter().filter(|wire| wire.importer == importer);
    own.map(|wire| wire.exporter).collect()
}

/// A way from a component back to itself, if there is one.
fn cycle_from(start: usize, wires: &[Wire]) -> Option<Vec<usize>> {
    let mut seen = BTreeSet::new();
    let mut ways: Vec<Vec<usize>> = vec![vec![start]];
    while let Some(way) = ways.pop() {
        for next in needs(*way.last()?, wires) {
            let longer: Vec<usize> = way.iter().copied().chain([next]).collect();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push(longer);
            }
        }
    }
    None
}

fn cyclic(components: &[spec::Component], wires: &[Wire], cycle: &[usize]) -> Fault {
    let named = |index: &usize| components.get(*index).map_or("", |c| &c.name);
    let way: Vec<&str> = cycle.iter().map(named).collect();
    let through: Vec<String> = cycle
        .windows(2)
        .filter_map(|pair| {
            let [importer, exporter] = *pair else {
                return None;
            };
            let wire = wires
                .iter()
                .find(|w| w.importer == importer && w.exporter == exporter)?;
            Some(wire.import.to_string())
        })
        .collect();
    let what = format!(
        "is part of a cycle of imports, {} (by {}), and one of them would have to be there before the other; \
         move what they share into a component of its own",
        way.join(" → "),
        through.join(", ")
    );
    match cycle.first().and_then(|&index| components.get(index)) {
        Some(component) => link::refused(component, Reason::ImportNotSatisfied, &what),
        None => nobody(&what),
    }
}

/// Whether a component is there for the host rather than for its siblings alone.
fn is_root(index: usize, worlds: &[World], wires: &[Wire], host: &Offers<'_>) -> bool {
    let taken = |id: &InterfaceId| {
        let mut of_it = wires.iter().filter(|wire| wire.exporter == index);
        of_it.any(|wire| wire.export == *id)
    };
    let called = |id: &InterfaceId| {
        let is_run = id.namespace == "wasi" && id.package == "cli" && id.interface == "run";
        is_run || host.called.iter().any(|called| id.served_by(called))
    };
    let exports = worlds.get(index).map_or(&[][..], |world| &world.exports);
    !wires.iter().any(|wire| wire.exporter == index)
        || exports.iter().any(|id| called(id) && !taken(id))
}

/// A root with all that it needs, and the wires between them.
fn group(root: usize, wires: &[Wire]) -> Group {
    let mut parts = vec![root];
    let mut next = 0;
    while let Some(&part) = parts.get(next) {
        let new = needs(part, wires).into_iter();
        let new: Vec<usize> = new.filter(|index| !parts.contains(index)).collect();
        parts.extend(new);
        next += 1;
    }
    let at = |index: usize| parts.iter().position(|part| *part == index);
    let mut own: Vec<Wire> = wires
        .iter()
        .filter_map(|wire| {
            Some(Wire {
                importer: at(wire.importer)?,
                exporter: at(wire.exporter)?,
                ..wire.clone()
            })
        })
        .collect();
    own.sort();
    Group { parts, wires: own }
}
