//! Several components into one: a component that contains them, instantiates them from the last to the first, and hands the
//! exports of one to the imports of another. What no other component gives is an import of the whole, once for each name; but
//! a part may have imports of its own, which the whole imports once more, so that the host can tell who calls.
//!
//! Not here: who gives what to whom. That is decided by whoever asks, and must have no cycle.

#[cfg(test)]
mod tests;

use std::panic::{self, AssertUnwindSafe};

use sha2::{Digest as _, Sha256};
use wac_graph::{
    CompositionGraph, EncodeError, EncodeOptions, NodeId, PackageId,
    types::{InterfaceId as InstanceType, ItemKind, Package},
};

use super::compile::{CompileError, component_bytes};
use crate::{content::Fetched, spec::Digest, wit::InterfaceId};

/// Counts up when the same parts give other bytes than before, so that what is cached of then is not used.
const SCHEME: &str = "washlet composition 3";

/// Components that are linked to each other. The first one is the root, whose exports are those of the whole.
#[derive(Debug, Clone)]
pub struct Composition {
    /// The components; each is instantiated once.
    pub parts: Vec<Fetched>,
    /// Who gives what to whom.
    pub wires: Vec<Wire>,
    /// What is not shared of the rest.
    pub own: Vec<OwnImport>,
}

/// An import of one part that it does not share with the others that have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnImport {
    /// The part, by its index.
    pub part: usize,
    /// What it imports, by the name that its bytes say.
    pub import: InterfaceId,
    /// How many of the same name, in other versions, the part has before this one.
    pub nth: usize,
}

impl OwnImport {
    /// The name under which the whole imports it, which no other part has, nor this one for another version:
    /// `wasi-part2:cli/environment@0.2.0`, `wasi-part2-n1:cli/environment@0.2.3`.
    #[must_use]
    pub fn name(&self) -> InterfaceId {
        let Self { part, import, nth } = self;
        let nth = match nth {
            0 => String::new(),
            nth => format!("-n{nth}"),
        };
        InterfaceId {
            namespace: format!("{}-part{part}{nth}", import.namespace),
            ..import.clone()
        }
    }
}

/// An import of one part that is an export of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wire {
    /// The part that imports, by its index.
    pub importer: usize,
    /// The name of the import.
    pub import: InterfaceId,
    /// The part that exports, by its index.
    pub exporter: usize,
    /// The name of the export; its version may be another than the import's.
    pub export: InterfaceId,
}

impl Composition {
    /// What the cache knows the whole by: all that its bytes depend on.
    pub(super) fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(SCHEME);
        for part in &self.parts {
            hash.update("\n");
            hash.update(part.digest.as_str());
        }
        for wire in &self.wires {
            let Wire {
                importer,
                import,
                exporter,
                export,
            } = wire;
            hash.update(format!("\n{importer} {import} {exporter} {export}"));
        }
        for OwnImport { part, import, nth } in &self.own {
            hash.update(format!("\n{part} {import} {nth}"));
        }
        Digest::from_hash(&hash.finalize())
    }

    /// The bytes of the whole.
    ///
    /// # Errors
    /// [`CompileError::Part`], [`CompileError::Unfit`], [`CompileError::Uncomposable`].
    pub(super) fn bytes(&self) -> Result<Vec<u8>, CompileError> {
        // The parts are somebody else's bytes, and a few of the encoder's own checks are assertions.
        panic::catch_unwind(AssertUnwindSafe(|| self.encode())).unwrap_or_else(|_| {
            Err(CompileError::Uncomposable(
                "the encoder of compositions panicked".to_owned(),
            ))
        })
    }

    fn encode(&self) -> Result<Vec<u8>, CompileError> {
        let mut graph = CompositionGraph::new();
        let mut instances = Vec::with_capacity(self.parts.len());
        for index in 0..self.parts.len() {
            instances.push(self.instantiate(&mut graph, index)?);
        }
        for own in &self.own {
            keep_apart(&mut graph, &instances, own)?;
        }
        for wire in &self.wires {
            self.connect(&mut graph, &instances, wire)?;
        }
        export_all(&mut graph, instances.first().copied())
            .map_err(|error| CompileError::Uncomposable(chain(&*error)))?;
        let options = EncodeOptions {
            define_components: true,
            // Wasmtime does that when it compiles the whole.
            validate: false,
            processor: None,
        };
        graph
            .encode(options)
            .map_err(|error| CompileError::Uncomposable(explain(error)))
    }

    fn instantiate(
        &self,
        graph: &mut CompositionGraph,
        index: usize,
    ) -> Result<NodeId, CompileError> {
        let in_part = |error| CompileError::Part {
            index,
            error: Box::new(error),
        };
        let part = self.part(index)?;
        let bytes = component_bytes(&part.content).map_err(in_part)?;
        let package = Package::from_bytes(
            &format!("washlet:part-{index}"),
            None,
            bytes.to_vec(),
            graph.types_mut(),
        )
        .map_err(|error| in_part(CompileError::Refused(format!("{error:#}"))))?;
        let package = graph
            .register_package(package)
            .map_err(|error| CompileError::Uncomposable(chain(&error)))?;
        name_imports(graph, package);
        Ok(graph.instantiate(package))
    }

    fn part(&self, index: usize) -> Result<&Fetched, CompileError> {
        self.parts
            .get(index)
            .ok_or_else(|| CompileError::Uncomposable(format!("there is no part {index}")))
    }

    fn connect(
        &self,
        graph: &mut CompositionGraph,
        instances: &[NodeId],
        wire: &Wire,
    ) -> Result<(), CompileError> {
        let instance = |index: usize| {
            instances
                .get(index)
                .copied()
                .ok_or_else(|| CompileError::Uncomposable(format!("there is no part {index}")))
        };
        let unfit = |why| CompileError::Unfit {
            importer: wire.importer,
            exporter: wire.exporter,
            import: wire.import.to_string(),
            export: wire.export.to_string(),
            why,
        };
        let export = graph
            .alias_instance_export(instance(wire.exporter)?, &wire.export.to_string())
            .map_err(|error| unfit(chain(&error)))?;
        graph
            .set_instantiation_argument(instance(wire.importer)?, &wire.import.to_string(), export)
            .map_err(|error| unfit(chain(&error)))
    }
}

/// Gives each interface that a part imports a type of its name. The graph takes what has one type for one thing, by the name of
/// the first of them; but two imports may have one type, and are not the same for that.
fn name_imports(graph: &mut CompositionGraph, package: PackageId) {
    let world = graph[package].ty();
    let types = graph.types_mut();
    let mut misnamed = Vec::new();
    for (index, (name, kind)) in types[world].imports.iter().enumerate() {
        let id = name.parse::<InterfaceId>().is_ok().then(|| name.clone());
        if let ItemKind::Instance(ty) = kind
            && types[*ty].id != id
        {
            misnamed.push((index, *ty, id));
        }
    }
    for (index, ty, id) in misnamed {
        let mut interface = types[ty].clone();
        interface.id = id;
        let ty = types.add_interface(interface);
        if let Some((_, kind)) = types[world].imports.get_index_mut(index) {
            *kind = ItemKind::Instance(ty);
        }
    }
}

/// Makes an import of one part an import of the whole, beside what the others share.
fn keep_apart(
    graph: &mut CompositionGraph,
    instances: &[NodeId],
    own: &OwnImport,
) -> Result<(), CompileError> {
    let in_part = |why: &str| CompileError::Part {
        index: own.part,
        error: Box::new(CompileError::Uncomposable(format!("{}: {why}", own.import))),
    };
    let import = own.import.to_string();
    let instance = instances.get(own.part).copied();
    let package = instance.and_then(|instance| graph[instance].package());
    let ty = package.and_then(|package| {
        let world = graph[package].ty();
        graph.types()[world].imports.get(&import).copied()
    });
    let (Some(instance), Some(ItemKind::Instance(ty))) = (instance, ty) else {
        return Err(in_part("it is no interface that this part imports"));
    };
    // Interfaces of one name are one import, so this one has none.
    let mut interface = graph.types()[ty].clone();
    interface.id = None;
    let ty = graph.types_mut().add_interface(interface);
    let node = graph
        .import(own.name().to_string(), ItemKind::Instance(ty))
        .map_err(|error| in_part(&chain(&error)))?;
    graph
        .set_instantiation_argument(instance, &import, node)
        .map_err(|error| in_part(&chain(&error)))
}

/// All that the root exports is exported by the whole.
fn export_all(
    graph: &mut CompositionGraph,
    root: Option<NodeId>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = root.ok_or("there is no root")?;
    let names: Vec<String> = match graph[root].item_kind() {
        ItemKind::Instance(id) => exports_of(graph, id),
        _ => Vec::new(),
    };
    for name in names {
        let export = graph.alias_instance_export(root, &name)?;
        graph.export(export, &name)?;
    }
    Ok(())
}

fn exports_of(graph: &CompositionGraph, id: InstanceType) -> Vec<String> {
    graph.types()[id].exports.keys().cloned().collect()
}

/// An error with its causes, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// The same; that two parts want different things of one import is said in the words of a workload's owner.
fn explain(error: EncodeError) -> String {
    match error {
        EncodeError::ImportTypeMergeConflict { import, source, .. } => format!(
            "two of them import {import}, each with other types, so that no host can give it to both: {source:#}; \
             build them against the same version of it"
        ),
        error => chain(&error),
    }
}
