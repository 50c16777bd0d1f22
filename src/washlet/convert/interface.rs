//! Entries of `hostInterfaces`.

use semver::Version;

use super::{Converter, layer::Layer};
use crate::{spec, washlet::api};

impl Converter<'_> {
    pub(super) fn interfaces(&mut self, entries: &[api::HostInterface]) -> Vec<spec::Interface> {
        let mut interfaces: Vec<spec::Interface> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("spec.hostInterfaces[{index}]");
            let interface = self.interface(&path, entry);
            let same = |other: &spec::Interface| {
                other.is(&interface.namespace, &interface.package)
                    && other.name == interface.name
                    && (interface.name.is_none() || other.version == interface.version)
            };
            if interfaces.iter().any(same) {
                let named = interface
                    .name
                    .as_ref()
                    .map_or("without a name".to_owned(), |name| {
                        format!("named `{name}`")
                    });
                let text = format!(
                    "is a second entry of {}:{} {named}; merge them",
                    interface.namespace, interface.package
                );
                self.problems.invalid(path, text);
            }
            interfaces.push(interface);
        }
        interfaces
    }

    fn interface(&mut self, path: &str, entry: &api::HostInterface) -> spec::Interface {
        for (field, word) in [("namespace", &entry.namespace), ("package", &entry.package)] {
            if !is_wit_word(word) {
                let text = format!(
                    "`{word}` is not a WIT name: letters, digits and `-`, like `wasi` or `http`"
                );
                self.problems.invalid(format!("{path}.{field}"), text);
            }
        }
        if entry.interfaces.is_empty() {
            self.problems.invalid(
                format!("{path}.interfaces"),
                "is empty; name at least one interface of the package",
            );
        }
        let text = entry.version.as_deref().unwrap_or_default();
        let version = match text {
            "" => None,
            text => {
                let version = version(text);
                if version.is_none() {
                    let text = format!("`{text}` is not a version; write it as `0.2.0`");
                    self.problems.invalid(format!("{path}.version"), text);
                }
                version
            }
        };
        spec::Interface {
            namespace: entry.namespace.clone(),
            package: entry.package.clone(),
            interfaces: entry.interfaces.clone(),
            version,
            name: entry.name.clone().filter(|name| !name.is_empty()),
            config: self.merge(path, Layer::of_interface(entry)),
        }
    }
}

/// A version with what wasmCloud lets one leave out: `0.2`, `v0.2.0`.
pub(in crate::washlet) fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at_checked(end)?;
    let filler = match numbers.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => "",
    };
    Version::parse(&format!("{numbers}{filler}{rest}")).ok()
}

fn is_wit_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
