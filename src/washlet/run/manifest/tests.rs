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
    load(&[folder.path().to_owned()], &Before::default())
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

/// Reads the folder again, when it was `last`.
fn again(folder: &TempDir, last: &Loaded, being_written: &[PathBuf]) -> Result<Loaded, Rejected> {
    let being_written = being_written.iter().cloned().collect();
    load(&[folder.path().to_owned()], &last.before(being_written))
}

/// A folder with `a.yaml` and `b.yaml`, each with the workload of this name.
fn two_files() -> (TempDir, Loaded) {
    let folder = folder();
    write(&folder, "a.yaml", &workload("a", ""));
    write(&folder, "b.yaml", &workload("b", ""));
    let loaded = load_folder(&folder).unwrap();
    (folder, loaded)
}

fn ids(loaded: &Loaded) -> Vec<&str> {
    let mut ids: Vec<&str> = loaded.workloads.keys().map(AsRef::as_ref).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_file_that_has_become_empty_is_a_problem() {
    let (folder, last) = two_files();
    for text in ["", "\n---\n# nothing yet\n"] {
        write(&folder, "b.yaml", text);
        let error = again(&folder, &last, &[]).unwrap_err().error.to_string();
        assert!(error.contains("b.yaml: empty now"), "{error}");
        // One that always was is none.
        assert_eq!(ids(&load_folder(&folder).unwrap()), ["default/a"]);
    }
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    let mut now = again(&folder, &last, &[]).unwrap();
    assert!(!now.hold(&last), "its workload goes with it");
    assert_eq!(ids(&now), ["default/a"]);
}

#[test]
fn a_file_that_is_being_written_is_a_problem_and_the_only_one() {
    let (folder, _) = two_files();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\n";
    let from = "    localResources: {environment: {configFrom: [{name: words}]}}\n";
    write(&folder, "a.yaml", &workload("a", from));
    write(&folder, "b.yaml", config);
    let last = load_folder(&folder).unwrap();
    let file = folder.path().canonicalize().unwrap().join("b.yaml");
    let rejected = again(&folder, &last, &[file]).unwrap_err();
    let error = rejected.error.to_string();
    assert!(error.contains("b.yaml: still open for writing"), "{error}");
    assert_eq!(rejected.error.0.len(), 1, "{error}");
}

#[test]
fn a_link_to_nothing_is_a_problem_and_a_lock_of_emacs_is_none() {
    let (folder, last) = two_files();
    let link = |name: &str, to: &str| {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    };
    link(".#a.yaml", "somebody@host.1");
    assert_eq!(ids(&again(&folder, &last, &[]).unwrap()).len(), 2);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    link("b.yaml", "gone.yaml");
    let rejected = again(&folder, &last, &[]).unwrap_err();
    let error = rejected.error.to_string();
    assert!(error.contains("b.yaml: a symbolic link"), "{error}");
    assert!(rejected.files.contains(&folder.path().join("b.yaml")));
}

#[test]
fn what_is_gone_from_a_file_is_held() {
    let folder = folder();
    let (one, two) = (workload("one", ""), workload("two", ""));
    write(&folder, "both.yaml", &(one.clone() + &two));
    let last = load_folder(&folder).unwrap();
    write(&folder, "both.yaml", &one);
    let mut now = again(&folder, &last, &[]).unwrap();
    assert_eq!(ids(&now), ["default/one"]);
    assert!(now.hold(&last));
    assert_eq!(ids(&now), ["default/one", "default/two"]);
    let mut later = again(&folder, &now, &[]).unwrap();
    assert!(later.hold(&now), "for as long as that is asked");
    // It may have gone to another file.
    write(&folder, "two.yaml", &two);
    assert!(!again(&folder, &now, &[]).unwrap().hold(&now));
}
