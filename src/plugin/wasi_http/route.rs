//! What a workload's `wasi:http` entry says: the host and the path that it wants to answer.

use std::{fmt, sync::Arc};

use crate::{
    fault::{Fault, Reason, Stage},
    spec,
};

/// A host and a path prefix; the unit of which at most one owner has the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Route {
    pub host: HostPattern,
    pub path: PathPrefix,
}

/// Which hosts a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// One host, in lower case.
    Exact(Arc<str>),
    /// All hosts that end with this, which begins with a dot.
    Below(Arc<str>),
    /// Every host that has no other route.
    Any,
}

/// The beginning of a path, up to the end of a segment: `/api` is the beginning of `/api` and `/api/x`, not of `/apis`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathPrefix(Arc<str>);

/// Interfaces of `wasi:http` that an entry may list. The handlers ask for a route; the rest is what components import.
const HANDLERS: [&str; 2] = ["incoming-handler", "handler"];

impl Route {
    /// The route that an entry asks for; none if it lists no handler.
    ///
    /// # Errors
    /// A fault that names the key: an unknown one, or a value that cannot be a host or a path.
    pub fn of_entry(entry: &spec::Interface) -> Result<Option<Self>, Fault> {
        if let Some(key) = entry
            .config
            .keys()
            .find(|key| !matches!(key.as_str(), "host" | "path"))
        {
            return Err(invalid(format!(
                "wasi:http has no option `{key}`; it has `host` and `path`"
            )));
        }
        if !entry
            .interfaces
            .iter()
            .any(|interface| HANDLERS.contains(&interface.as_str()))
        {
            return match entry.config.keys().next() {
                Some(key) => Err(invalid(format!(
                    "option `{key}` of wasi:http is about being called, but the entry lists neither \
                     `incoming-handler` nor `handler` in `interfaces`"
                ))),
                None => Ok(None),
            };
        }
        let host = entry
            .config
            .get("host")
            .map_or(Ok(HostPattern::Any), |text| HostPattern::parse(text))?;
        let path = entry
            .config
            .get("path")
            .map_or(Ok(PathPrefix::root()), |text| PathPrefix::parse(text))?;
        Ok(Some(Self { host, path }))
    }
}

impl Route {
    /// Whether it is for every request that no other route is for.
    pub fn is_default(&self) -> bool {
        self.host == HostPattern::Any && self.path == PathPrefix::root()
    }
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, Fault> {
        let refuse = |why: &str| {
            Err(invalid(format!(
                "option `host` of wasi:http: `{text}` {why}"
            )))
        };
        let (name, below) = match text.strip_prefix('*') {
            Some(suffix) => (suffix.strip_prefix('.').unwrap_or_default(), true),
            None => (text, false),
        };
        if text.is_empty() {
            return refuse(
                "is empty; leave the option out to answer every host that no other route claims",
            );
        }
        if text == "*" {
            return refuse(
                "is every host; leave the option out to answer every host that no other route claims",
            );
        }
        if text.contains(':') {
            return refuse("has a port; routes are by name only, leave the port out");
        }
        if text.contains(|c: char| c.is_ascii_uppercase()) {
            return refuse("has upper-case letters; write it in lower case");
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return refuse(
                "is not a host name; write for example `app.example.com` or `*.example.com`",
            );
        }
        Ok(if below {
            Self::Below(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl PathPrefix {
    /// The beginning of every path.
    pub fn root() -> Self {
        Self("".into())
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let refuse = |why: &str| {
            Err(invalid(format!(
                "option `path` of wasi:http: `{text}` {why}"
            )))
        };
        if !text.starts_with('/') {
            return refuse("does not begin with `/`");
        }
        if text.contains(|c: char| !c.is_ascii_graphic() || "?#*".contains(c)) {
            return refuse(
                "is not a path prefix; write for example `/api`, without query, fragment or wildcard",
            );
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }

    /// Whether `path` begins with this.
    pub fn includes(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Its length, by which the more specific of two prefixes is found.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn invalid(message: String) -> Fault {
    Fault::new(Stage::Link, Reason::BindFailed, message)
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(host) => write!(f, "host {host}")?,
            HostPattern::Below(suffix) => write!(f, "host *{suffix}")?,
            HostPattern::Any => f.write_str("any host")?,
        }
        write!(
            f,
            ", path {}",
            if self.path.0.is_empty() {
                "/"
            } else {
                &self.path.0
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::config_entry;

    fn route(config: &[(&str, &str)]) -> Result<Option<Route>, Fault> {
        Route::of_entry(&config_entry("wasi:http", &["incoming-handler"], config))
    }

    #[test]
    fn entries_are_routes() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], "any host, path /"),
            (&[("host", "a.example.com")], "host a.example.com, path /"),
            (&[("host", "*.example.com")], "host *.example.com, path /"),
            (
                &[("host", "localhost"), ("path", "/api")],
                "host localhost, path /api",
            ),
            (&[("path", "/api/")], "any host, path /api"),
            (&[("path", "/")], "any host, path /"),
        ];
        for (config, wanted) in cases {
            assert_eq!(route(config).unwrap().unwrap().to_string(), wanted);
        }
        assert_eq!(
            Route::of_entry(&config_entry("wasi:http", &["outgoing-handler"], &[])),
            Ok(None)
        );
        assert!(
            Route::of_entry(&config_entry("wasi:http", &["handler"], &[]))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn faults_name_the_option() {
        let cases: [(&str, &str, &str); 12] = [
            ("hots", "a", "no option `hots`"),
            ("host", "", "leave the option out"),
            ("host", "*", "leave the option out"),
            ("host", "a.com:8080", "leave the port out"),
            ("host", "A.com", "lower case"),
            ("host", "a..com", "not a host name"),
            ("host", "a.*.com", "not a host name"),
            ("host", "*a.com", "not a host name"),
            ("host", "a,b", "not a host name"),
            ("host", "http://a", "leave the port out"),
            ("path", "api", "begin with `/`"),
            ("path", "/a?b", "not a path prefix"),
        ];
        for (key, value, wanted) in cases {
            let fault = route(&[(key, value)]).unwrap_err();
            assert!(
                fault.message.contains(wanted) && fault.message.contains(key),
                "{key}={value}: {fault}"
            );
        }
        let fault =
            Route::of_entry(&config_entry("wasi:http", &["types"], &[("host", "a")])).unwrap_err();
        assert!(fault.message.contains("interfaces"), "{fault}");
    }

    #[test]
    fn prefixes_end_with_segments() {
        let api = PathPrefix::parse("/api").unwrap();
        for (path, wanted) in [
            ("/api", true),
            ("/api/", true),
            ("/api/x", true),
            ("/apis", false),
            ("/", false),
            ("*", false),
        ] {
            assert_eq!(api.includes(path), wanted, "{path}");
        }
        assert!(PathPrefix::root().includes("/anything"));
        assert!(PathPrefix::root().includes(""));
        assert!(!PathPrefix::root().includes("*"));
    }
}
