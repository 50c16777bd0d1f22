mod own;

use std::path::Path;

use wasmtime::component::Linker;

use super::*;
use crate::{
    content::Content,
    engine::{Compiled, Engine, Flavor},
    fault::{Class, Reason},
    spec::Source,
};

fn part(wat: &str) -> Fetched {
    Fetched::in_memory(wat::parse_str(wat).unwrap().into())
}

fn wire(importer: usize, import: &str, exporter: usize, export: &str) -> Wire {
    Wire {
        importer,
        import: import.parse().unwrap(),
        exporter,
        export: export.parse().unwrap(),
    }
}

fn own(part: usize, import: &str) -> OwnImport {
    let import = import.parse().unwrap();
    OwnImport {
        part,
        import,
        nth: 0,
    }
}

/// A component that exports `next: func() -> s32` in interface `name`: the sum of what its imports of the same kind say, and
/// `own`; it counts its own calls, and adds the count.
fn counter(name: &str, imports: &[&str], own: i32) -> String {
    let each = |text: fn(usize, &str) -> String| -> String {
        imports
            .iter()
            .enumerate()
            .map(|(i, n)| text(i, n))
            .collect()
    };
    let declared = each(|i, n| {
        format!(r#"(import "{n}" (instance $i{i} (export "next" (func (result s32)))))"#)
    });
    let lowered = each(|i, _| format!(r#"(core func $l{i} (canon lower (func $i{i} "next")))"#));
    let given = each(|i, _| format!(r#"(export "f{i}" (func $l{i}))"#));
    let taken = each(|i, _| format!(r#"(import "m" "f{i}" (func $f{i} (result i32)))"#));
    let called = each(|i, _| format!("(i32.add (call $f{i}))"));
    format!(
        r#"(component
            {declared} {lowered}
            (core module $m {taken}
                (global $calls (mut i32) (i32.const 0))
                (func (export "next") (result i32)
                    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                    (i32.add (global.get $calls) (i32.const {own}))
                    {called}))
            (core instance $g {given})
            (core instance $c (instantiate $m (with "m" (instance $g))))
            (func $next (result s32) (canon lift (core func $c "next")))
            (instance $out (export "next" (func $next)))
            (export "{name}" (instance $out)))"#
    )
}

fn engine(cache: Option<&Path>) -> Engine {
    let builder = Engine::builder().max_instances(8);
    match cache {
        Some(path) => builder.cache_dir(path.join("cache")).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

async fn compose(parts: Vec<Fetched>, wires: Vec<Wire>) -> Result<Compiled, CompileError> {
    engine(None)
        .compose(Composition {
            parts,
            wires,
            own: Vec::new(),
        })
        .await
}

/// Calls `next` of an exported interface, in an instance of its own.
async fn next(engine: &Engine, compiled: &Compiled, interface: &str) -> i32 {
    let linker = engine.linker::<()>(compiled.flavor);
    next_of(engine, &linker, compiled, interface).await
}

/// The same with what the host has.
async fn next_of(
    engine: &Engine,
    linker: &Linker<()>,
    compiled: &Compiled,
    interface: &str,
) -> i32 {
    let mut store = wasmtime::Store::new(engine.wasmtime(compiled.flavor), ());
    store.set_epoch_deadline(1000);
    let instance = linker
        .instantiate_async(&mut store, &compiled.component)
        .await
        .unwrap();
    let outer = instance
        .get_export_index(&mut store, None, interface)
        .unwrap();
    let inner = instance
        .get_export_index(&mut store, Some(&outer), "next")
        .unwrap();
    let function = instance
        .get_typed_func::<(), (i32,)>(&mut store, inner)
        .unwrap();
    function.call_async(&mut store, ()).await.unwrap().0
}

fn names(ids: &[InterfaceId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_chain_is_one_component_with_the_roots_exports() {
    let engine = engine(None);
    let composition = Composition {
        parts: vec![
            part(&counter("t:a/a", &["t:b/b"], 100)),
            part(&counter("t:b/b", &["t:c/c@0.2.1"], 20)),
            part(&counter("t:c/c@0.2.4", &[], 3)),
        ],
        wires: vec![
            wire(0, "t:b/b", 1, "t:b/b"),
            wire(1, "t:c/c@0.2.1", 2, "t:c/c@0.2.4"),
        ],
        own: Vec::new(),
    };
    let whole = engine.compose(composition).await.unwrap();
    assert_eq!(next(&engine, &whole, "t:a/a").await, 101 + 21 + 4);
    assert_eq!(names(&whole.world.exports), ["t:a/a"]);
    assert!(whole.world.imports.is_empty());
    assert_eq!(whole.flavor, Flavor::Plain);
}

#[tokio::test]
async fn a_part_that_two_others_use_is_one_instance() {
    let engine = engine(None);
    let composition = Composition {
        parts: vec![
            part(&counter("t:a/a", &["t:b/b", "t:c/c"], 0)),
            part(&counter("t:b/b", &["t:d/d"], 0)),
            part(&counter("t:c/c", &["t:d/d"], 0)),
            part(&counter("t:d/d", &[], 0)),
        ],
        wires: vec![
            wire(0, "t:b/b", 1, "t:b/b"),
            wire(0, "t:c/c", 2, "t:c/c"),
            wire(1, "t:d/d", 3, "t:d/d"),
            wire(2, "t:d/d", 3, "t:d/d"),
        ],
        own: Vec::new(),
    };
    let whole = engine.compose(composition).await.unwrap();
    // Each counts one call; d has two, and says 1 and 2.
    assert_eq!(next(&engine, &whole, "t:a/a").await, 1 + 1 + 1 + 1 + 2);
}

#[tokio::test]
async fn what_no_part_gives_is_imported_once() {
    let whole = compose(
        vec![
            part(&counter("t:a/a", &["t:b/b", "t:host/h@0.2.0"], 0)),
            part(&counter("t:b/b", &["t:host/h@0.2.3"], 0)),
        ],
        vec![wire(0, "t:b/b", 1, "t:b/b")],
    );
    assert_eq!(
        names(&whole.await.unwrap().world.imports),
        ["t:host/h@0.2.3"]
    );
}

#[tokio::test]
async fn what_is_asynchronous_gets_the_other_engine() {
    let front = r#"(component
        (import "t:b/b@0.3.0" (instance $b (export "next" (func async (result s32)))))
        (export "t:a/a@0.3.0" (instance $b)))"#;
    let back = r#"(component
        (core module $m (func (export "next") (result i32) i32.const 7))
        (core instance $c (instantiate $m))
        (type $t (func async (result s32)))
        (func $next (type $t) (canon lift (core func $c "next")))
        (instance $out (export "next" (func $next)))
        (export "t:b/b@0.3.0" (instance $out)))"#;
    let engine = engine(None);
    let composition = Composition {
        parts: vec![part(front), part(back)],
        wires: vec![wire(0, "t:b/b@0.3.0", 1, "t:b/b@0.3.0")],
        own: Vec::new(),
    };
    let whole = engine.compose(composition).await.unwrap();
    assert_eq!(whole.flavor, Flavor::Concurrent);
    assert_eq!(next(&engine, &whole, "t:a/a@0.3.0").await, 7);
}

#[tokio::test]
async fn the_cache_keeps_the_whole_by_its_parts_and_their_wires() {
    let directory = tempfile::tempdir().unwrap();
    let parts = vec![
        part(&counter("t:a/a", &["t:b/b"], 1)),
        part(&counter("t:b/b", &[], 1)),
    ];
    let wires = vec![wire(0, "t:b/b", 1, "t:b/b")];
    let composition = Composition {
        parts,
        wires,
        own: Vec::new(),
    };
    engine(Some(directory.path()))
        .compose(composition.clone())
        .await
        .unwrap();

    let unreadable = |mut composition: Composition| {
        for part in &mut composition.parts {
            part.content = Content::File("/nonexistent".into());
        }
        composition
    };
    let engine = engine(Some(directory.path()));
    let again = engine
        .compose(unreadable(composition.clone()))
        .await
        .unwrap();
    assert_eq!(next(&engine, &again, "t:a/a").await, 2 + 2);

    // Anything else is another component.
    let mut changed = vec![
        composition.clone(),
        composition.clone(),
        composition.clone(),
        composition.clone(),
    ];
    changed[0].parts[1] = part(&counter("t:b/b", &[], 2));
    changed[1].parts.reverse();
    changed[2].wires.clear();
    changed[3].own = vec![own(1, "t:b/b")];
    for other in changed {
        assert_ne!(other.digest(), composition.digest());
        let error = engine.compose(unreadable(other)).await.unwrap_err();
        assert_eq!(error.class(), Class::Retry, "it is read: {error}");
    }
}

#[tokio::test]
async fn the_same_parts_in_the_same_way_are_one_component_as_long_as_it_lives() {
    let engine = engine(None);
    let composition = Composition {
        parts: vec![
            part(&counter("t:a/a", &["t:b/b"], 1)),
            part(&counter("t:b/b", &[], 1)),
        ],
        wires: vec![wire(0, "t:b/b", 1, "t:b/b")],
        own: Vec::new(),
    };
    let (a, b) = tokio::join!(
        engine.compose(composition.clone()),
        engine.compose(composition)
    );
    assert!(std::ptr::eq(&*a.unwrap(), &*b.unwrap()));
}

#[tokio::test]
async fn who_is_at_fault_is_told() {
    let front = || part(&counter("t:a/a", &["t:b/b"], 0));
    let wires = || vec![wire(0, "t:b/b", 1, "t:b/b")];
    let cases = [
        (part("(module)"), Reason::NotAComponent, "core module"),
        (
            Fetched::in_memory(b"\0asm\x0d\0\x01\0\xff\xff".as_slice().into()),
            Reason::CompileFailed,
            "Wasmtime cannot compile it: ",
        ),
        // Another type of the same name; no such function; no such interface.
        (
            part(r#"(component (instance $e) (export "t:b/b" (instance $e)))"#),
            Reason::ImportNotSatisfied,
            "next",
        ),
        (
            part(
                r#"(component
                (core module $m (func (export "next") (result i64) i64.const 7))
                (core instance $c (instantiate $m))
                (func $next (result s64) (canon lift (core func $c "next")))
                (instance $out (export "next" (func $next)))
                (export "t:b/b" (instance $out)))"#,
            ),
            Reason::ImportNotSatisfied,
            "s64",
        ),
        (
            part(r#"(component (import "f" (func $f)) (export "t:b/b" (func $f)))"#),
            Reason::ImportNotSatisfied,
            "func",
        ),
        (part("(component)"), Reason::ImportNotSatisfied, "t:b/b"),
    ];
    for (back, reason, text) in cases {
        let error = compose(vec![front(), back], wires()).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.class()),
            (reason, Class::Terminal),
            "{error}"
        );
        let at_fault = match &error {
            CompileError::Part { index, .. } => (*index, *index),
            CompileError::Unfit {
                importer, exporter, ..
            } => (*importer, *exporter),
            other => panic!("{other}"),
        };
        let expected = match reason {
            Reason::ImportNotSatisfied => (0, 1),
            _ => (1, 1),
        };
        assert_eq!(at_fault, expected, "{error}");
        assert!(error.to_string().contains(text), "{text}: {error}");
    }
}

#[tokio::test]
async fn imports_that_no_host_can_give_to_both_are_refused() {
    let wants = |name: &str, import: &str, ty: &str| {
        part(&format!(
            r#"(component
                {import}
                (import "t:host/h" (instance (export "f" (func (result {ty})))))
                (instance $e) (export "{name}" (instance $e)))"#
        ))
    };
    let error = compose(
        vec![
            wants("t:a/a", r#"(import "t:b/b" (instance))"#, "s32"),
            wants("t:b/b", "", "string"),
        ],
        vec![wire(0, "t:b/b", 1, "t:b/b")],
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), Reason::ImportNotSatisfied);
    assert!(error.to_string().contains("t:host/h"), "{error}");
    let fault = error.fault(&"root".into(), &Source::default());
    assert_eq!(fault.stage, crate::fault::Stage::Link);
}

/// Lists in lists, many times over.
fn deep(name: &str, depth: usize) -> Fetched {
    let types: String = (1..depth)
        .map(|i| format!("(type $t{i} (list $t{}))", i - 1))
        .collect();
    part(&format!(
        r#"(component (type $t0 (list u8)) {types}
            (import "t:x/x" (instance $i (export "a" (func (param "p" $t{})))))
            (export "{name}" (instance $i)))"#,
        depth - 1
    ))
}

#[tokio::test]
async fn hostile_parts_are_an_error_and_nothing_worse() {
    let front = || part(&counter("t:a/a", &["t:b/b"], 0));
    let wires = || vec![wire(0, "t:b/b", 1, "t:b/b")];
    let error = compose(vec![front(), deep("t:b/b", 50_000)], wires()).await;
    assert!(error.unwrap_err().to_string().contains("too deep"));
    // A wiring that makes no sense, which nobody decides.
    let cycle = vec![wire(0, "t:b/b", 1, "t:b/b"), wire(1, "t:a/a", 0, "t:a/a")];
    let back = || part(&counter("t:b/b", &["t:a/a"], 0));
    for wires in [cycle, vec![wire(0, "t:b/b", 9, "t:b/b")]] {
        let error = compose(vec![front(), back()], wires).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ImportNotSatisfied, "{error}");
    }
    assert!(compose(Vec::new(), Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_panic_while_linking_is_an_error() {
    // The encoder looks for the resource among those of an interface with a name, and `x` is none.
    let odd = r#"(component
        (import "x" (instance $x (export "r" (type (sub resource)))))
        (alias export $x "r" (type $r))
        (import "y" (func (param "p" (own $r)))))"#;
    let error = compose(vec![part(odd), part("(component)")], Vec::new()).await;
    let error = error.unwrap_err();
    assert_eq!(error.reason(), Reason::ImportNotSatisfied);
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_component_of_too_many_interfaces_is_not_inspected() {
    let import = |i: usize| format!(r#"(import "t:x/x{i}" (instance))"#);
    let of = |count: usize| {
        let imports: String = (0..count).map(import).collect();
        wat::parse_str(format!("(component {imports})")).unwrap()
    };
    let names = crate::engine::inspect::names;
    assert_eq!(names(&of(200)).unwrap().imports.len(), 200);
    assert!(names(&of(201)).unwrap_err().contains("201"));
}
