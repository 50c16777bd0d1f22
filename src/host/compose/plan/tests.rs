use super::*;
use crate::{fault::Stage, plugin::testing};

fn ids(names: &[&str]) -> Vec<InterfaceId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Components by name, imports and exports.
type Named<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

fn components(named: &[Named<'_>]) -> Vec<spec::Component> {
    let named = named.iter().map(|(name, ..)| spec::Component {
        name: (*name).into(),
        ..testing::workload("test").components[0].clone()
    });
    named.collect()
}

fn worlds(named: &[Named<'_>]) -> Vec<World> {
    let named = named.iter().map(|(_, imports, exports)| World {
        imports: ids(imports),
        exports: ids(exports),
    });
    named.collect()
}

/// The plan for these components on a host that offers `wasi:io`, which is its base, and `acme:host/api@1.2.0`.
fn planned(named: &[Named<'_>]) -> Result<Vec<Group>, Fault> {
    let host = Offers {
        base: &ids(&["wasi:io/poll@0.2.12"]),
        all: &ids(&["acme:host/api@1.2.0", "wasi:io/poll@0.2.12"]),
        called: &ids(&["wasi:http/incoming-handler@0.2.12"]),
    };
    plan(&components(named), &worlds(named), &host)
}

const HANDLER: &str = "wasi:http/incoming-handler@0.2.3";

/// Groups as text: parts by name, then wires.
fn told(named: &[Named<'_>]) -> Vec<String> {
    let tell = |group: Group| {
        let name = |index: usize| named[group.parts[index]].0;
        let parts: Vec<&str> = (0..group.parts.len()).map(name).collect();
        let wires = group.wires.iter().map(|wire| {
            let (from, to) = (name(wire.importer), name(wire.exporter));
            format!(" {from}.{}={to}.{}", wire.import, wire.export)
        });
        format!("{}:{}", parts.join("+"), wires.collect::<String>())
    };
    planned(named).unwrap().into_iter().map(tell).collect()
}

#[test]
fn chains_and_diamonds_are_one_with_each_part_once() {
    let chain: &[Named<'_>] = &[
        ("c", &[], &["t:c/c"]),
        ("a", &["t:b/b"], &[HANDLER]),
        ("b", &["t:c/c"], &["t:b/b"]),
    ];
    assert_eq!(told(chain), ["a+b+c: a.t:b/b=b.t:b/b b.t:c/c=c.t:c/c"]);
    let diamond: &[Named<'_>] = &[
        ("a", &["t:b/b", "t:c/c"], &[HANDLER]),
        ("b", &["t:d/d"], &["t:b/b"]),
        ("c", &["t:d/d"], &["t:c/c"]),
        ("d", &[], &["t:d/d"]),
    ];
    assert_eq!(
        told(diamond),
        ["a+b+c+d: a.t:b/b=b.t:b/b a.t:c/c=c.t:c/c b.t:d/d=d.t:d/d c.t:d/d=d.t:d/d"]
    );
}

#[test]
fn several_interfaces_of_one_component_are_several_wires() {
    let parts: &[Named<'_>] = &[
        ("a", &["t:b/one", "t:b/two@1.0.0"], &[HANDLER]),
        ("b", &[], &["t:b/one", "t:b/two@1.3.0", "t:b/three"]),
    ];
    assert_eq!(
        told(parts),
        ["a+b: a.t:b/one=b.t:b/one a.t:b/two@1.0.0=b.t:b/two@1.3.0"]
    );
}

#[test]
fn who_is_called_by_the_host_or_imported_by_nobody_is_a_root() {
    let two: &[Named<'_>] = &[
        ("web", &["t:lib/lib"], &[HANDLER]),
        ("job", &["t:lib/lib"], &["wasi:cli/run@0.2.0"]),
        ("lib", &[], &["t:lib/lib"]),
        ("alone", &[], &["t:other/x"]),
    ];
    assert_eq!(
        told(two),
        [
            "web+lib: web.t:lib/lib=lib.t:lib/lib",
            "job+lib: job.t:lib/lib=lib.t:lib/lib",
            "alone:"
        ]
    );
    // A handler that is imported is that sibling's, unless the component exports another one.
    let middleware: &[Named<'_>] = &[("app", &[], &[HANDLER]), ("auth", &[HANDLER], &[HANDLER])];
    assert_eq!(
        told(middleware),
        [format!("auth+app: auth.{HANDLER}=app.{HANDLER}")]
    );
    let both: &[Named<'_>] = &[
        ("app", &[], &[HANDLER, "t:lib/lib"]),
        ("web", &["t:lib/lib"], &[HANDLER]),
    ];
    assert_eq!(told(both), ["app:", "web+app: web.t:lib/lib=app.t:lib/lib"]);
}

#[test]
fn a_sibling_is_before_a_plugin_and_behind_the_base() {
    let parts: &[Named<'_>] = &[
        ("a", &["acme:host/api@1.0.0", "wasi:io/poll@0.2.0"], &[]),
        ("b", &[], &["acme:host/api@1.1.0", "wasi:io/poll@0.2.0"]),
    ];
    assert_eq!(
        told(parts),
        ["a+b: a.acme:host/api@1.0.0=b.acme:host/api@1.1.0"]
    );
    // What a component exports itself it does not import from itself.
    let own: &[Named<'_>] = &[
        ("a", &["acme:host/api@1.0.0"], &["acme:host/api@1.0.0"]),
        ("b", &[], &[]),
    ];
    assert_eq!(told(own), ["a:", "b:"]);
}

#[test]
fn the_very_version_is_before_a_newer_one() {
    let parts: &[Named<'_>] = &[
        ("a", &["t:b/b@0.2.1"], &[]),
        ("new", &[], &["t:b/b@0.2.7"]),
        ("old", &[], &["t:b/b@0.2.1"]),
        ("other", &[], &["t:b/b@0.3.0"]),
    ];
    assert_eq!(
        told(parts),
        ["a+old: a.t:b/b@0.2.1=old.t:b/b@0.2.1", "new:", "other:"]
    );
    let two_of_one: &[Named<'_>] = &[
        ("a", &["t:b/b@0.2.1"], &[]),
        ("b", &[], &["t:b/b@0.2.2", "t:b/b@0.2.7", "t:b/b@0.2.3"]),
    ];
    assert_eq!(told(two_of_one), ["a+b: a.t:b/b@0.2.1=b.t:b/b@0.2.7"]);
}

#[test]
fn what_cannot_be_linked_is_explained() {
    let cases: [(&[Named<'_>], &str, &[&str]); 6] = [
        (
            &[
                ("x", &["t:a/a"], &[HANDLER]),
                ("a", &["t:b/b"], &["t:a/a"]),
                ("b", &["t:c/c@1.0.0"], &["t:b/b"]),
                ("c", &["t:a/a"], &["t:c/c@1.0.0"]),
            ],
            "a",
            &["a → b → c → a", "t:b/b, t:c/c@1.0.0, t:a/a"],
        ),
        (
            &[
                ("a", &["t:b/b@0.2.1"], &[HANDLER]),
                ("b", &[], &["t:b/b@0.2.3"]),
                ("c", &[], &["t:b/b@0.2.4"]),
            ],
            "a",
            &[
                "t:b/b@0.2.1",
                "\"b\" (t:b/b@0.2.3), component \"c\" (t:b/b@0.2.4)",
            ],
        ),
        (
            &[
                ("a", &[], &[HANDLER]),
                ("b", &["acme:host/api@1.0.0"], &[]),
                ("c", &[], &["acme:host/api@1.0.0"]),
                ("d", &[], &["acme:host/api@1.0.0"]),
            ],
            "b",
            &["acme:host/api@1.0.0, which more than one", "\"c\"", "\"d\""],
        ),
        (
            &[
                ("a", &["t:b/b@0.3.0"], &[HANDLER]),
                ("b", &[], &["t:b/b@0.2.3"]),
            ],
            "a",
            &["t:b/b@0.3.0 (the nearest offer is t:b/b@0.2.3, which component \"b\" exports)"],
        ),
        (
            &[("a", &["acme:host/api@2.0.0"], &[HANDLER]), ("b", &[], &[])],
            "a",
            &["acme:host/api@2.0.0 (the nearest offer is acme:host/api@1.2.0)"],
        ),
        (
            &[("a", &[], &[HANDLER]), ("b", &["t:x/x", "t:y/y"], &[])],
            "b",
            &[
                "t:x/x (the host and the other components offer nothing of t:x)",
                "t:y/y",
            ],
        ),
    ];
    for (parts, component, texts) in cases {
        let fault = planned(parts).unwrap_err();
        assert_eq!(fault.component.as_deref(), Some(component), "{fault}");
        assert_eq!(
            (fault.stage, fault.reason),
            (Stage::Link, Reason::ImportNotSatisfied)
        );
        assert!(
            fault
                .message
                .contains(&format!("component \"{component}\""))
        );
        for text in texts {
            assert!(fault.message.contains(text), "{text}: {fault}");
        }
    }
}

#[test]
fn imports_of_siblings_are_not_imports_of_the_host() {
    let parts: &[Named<'_>] = &[
        ("b", &["acme:host/api@1.0.0"], &["acme:host/api@1.0.0"]),
        ("a", &["acme:host/api@1.0.0", "wasi:io/poll@0.2.0"], &[]),
    ];
    let groups = planned(parts).unwrap();
    let components = components(parts);
    let granted = groups[0].granted(&components, &worlds(parts));
    let told: Vec<_> = granted
        .iter()
        .map(|part| (&*part.component.name, part.imports.clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("a", ids(&["wasi:io/poll@0.2.0"])),
            ("b", ids(&["acme:host/api@1.0.0"]))
        ]
    );
}
