//! Imports that one part does not share.

use wasmtime::{
    StoreContextMut,
    component::{Resource, ResourceType},
};

use super::*;

/// A component that exports `next` in interface `name`: the value of a thing that it has from `wasi:t/door`, and of what `import`
/// says, if there is any. Version and type of a thing are those of `wasi:t/types`.
fn opener(name: &str, minor: u32, import: Option<&str>) -> String {
    let (declared, given, added) = match import {
        None => (String::new(), "", "(i32.const 0)"),
        Some(import) => (
            format!(
                r#"(import "{import}" (instance $n (export "next" (func (result s32)))))
                (core func $more (canon lower (func $n "next")))"#
            ),
            r#"(export "more" (func $more))"#,
            "(call $more)",
        ),
    };
    let taken = import.map_or("", |_| r#"(import "h" "more" (func $more (result i32)))"#);
    format!(
        r#"(component
            (import "wasi:t/types@0.2.{minor}" (instance $types
                (export "thing" (type $thing (sub resource)))
                (export "value" (func (param "of" (borrow $thing)) (result s32)))))
            (alias export $types "thing" (type $thing))
            (import "wasi:t/door@0.2.{minor}" (instance $door
                (alias outer 1 $thing (type $outer))
                (export "thing" (type $thing (eq $outer)))
                (export "make" (func (result (own $thing))))))
            {declared}
            (core func $make (canon lower (func $door "make")))
            (core func $value (canon lower (func $types "value")))
            (core func $drop (canon resource.drop $thing))
            (core module $m
                (import "h" "make" (func $make (result i32)))
                (import "h" "value" (func $value (param i32) (result i32)))
                (import "h" "drop" (func $drop (param i32)))
                {taken}
                (func (export "next") (result i32) (local $thing i32) (local $value i32)
                    (local.set $thing (call $make))
                    (local.set $value (call $value (local.get $thing)))
                    (call $drop (local.get $thing))
                    (i32.add (local.get $value) {added})))
            (core instance $h (export "make" (func $make)) (export "value" (func $value))
                (export "drop" (func $drop)) {given})
            (core instance $c (instantiate $m (with "h" (instance $h))))
            (func $next (result s32) (canon lift (core func $c "next")))
            (instance $out (export "next" (func $next)))
            (export "{name}" (instance $out)))"#
    )
}

#[tokio::test]
async fn a_part_has_imports_of_its_own_and_shares_the_rest() {
    struct Thing;
    let engine = engine(None);
    // Versions differ, and the types are shared all the same.
    let composition = Composition {
        parts: vec![
            part(&opener("t:a/a", 3, Some("t:b/b"))),
            part(&opener("t:b/b", 1, Some("t:c/c"))),
            part(&opener("t:c/c", 1, None)),
        ],
        wires: vec![wire(0, "t:b/b", 1, "t:b/b"), wire(1, "t:c/c", 2, "t:c/c")],
        own: vec![own(1, "wasi:t/door@0.2.1")],
    };
    let whole = engine.compose(composition.clone()).await.unwrap();
    let mut imports = names(&whole.world.imports);
    imports.sort();
    let wanted = [
        "wasi-part1:t/door@0.2.1",
        "wasi:t/door@0.2.3",
        "wasi:t/types@0.2.3",
    ];
    assert_eq!(imports, wanted);

    let mut linker = engine.linker::<()>(whole.flavor);
    let mut types = linker.instance("wasi:t/types@0.2.3").unwrap();
    let thing = ResourceType::host::<Thing>();
    types.resource("thing", thing, |_, _| Ok(())).unwrap();
    let value =
        |_: StoreContextMut<'_, ()>, (thing,): (Resource<Thing>,)| Ok((thing.rep().cast_signed(),));
    types.func_wrap("value", value).unwrap();
    for (door, number) in [("wasi:t/door@0.2.3", 1), ("wasi-part1:t/door@0.2.1", 100)] {
        let mut door = linker.instance(door).unwrap();
        door.resource("thing", thing, |_, _| Ok(())).unwrap();
        let make =
            move |_: StoreContextMut<'_, ()>, (): ()| Ok((Resource::<Thing>::new_own(number),));
        door.func_wrap("make", make).unwrap();
    }
    assert_eq!(
        next_of(&engine, &linker, &whole, "t:a/a").await,
        1 + 100 + 1
    );

    // Who has no such import is told of, rather than given somebody else's.
    let wrong = Composition {
        own: vec![own(1, "wasi:t/door@0.2.3")],
        ..composition
    };
    let error = engine.compose(wrong).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no interface that this part imports"),
        "{error}"
    );
}

/// A component that exports `next` in interface `name`, which is what `next` of its second import says, the two being of one type;
/// and of the third, if there is one.
fn of_one_type(name: &str, first: &str, second: &str, third: Option<&str>) -> String {
    let (declared, added) = match third {
        None => (String::new(), "(i32.const 0)"),
        Some(third) => (
            format!(r#"(import "{third}" (instance $third (type $t)))"#),
            "(call $b)",
        ),
    };
    let b = third.map_or("second", |_| "third");
    format!(
        r#"(component
            (type $t (instance (export "next" (func (result s32)))))
            (import "{first}" (instance $first (type $t)))
            (import "{second}" (instance $second (type $t)))
            {declared}
            (core func $a (canon lower (func $second "next")))
            (core func $b (canon lower (func ${b} "next")))
            (core module $m
                (import "h" "a" (func $a (result i32))) (import "h" "b" (func $b (result i32)))
                (func (export "next") (result i32) (i32.add (call $a) {added})))
            (core instance $h (export "a" (func $a)) (export "b" (func $b)))
            (core instance $c (instantiate $m (with "h" (instance $h))))
            (func $next (result s32) (canon lift (core func $c "next")))
            (instance $out (export "next" (func $next)))
            (export "{name}" (instance $out)))"#
    )
}

#[tokio::test]
async fn imports_of_one_type_are_not_one_import() {
    let engine = engine(None);
    let composition = Composition {
        parts: vec![
            part(&of_one_type(
                "t:a/a",
                "wasi:t/door",
                "wasi:t/other",
                Some("t:b/b"),
            )),
            part(&of_one_type("t:b/b", "wasi:t/door", "wasi:t/other", None)),
        ],
        wires: vec![wire(0, "t:b/b", 1, "t:b/b")],
        own: vec![own(1, "wasi:t/door")],
    };
    let whole = engine.compose(composition).await.unwrap();
    let mut linker = engine.linker::<()>(whole.flavor);
    for (name, number) in [
        ("wasi:t/door", 1),
        ("wasi-part1:t/door", 10),
        ("wasi:t/other", 100),
    ] {
        let next = move |_: StoreContextMut<'_, ()>, (): ()| Ok((number,));
        let mut instance = linker.instance(name).unwrap();
        instance.func_wrap("next", next).unwrap();
    }
    // Neither part has the shared door in the place of its other import.
    assert_eq!(next_of(&engine, &linker, &whole, "t:a/a").await, 100 + 100);
}
