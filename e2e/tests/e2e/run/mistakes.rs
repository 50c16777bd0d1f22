//! What is wrong is told with its place, and nothing is run.

use std::fs;

use anyhow::{Result, ensure};

use crate::{
    local::{ends, folder, path, wasm},
    stage::says,
};

/// A right file; each case below breaks one line of it. The line is given for the test's own sake.
const RIGHT: &str = "apiVersion: v1
kind: ConfigMap
metadata:
  name: map
---
apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: Workload
metadata:
  name: app
spec:
  components:
  - name: app
    image: file:./app.wasm
    requestTimeoutSeconds: 5
  hostInterfaces:
  - namespace: wasi
    package: http
    interfaces: [incoming-handler]
    configFrom: [{name: map}]
";

#[tokio::test]
async fn what_is_wrong_names_file_line_and_field() -> Result<()> {
    let cases: &[(&str, &str, u32, &[&str])] = &[
        (
            "    interfaces: [incoming-handler]",
            "    interfaces: [incoming-handler",
            19,
            &[],
        ),
        (
            "  components:",
            "  components: 5\n  more:",
            11,
            &["components"],
        ),
        (
            "Seconds: 5",
            "Seconds: soon",
            14,
            &["requestTimeoutSeconds"],
        ),
        ("Seconds: 5", "Seconds: -5", 14, &["requestTimeoutSeconds"]),
        (
            "requestTimeoutSeconds",
            "requestTimeout",
            14,
            &["requestTimeout"],
        ),
        (
            "file:./app.wasm",
            "file:./nope.wasm",
            13,
            &["image", "nope.wasm"],
        ),
        (
            "file:./app.wasm",
            "Not/An Image",
            13,
            &["image", "Not/An Image"],
        ),
        (
            "file:./app.wasm",
            "./app.wasm",
            13,
            &["image", "file:./app.wasm"],
        ),
        ("  name: app\n", "  labels: {}\n", 6, &["name"]),
        ("{name: map}", "{name: lost}", 19, &["configFrom", "lost"]),
        (
            "    package: http",
            "    package: 'h t'",
            17,
            &["package", "h t"],
        ),
        ("kind: Workload", "kin: Workload", 6, &["kind"]),
    ];
    let mut failed = Vec::new();
    for (right, wrong, line, parts) in cases {
        let dir = folder("run")?;
        fs::copy(wasm("v1"), dir.join("app.wasm"))?;
        let file = dir.join("bad.yaml");
        ensure!(RIGHT.contains(right), "{right}");
        fs::write(&file, RIGHT.replacen(right, wrong, 1))?;
        let (code, said) = ends(&["run", path(&file)?, "--http-listen=127.0.0.1:0"]).await?;
        let place = format!("{}:{line}:", file.display());
        let told = says(&said, &[&[place.as_str()], *parts].concat());
        if code != Some(1) || told.is_err() {
            failed.push(format!("`{wrong}`: exit code {code:?}, {told:?}: {said}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_named() -> Result<()> {
    let dir = folder("run")?;
    let missing = dir.join("missing.yaml");
    for (path, part) in [(path(&missing)?, "missing.yaml"), (path(&dir)?, ".yaml")] {
        let (code, said) = ends(&["run", path, "--http-listen=127.0.0.1:0"]).await?;
        ensure!(code == Some(1) && said.contains(part), "{code:?}: {said}");
    }
    Ok(())
}
