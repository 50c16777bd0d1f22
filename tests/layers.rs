//! A module imports from lower layers only, and files stay short enough to read.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that looks where nothing is should fail"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers, lowest first. This table is the only statement of the rule.
const LAYERS: [&[&str]; 7] = [
    &["wit", "spec"],
    &["fault", "content", "trust"],
    &["oci", "engine"],
    &["source", "types"],
    &["plugin"],
    &["host"],
    &["washlet"],
];
/// Crates that only one module may name.
const KEPT_IN: [(&str, &[&str]); 5] = [
    ("kube", &["washlet"]),
    ("k8s_openapi", &["washlet"]),
    ("schemars", &["washlet"]),
    ("reqwest", &["oci"]),
    ("wasmtime", &["engine", "plugin", "host"]),
];
/// At this length a file is split; tests and tables excepted.
const MAX_LINES: usize = 600;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The module under `src/` that a file belongs to; none for `lib.rs` and the binary.
fn module(file: &Path) -> Option<String> {
    let relative = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("under src");
    let first = relative.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "bin")).then(|| name.to_owned())
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("src/{module} is in no layer; add it to the table"))
}

/// Names of modules in `use crate::…` and `crate::…` paths of code, nested groups included.
fn imported(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let text: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for (at, _) in text.match_indices("crate::") {
        // Not `wit_crate::` or `$crate::`.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            names.push(word);
        } else {
            names.push(rest.to_owned());
        }
    }
    let first_word = |n: String| {
        n.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    names
        .into_iter()
        .map(first_word)
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn modules_import_downwards() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut wrong = Vec::new();
    for file in files {
        let Some(module) = module(&file) else {
            continue;
        };
        let text = fs::read_to_string(&file).expect("readable");
        let own = layer(&module);
        for import in imported(&text) {
            if import != module && layer(&import) >= own {
                wrong.push(format!(
                    "{} (layer {own}) imports crate::{import}",
                    file.display()
                ));
            }
        }
        for (name, keepers) in KEPT_IN {
            let used = text
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .any(|l| {
                    l.match_indices(&format!("{name}::")).any(|(at, _)| {
                        !l[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    })
                });
            if used && !keepers.contains(&module.as_str()) {
                wrong.push(format!(
                    "{} names the crate {name}, which stays in {keepers:?}",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let long: Vec<String> = files
        .iter()
        .filter(|f| !f.ends_with("tests.rs"))
        .map(|f| (f, fs::read_to_string(f).expect("readable").lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(f, lines)| format!("{}: {lines} lines", f.display()))
        .collect();
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

#[test]
fn the_scan_sees_what_it_should() {
    let text = "use crate::{a::X, b::{c, d}, e};\nuse crate::f::G;\n// use crate::h;\nlet x = crate::i::j();";
    assert_eq!(imported(text), ["a", "b", "e", "f", "i"]);
}
