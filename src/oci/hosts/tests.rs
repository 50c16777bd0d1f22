use super::*;

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("a file");
}

fn bases(found: &[Endpoint]) -> Vec<&str> {
    found.iter().map(|e| e.base.as_str()).collect()
}

#[test]
fn without_files_a_registry_is_asked_by_https() {
    let cases = [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("r.io", "https://r.io/v2/"),
        ("localhost:5001", "https://localhost:5001/v2/"),
        ("[::1]:5000", "https://[::1]:5000/v2/"),
    ];
    let empty = tempfile::tempdir().expect("a directory");
    for (registry, base) in cases {
        for dir in [None, Some(empty.path())] {
            let found = endpoints(dir, registry).expect("no file to be wrong");
            assert_eq!(bases(&found), [base]);
            assert!(found[0].resolve && found[0].pull && !found[0].skip_verify);
            assert_eq!(found[0].namespace, None);
        }
    }
}

#[test]
fn mirrors_keep_their_order_and_the_server_comes_last() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "docker.io/hosts.toml",
        r#"
        server = "https://hub.example"
        ca = "/etc/ssl/hub.pem"
        [host."https://z.example"]
          capabilities = ["pull"]
          ca = ["one.pem", "sub/two.pem"]
        [host."http://a.example:5000"]
          skip_verify = true
          dial_timeout = "5s"
        [host."https://m.example/v2/cache"]
          override_path = true
        [host."https://n.example/proxy"]
        "#,
    );
    let found = endpoints(Some(dir.path()), "docker.io").expect("a good file");
    assert_eq!(
        bases(&found),
        [
            "https://z.example/v2/",
            "http://a.example:5000/v2/",
            "https://m.example/v2/cache/",
            "https://n.example/proxy/v2/",
            "https://hub.example/v2/",
        ]
    );
    let here = dir.path().join("docker.io");
    assert_eq!(
        found[0].ca,
        [here.join("one.pem"), here.join("sub/two.pem")]
    );
    assert!(found[0].pull && !found[0].resolve);
    assert!(found[1].skip_verify && found[1].resolve);
    assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
    assert_eq!(found[4].ca, [PathBuf::from("/etc/ssl/hub.pem")]);
}

#[test]
fn the_most_specific_directory_decides() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "_default/hosts.toml",
        r#"[host."https://mirror.example"]"#,
    );
    write(
        dir.path(),
        "r.io:5000/hosts.toml",
        r#"server = "http://r.io:5000""#,
    );
    let of =
        |registry| bases(&endpoints(Some(dir.path()), registry).expect("good files")).join(" ");
    assert_eq!(
        of("other.io"),
        "https://mirror.example/v2/ https://other.io/v2/"
    );
    assert_eq!(of("r.io:5000"), "http://r.io:5000/v2/");
    write(dir.path(), "r.io_5000_/hosts.toml", "");
    assert_eq!(of("r.io:5000"), "https://r.io:5000/v2/");
}

#[test]
fn a_registry_among_its_own_mirrors_is_asked_once() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "localhost:5001/hosts.toml",
        "[host.\"https://localhost:5001\"]\nca = \"ca.pem\"",
    );
    let found = endpoints(Some(dir.path()), "localhost:5001").expect("a good file");
    assert_eq!(bases(&found), ["https://localhost:5001/v2/"]);
    assert_eq!(found[0].ca, [dir.path().join("localhost:5001/ca.pem")]);
    assert_eq!(found[0].namespace, None);
}

#[test]
fn certificates_beside_no_hosts_file_are_trusted() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "r.io/b.crt", "");
    write(dir.path(), "r.io/a.crt", "");
    write(dir.path(), "r.io/readme", "");
    let found = endpoints(Some(dir.path()), "r.io").expect("a good directory");
    assert_eq!(
        found[0].ca,
        [dir.path().join("r.io/a.crt"), dir.path().join("r.io/b.crt")]
    );
}

#[test]
fn broken_files_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let cases = [
        ("server = ", "line 1"),
        ("[host.\"ftp://r.io\"]", "ftp://r.io"),
        ("server = \"https://\"", "not an `http://`"),
        ("skip_verify = \"yes\"", "bool"),
    ];
    for (text, part) in cases {
        write(dir.path(), "r.io/hosts.toml", text);
        let error = endpoints(Some(dir.path()), "r.io")
            .expect_err(text)
            .to_string();
        assert!(
            error.contains("r.io/hosts.toml") && error.contains(part),
            "{error}"
        );
    }
}
