use tempfile::TempDir;

use super::*;

/// A folder with a component that nobody looks into.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "app.wasm", "");
    folder
}

fn write(folder: &TempDir, name: &str, text: &str) {
    fs::write(folder.path().join(name), text).unwrap();
}

/// A workload of one component, which has these lines too.
fn workload(name: &str, component: &str) -> String {
    format!(
        "apiVersion: runtime.wasmcloud.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  components:\n  \
         - name: app\n    image: file:./app.wasm\n{component}---\n"
    )
}

fn load_folder(folder: &TempDir) -> Result<Loaded, Rejected> {
    load(&[folder.path().to_owned()])
}

#[test]
fn nulls_are_as_good_as_nothing() {
    let folder = folder();
    let nulls = "    localResources:\n      allowedHosts:\n      # - example.com\n      config:\n      environment:\n        \
                 config:\n  volumes:\n  hostInterfaces:\n";
    write(&folder, "app.yaml", &workload("app", nulls));
    let loaded = load_folder(&folder).unwrap();
    assert_eq!(loaded.workloads.len(), 1);
    assert_eq!(
        loaded.workloads["default/app"].components[0].allowed_hosts,
        []
    );
}

#[test]
fn what_has_no_spec_is_what_the_api_server_makes_of_it() {
    let folder = folder();
    let head =
        "apiVersion: runtime.wasmcloud.dev/v1alpha1\nkind: Workload\nmetadata: {name: app}\n";
    for spec in ["", "spec:\n", "spec: {}\n"] {
        write(&folder, "app.yaml", &format!("{head}{spec}"));
        let loaded = load_folder(&folder).unwrap();
        assert!(loaded.workloads["default/app"].components.is_empty());
    }
    write(&folder, "app.yaml", &format!("{head}spec:\n  compnents:\n"));
    let error = load_folder(&folder).unwrap_err().error;
    assert_eq!(error.0[0].line, Some(5));
    assert!(error.to_string().contains("spec.compnents"), "{error}");
}
