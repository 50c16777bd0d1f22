//! What a component's bytes and types say: whether they are one, which engine they need, what they import and export.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentDefinedType, ComponentType,
    ComponentTypeDeclaration, InstanceTypeDeclaration, Parser, Payload,
};
use wasmtime::component::Component;

use super::Flavor;
use crate::wit::{InterfaceId, World};

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preamble {
    /// A component.
    Component,
    /// A core module: `\0asm` and version 1.
    Module,
    /// No WebAssembly.
    Other,
}

/// Reads the preamble: four bytes of magic, two of version, two of layer (0 for a core module, 1 for a component).
pub(super) fn preamble(bytes: &[u8]) -> Preamble {
    match bytes.first_chunk::<8>() {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Preamble::Component,
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Preamble::Module,
        _ => Preamble::Other,
    }
}

/// The engine that a component needs. What cannot be parsed is left for Wasmtime to explain.
pub(super) fn flavor(bytes: &[u8]) -> Flavor {
    if needs_concurrency(bytes).unwrap_or(false) {
        Flavor::Concurrent
    } else {
        Flavor::Plain
    }
}

/// Whether anything in the component is asynchronous, or it imports from or exports to WASI 0.3, whose host functions are.
fn needs_concurrency(bytes: &[u8]) -> wasmparser::Result<bool> {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    if is_wasi_3(import?.name.name) {
                        return Ok(true);
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    if is_wasi_3(export?.name.name) {
                        return Ok(true);
                    }
                }
            }
            Payload::ComponentTypeSection(types) => {
                for ty in types {
                    if type_is_async(&ty?) {
                        return Ok(true);
                    }
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions {
                    if canonical_is_async(&function?) {
                        return Ok(true);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(false)
}

fn is_wasi_3(name: &str) -> bool {
    let Some((package, version)) = name.split_once('@') else {
        return false;
    };
    // What a part of a composition imports for itself is `wasi-part1:`; that somebody else's is taken for it costs little.
    let of_part = || {
        let rest = package.strip_prefix("wasi-part");
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    (package.starts_with("wasi:") || of_part())
        && !(version.starts_with("0.2.") || version.starts_with("0.1."))
}

fn type_is_async(ty: &ComponentType<'_>) -> bool {
    match ty {
        ComponentType::Func(function) => function.async_,
        ComponentType::Defined(ty) => matches!(
            ty,
            ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_)
        ),
        ComponentType::Component(declarations) => declarations
            .iter()
            .any(|d| matches!(d, ComponentTypeDeclaration::Type(ty) if type_is_async(ty))),
        ComponentType::Instance(declarations) => declarations
            .iter()
            .any(|d| matches!(d, InstanceTypeDeclaration::Type(ty) if type_is_async(ty))),
        ComponentType::Resource { .. } => false,
    }
}

fn canonical_is_async(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.iter().any(|option| {
                matches!(
                    option,
                    CanonicalOption::Async | CanonicalOption::Callback(_)
                )
            })
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        // Everything else came with concurrency.
        _ => true,
    }
}

/// Most imports, and most exports, of a component whose bytes are inspected: what is done with them may take their product,
/// and components of languages that import everything that there is have about fifty.
const MAX_NAMES: usize = 200;

/// The interfaces that a component's bytes say it imports and exports. The rest of the bytes is not looked at, and may be
/// broken.
///
/// # Errors
/// The text says what is wrong.
pub(super) fn names(bytes: &[u8]) -> Result<World, String> {
    let world = names_of(bytes).map_err(|error| error.to_string())?;
    match world.imports.len().max(world.exports.len()) {
        0..=MAX_NAMES => Ok(world),
        many => Err(format!(
            "it imports or exports {many} interfaces, more than the {MAX_NAMES} that components of one workload may"
        )),
    }
}

fn names_of(bytes: &[u8]) -> wasmparser::Result<World> {
    let mut world = World::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    world.imports.extend(import?.name.name.parse());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    world.exports.extend(export?.name.name.parse());
                }
            }
            _ => {}
        }
    }
    Ok(world)
}

/// The interfaces that a compiled component imports and exports, and the names that are none.
pub(super) fn world(component: &Component) -> (World, Vec<String>) {
    let ty = component.component_type();
    let mut bare = Vec::new();
    let mut ids = |names: Vec<&str>| -> Vec<InterfaceId> {
        let parsed = names
            .into_iter()
            .filter_map(|name| name.parse().map_err(|_| bare.push(name.to_owned())).ok());
        parsed.collect()
    };
    let world = World {
        imports: ids(ty
            .imports(component.engine())
            .map(|(name, _)| name)
            .collect()),
        exports: ids(ty
            .exports(component.engine())
            .map(|(name, _)| name)
            .collect()),
    };
    (world, bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preambles() {
        assert_eq!(preamble(b"\0asm\x0d\0\x01\0rest"), Preamble::Component);
        assert_eq!(preamble(b"\0asm\x01\0\0\0"), Preamble::Module);
        assert_eq!(preamble(b""), Preamble::Other);
        assert_eq!(preamble(b"#!/bin/sh"), Preamble::Other);
    }

    #[test]
    fn what_is_asynchronous_needs_the_concurrent_engine() {
        let cases = [
            ("(component)", Flavor::Plain),
            (
                r#"(component (import "wasi:io/poll@0.2.3" (instance)))"#,
                Flavor::Plain,
            ),
            (
                r#"(component (import "acme:a/b@0.3.0" (instance)))"#,
                Flavor::Plain,
            ),
            (
                r#"(component (import "wasi-part2:cli/environment@0.3.0" (instance)))"#,
                Flavor::Concurrent,
            ),
            (
                r#"(component (import "wasi:clocks/system-clock@0.3.0" (instance)))"#,
                Flavor::Concurrent,
            ),
            (
                r#"(component (import "f" (func async)))"#,
                Flavor::Concurrent,
            ),
            (
                r#"(component (type (instance (type (func async)))))"#,
                Flavor::Concurrent,
            ),
            (r#"(component (type (stream u8)))"#, Flavor::Concurrent),
            (
                r#"(component (component (type (stream u8))))"#,
                Flavor::Concurrent,
            ),
            (
                r#"(component (core func (canon backpressure.inc)))"#,
                Flavor::Concurrent,
            ),
        ];
        for (wat, wanted) in cases {
            assert_eq!(flavor(&wat::parse_str(wat).unwrap()), wanted, "{wat}");
        }
    }

    #[test]
    fn broken_bytes_are_wasmtimes_to_explain() {
        assert_eq!(flavor(b"\0asm\x0d\0\x01\0\xff\xff\xff"), Flavor::Plain);
    }
}
