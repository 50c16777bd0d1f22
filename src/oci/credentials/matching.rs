//! Which credentials are for an image: the kubelet's rules, and one that is stricter.
//!
//! | part | rule |
//! |---|---|
//! | scheme | ignored |
//! | host | as many labels as the image's registry has, each matching as a glob (`*` any text, `?` one character), never across a dot |
//! | port | the same text, or none on both sides; there is no default port |
//! | path | a leading `/v1` or `/v2` is ignored; the rest must begin the image's repository **at a `/`** |
//! | Docker Hub | `docker.io`, `index.docker.io` and `registry-1.docker.io` are one registry |
//!
//! The path rule differs from the kubelet's, for which `r.io/foo` also opens `r.io/foobar`: somebody else's repository.

use crate::spec::{ImageRef, RegistryCredential};

/// Names of Docker Hub.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The credentials that are for `image`, those with the deepest path first, else in the given order. One without a scope is
/// for every image, and counts as one without a path.
#[must_use]
pub fn matching<'a>(
    credentials: &'a [RegistryCredential],
    image: &ImageRef,
) -> Vec<&'a RegistryCredential> {
    let mut found: Vec<_> = credentials
        .iter()
        .filter_map(|credential| {
            let depth = match &credential.scope {
                Some(scope) => Scope::parse(scope).matches(image)?,
                None => 0,
            };
            Some((depth, credential))
        })
        .collect();
    // Stable, so that equal depths keep their order.
    found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    found
        .into_iter()
        .map(|(_, credential)| credential)
        .collect()
}

/// The key of a Docker configuration, taken apart.
struct Scope {
    host: String,
    port: Option<String>,
    path: Vec<String>,
}

impl Scope {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = split_port(authority);
        let mut path: Vec<_> = path
            .split('/')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect();
        if path.first().is_some_and(|p| p == "v1" || p == "v2") {
            path.remove(0);
        }
        Self {
            host: host.to_ascii_lowercase(),
            port: port.map(str::to_owned),
            path,
        }
    }

    /// How many parts of the image's path the scope names, if the scope is for this image at all.
    fn matches(&self, image: &ImageRef) -> Option<usize> {
        let (host, port) = split_port(image.registry());
        let host_matches = if DOCKER_HUB.contains(&host) {
            DOCKER_HUB
                .iter()
                .any(|alias| host_matches(&self.host, alias))
        } else {
            host_matches(&self.host, host)
        };
        let mut parts = image.repository().split('/');
        let path_matches = self.path.iter().all(|part| parts.next() == Some(part));
        (host_matches && self.port.as_deref() == port && path_matches).then_some(self.path.len())
    }
}

/// Host and port; the colons of an IPv6 address in brackets are part of the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    let (mut patterns, mut labels) = (pattern.split('.'), host.split('.'));
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if glob(pattern.as_bytes(), label.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Whether a pattern of `*` and `?` matches a whole text. On a mismatch it goes back to the last `*` only, so the time is at
/// most the product of both lengths, whatever a tenant writes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Credential, Secret};

    fn scoped(scope: &str) -> RegistryCredential {
        RegistryCredential {
            scope: (!scope.is_empty()).then(|| scope.to_owned()),
            credential: Credential::Bearer(Secret::new("t")),
            origin: scope.to_owned(),
        }
    }

    fn found(scopes: &[&str], image: &str) -> Vec<String> {
        let credentials: Vec<_> = scopes.iter().map(|s| scoped(s)).collect();
        let image = image.parse().expect("an image");
        matching(&credentials, &image)
            .into_iter()
            .map(|c| c.origin.clone())
            .collect()
    }

    #[test]
    fn scopes_match_as_in_the_kubelet() {
        let cases = [
            // The whole host, never a part of it.
            ("r.io", "r.io/a:1", true),
            ("R.IO", "r.io/a:1", true),
            ("r.io", "x.r.io/a:1", false),
            ("r.io", "xr.io/a:1", false),
            ("r", "r.io/a:1", false),
            // Globs stay within a label, and the number of labels counts.
            ("*.azurecr.io", "me.azurecr.io/a:1", true),
            ("*.azurecr.io", "azurecr.io/a:1", false),
            ("*.azurecr.io", "x.me.azurecr.io/a:1", false),
            ("*.*.azurecr.io", "x.me.azurecr.io/a:1", true),
            ("app*.r.io", "app12.r.io/a:1", true),
            ("app*.r.io", "ap.r.io/a:1", false),
            ("*p?.r.io", "app1.r.io/a:1", true),
            ("*p?.r.io", "app.r.io/a:1", true),
            ("*p?.r.io", "ap.r.io/a:1", false),
            ("*", "r.io/a:1", false),
            ("*.*", "r.io/a:1", true),
            // Ports are texts, without defaults or globs.
            ("r.io:5000", "r.io:5000/a:1", true),
            ("r.io", "r.io:5000/a:1", false),
            ("r.io:443", "r.io/a:1", false),
            ("r.io:5000", "r.io:05000/a:1", false),
            ("r.io:*", "r.io:5000/a:1", false),
            ("*.io:5000", "r.io:5000/a:1", true),
            ("localhost:5001", "localhost:5001/a:1", true),
            ("[::1]:5000", "[::1]:5000/a:1", true),
            ("[::1]", "[::1]/a:1", true),
            ("[::1]", "[::1]:5000/a:1", false),
            // Schemes and API versions are dropped.
            ("https://r.io", "r.io/a:1", true),
            ("http://r.io/", "r.io/a:1", true),
            ("https://r.io/v1/", "r.io/a:1", true),
            ("https://r.io/v2", "r.io/a:1", true),
            ("r.io/v2/foo", "r.io/foo/a:1", true),
            ("r.io/v2foo", "r.io/v2foo/a:1", true),
            // Paths match whole parts: the documented deviation.
            ("r.io/foo", "r.io/foo:1", true),
            ("r.io/foo", "r.io/foo/bar:1", true),
            ("r.io/foo/", "r.io/foo/bar:1", true),
            ("r.io/foo", "r.io/foobar/x:1", false),
            ("r.io/foo/bar", "r.io/foo:1", false),
            ("r.io/*", "r.io/foo:1", false),
            // Docker Hub by all its names.
            ("https://index.docker.io/v1/", "hello", true),
            ("docker.io", "acme/hello", true),
            ("registry-1.docker.io", "docker.io/acme/hello", true),
            ("docker.io/acme", "acme/hello", true),
            ("docker.io/library", "hello", true),
            ("docker.io/acme", "hello", false),
            ("index.docker.io", "r.io/hello", false),
            // Without a scope: any registry.
            ("", "r.io/a:1", true),
        ];
        for (scope, image, expected) in cases {
            assert_eq!(
                !found(&[scope], image).is_empty(),
                expected,
                "{scope:?} for {image}"
            );
        }
    }

    #[test]
    fn deepest_path_first_then_the_given_order() {
        let scopes = ["*.io", "r.io", "", "r.io/a", "r.io/a/b", "https://r.io/a"];
        assert_eq!(
            found(&scopes, "r.io/a/b/c:1"),
            ["r.io/a/b", "r.io/a", "https://r.io/a", "*.io", "r.io", ""]
        );
        assert_eq!(found(&scopes, "r.io/x:1"), ["*.io", "r.io", ""]);
    }

    #[test]
    fn a_hostile_glob_is_cheap() {
        let pattern = "*a".repeat(500) + "b";
        assert!(!glob(pattern.as_bytes(), "a".repeat(5000).as_bytes()));
    }
}
