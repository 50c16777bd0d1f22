use super::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn references_get_their_defaults() {
    let pinned = format!("ghcr.io/a/b@{SHA}");
    let both = format!("ghcr.io/a/b:1@{SHA}");
    let cases = [
        ("hello", "docker.io/library/hello:latest"),
        ("hello:1", "docker.io/library/hello:1"),
        ("app:5000", "docker.io/library/app:5000"),
        ("acme/hello", "docker.io/acme/hello:latest"),
        ("docker.io/hello", "docker.io/library/hello:latest"),
        ("index.docker.io/hello", "docker.io/library/hello:latest"),
        ("index.docker.io/acme/hello:1", "docker.io/acme/hello:1"),
        ("localhost/hello", "localhost/hello:latest"),
        ("localhost:5001/hello", "localhost:5001/hello:latest"),
        (
            "registry:5000/a/b/c:v1.2-rc_3",
            "registry:5000/a/b/c:v1.2-rc_3",
        ),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("[fd00::1]/x:1", "[fd00::1]/x:1"),
        ("GHCR.io/a/b:X", "ghcr.io/a/b:X"),
        (
            "ghcr.io/a-b/c__d/e.f/g---h:1",
            "ghcr.io/a-b/c__d/e.f/g---h:1",
        ),
        (&pinned, &pinned),
        (&both, &both),
    ];
    for (text, normal) in cases {
        let parsed: ImageRef = text.parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parsed.to_string(), *normal);
        assert_eq!(normal.parse(), Ok(parsed), "{normal} round-trips");
    }
}

#[test]
fn wrong_references_say_what_is_wrong() {
    let long_tag = format!("a:{}", "x".repeat(129));
    let long_repository = "a/".repeat(128) + "a";
    let cases = [
        ("", "empty"),
        (" a", "white space"),
        ("a b", "white space"),
        ("https://ghcr.io/a", "scheme"),
        ("oci://ghcr.io/a", "scheme"),
        ("ghcr.io/Acme/hello", "lower case"),
        ("Hello", "lower case"),
        ("Acme/hello", "lower case"),
        ("ghcr.io/", "no repository"),
        ("ghcr.io/a//b", "each part"),
        ("ghcr.io/a/../b", "each part"),
        ("ghcr.io/-a", "each part"),
        ("ghcr.io/a___b", "each part"),
        ("ghcr.io/a..b", "each part"),
        ("/a", "each part"),
        ("a:", "tag is empty"),
        ("a:-x", "begins with"),
        ("a:x:y", "only letters"),
        ("a:ä", "begins with"),
        (&long_tag, "longer than 128"),
        (&long_repository, "longer than 255"),
        ("a@sha256:12", "64 lower-case"),
        ("a@md5:12", "64 lower-case"),
        ("a@", "64 lower-case"),
        ("host:port/a", "port"),
        ("host:70000/a", "port"),
        ("host:+80/a", "port"),
        ("[::1/a", "`]`"),
        ("[zz]:1/a", "IPv6"),
        ("a_b.io/x", "host name"),
        ("..:5000/x", "host name"),
        (".:1/x", "host name"),
    ];
    for (text, part) in cases {
        let error = text.parse::<ImageRef>().expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn the_default_policy_follows_the_tag() {
    let pinned = format!("a@{SHA}");
    let both = format!("a:1@{SHA}");
    let cases = [
        ("a", PullPolicy::Always),
        ("a:latest", PullPolicy::Always),
        ("a:1", PullPolicy::IfNotPresent),
        (pinned.as_str(), PullPolicy::IfNotPresent),
        (both.as_str(), PullPolicy::IfNotPresent),
    ];
    for (text, policy) in cases {
        let reference = text.parse().expect("a reference");
        assert_eq!(PullPolicy::default_for(&reference), policy, "{text}");
    }
}
