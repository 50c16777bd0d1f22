//! Names of WIT interfaces: parsing, version compatibility, and the nearest match for a diagnosis.
//!
//! Not here: what an interface contains. Wasmtime checks types when it links; this module only reads names.

use std::{fmt, str::FromStr};

use semver::Version;

/// The name of an interface, `namespace:package/interface[@version]`, as the component model writes it in imports and exports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId {
    /// `wasi` in `wasi:http/types@0.2.0`.
    pub namespace: String,
    /// `http` in `wasi:http/types@0.2.0`.
    pub package: String,
    /// `types` in `wasi:http/types@0.2.0`.
    pub interface: String,
    /// `0.2.0` in `wasi:http/types@0.2.0`; none for an unversioned package.
    pub version: Option<Version>,
}

/// A text is not the name of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an interface name: expected `namespace:package/interface[@version]`")]
pub struct ParseInterfaceError {
    text: String,
}

impl InterfaceId {
    /// Whether two ids name the same interface, whatever their versions.
    #[must_use]
    pub fn same_name(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.package == other.package
            && self.interface == other.interface
    }

    /// Whether an import of `self` can be served by an offer of `offered`: same name, and versions on one compatibility
    /// track (`1.x`, `0.2.x`, `0.0.3`; a pre-release only by itself), which is the rule by which Wasmtime links.
    #[must_use]
    pub fn served_by(&self, offered: &Self) -> bool {
        self.same_name(offered)
            && match (&self.version, &offered.version) {
                (None, None) => true,
                (Some(want), Some(have)) => compatible(want, have),
                _ => false,
            }
    }

    /// Whether an entry that asks for `interface` of this package means this one, at a version that serves it; no version
    /// means any. A handler of HTTP requests is known by either of its names, whichever version it is of.
    #[must_use]
    pub fn meant_by(&self, interface: &str, version: Option<&Version>) -> bool {
        const HANDLERS: [&str; 2] = ["incoming-handler", "handler"];
        let named = self.interface == interface
            || HANDLERS.contains(&self.interface.as_str()) && HANDLERS.contains(&interface);
        named
            && version.is_none_or(|want| {
                self.version
                    .as_ref()
                    .is_some_and(|have| compatible(want, have))
            })
    }

    /// The offer that a user most likely meant: the same interface at another version, else the same package.
    #[must_use]
    pub fn nearest<'a>(&self, offers: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        offers
            .into_iter()
            .filter(|o| o.namespace == self.namespace && o.package == self.package)
            .max_by_key(|o| (o.interface == self.interface, o.version.clone()))
    }
}

/// Whether a wish for one version is served by the other.
fn compatible(want: &Version, have: &Version) -> bool {
    want == have || track(want).is_some() && track(want) == track(have)
}

/// The component model's canonical version: what has to be equal for two versions to be compatible.
fn track(v: &Version) -> Option<(u64, u64, u64)> {
    if !v.pre.is_empty() {
        return None;
    }
    Some(match (v.major, v.minor) {
        (0, 0) => (0, 0, v.patch),
        (0, minor) => (0, minor, 0),
        (major, _) => (major, 0, 0),
    })
}

impl FromStr for InterfaceId {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (path, version) = match text.split_once('@') {
                Some((path, version)) => (path, Some(Version::parse(version).ok()?)),
                None => (text, None),
            };
            let (package, interface) = path.split_once('/')?;
            let (namespace, package) = package.split_once(':')?;
            let word = |w: &str| {
                w.starts_with(|c: char| c.is_ascii_alphabetic())
                    && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            };
            (word(namespace) && word(package) && word(interface)).then(|| Self {
                namespace: namespace.to_owned(),
                package: package.to_owned(),
                interface: interface.to_owned(),
                version,
            })
        };
        parse().ok_or_else(|| ParseInterfaceError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.namespace, self.package, self.interface)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

/// The interfaces that a component imports and exports, or that a plugin offers and serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// For a component: what it needs. For a plugin: what it offers to components.
    pub imports: Vec<InterfaceId>,
    /// For a component: what it provides. For a plugin: what it calls on components.
    pub exports: Vec<InterfaceId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InterfaceId {
        text.parse().expect("valid id")
    }

    #[test]
    fn ids_round_trip() {
        for text in [
            "wasi:http/types@0.2.12",
            "wasi:config/store@0.2.0-rc.1",
            "acme:widgets/api",
        ] {
            assert_eq!(id(text).to_string(), text);
        }
        for bad in [
            "",
            "wasi",
            "wasi:http",
            "wasi:http/",
            "wasi:http/types@x",
            "a:b/c/d",
            "1a:b/c",
        ] {
            assert!(bad.parse::<InterfaceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_follow_the_compatibility_track() {
        let cases = [
            ("a:b/c@0.2.0", "a:b/c@0.2.12", true),
            ("a:b/c@0.2.20", "a:b/c@0.2.12", true),
            ("a:b/c@0.3.0", "a:b/c@0.2.12", false),
            ("a:b/c@1.0.0", "a:b/c@1.9.0", true),
            ("a:b/c@2.0.0", "a:b/c@1.9.0", false),
            ("a:b/c@0.0.1", "a:b/c@0.0.2", false),
            ("a:b/c@0.2.0-rc.1", "a:b/c@0.2.0", false),
            ("a:b/c@0.2.0-rc.1", "a:b/c@0.2.0-rc.1", true),
            ("a:b/c", "a:b/c@1.0.0", false),
        ];
        for (want, have, served) in cases {
            assert_eq!(id(want).served_by(&id(have)), served, "{want} by {have}");
        }
    }

    #[test]
    fn an_entry_means_an_interface_by_name_and_version() {
        let cases = [
            ("wasi:keyvalue/store@0.2.0", "store", None, true),
            ("wasi:keyvalue/store@0.2.0", "store", Some("0.2.9"), true),
            ("wasi:keyvalue/store@0.2.0", "store", Some("0.3.0"), false),
            ("wasi:keyvalue/store@0.2.0", "atomics", None, false),
            ("acme:widgets/api", "api", None, true),
            ("acme:widgets/api", "api", Some("1.0.0"), false),
            ("wasi:http/handler@0.3.0", "incoming-handler", None, true),
            ("wasi:http/incoming-handler@0.2.0", "handler", None, true),
        ];
        for (have, interface, version, meant) in cases {
            let version = version.map(|v| Version::parse(v).expect("valid version"));
            let is = id(have).meant_by(interface, version.as_ref());
            assert_eq!(is, meant, "{interface} {version:?} by {have}");
        }
    }

    #[test]
    fn nearest_prefers_the_same_interface() {
        let offers = [
            id("wasi:http/types@0.2.12"),
            id("wasi:http/handler@0.3.0"),
            id("wasi:io/poll@0.2.12"),
        ];
        assert_eq!(
            id("wasi:http/types@0.9.0").nearest(&offers),
            Some(&offers[0])
        );
        assert_eq!(id("acme:http/types@0.9.0").nearest(&offers), None);
    }
}
