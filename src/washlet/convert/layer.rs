//! Configuration from several places, merged: inline < ConfigMaps < Secrets, and within a list the last wins.

use std::collections::BTreeMap;

use super::{Converter, Outcome, ReferenceKey, ReferenceKind, Referenced};
use crate::{
    fault::{Reason, Stage},
    washlet::api,
};

/// One place of a manifest that merges configuration.
pub(super) struct Layer<'a> {
    inline: &'a BTreeMap<String, String>,
    config_maps: &'a [api::ObjectRef],
    secrets: &'a [api::ObjectRef],
}

impl<'a> Layer<'a> {
    pub fn of_environment(from: &'a api::Environment) -> Self {
        Self {
            inline: &from.config,
            config_maps: &from.config_from,
            secrets: &from.secret_from,
        }
    }

    pub fn of_interface(from: &'a api::HostInterface) -> Self {
        Self {
            inline: &from.config,
            config_maps: &from.config_from,
            secrets: &from.secret_from,
        }
    }
}

impl<'a> Converter<'a> {
    /// Merges a layer whose fields are `path.config`, `path.configFrom` and `path.secretFrom`.
    pub(super) fn merge(&mut self, path: &str, layer: Layer<'_>) -> BTreeMap<String, String> {
        let mut merged = layer.inline.clone();
        let lists = [
            ("configFrom", ReferenceKind::ConfigMap, layer.config_maps),
            ("secretFrom", ReferenceKind::Secret, layer.secrets),
        ];
        for (field, kind, references) in lists {
            for (index, reference) in references
                .iter()
                .enumerate()
                .filter(|(_, r)| !r.name.is_empty())
            {
                let path = format!("{path}.{field}[{index}]");
                let key = self.key(kind, &reference.name);
                if let Some(Referenced::ConfigMap(data) | Referenced::Secret { data, .. }) =
                    self.found(&path, &key)
                {
                    self.add_texts(&path, &key, data, &mut merged);
                }
            }
        }
        merged
    }

    fn add_texts(
        &mut self,
        path: &str,
        key: &ReferenceKey,
        data: &BTreeMap<String, Vec<u8>>,
        merged: &mut BTreeMap<String, String>,
    ) {
        for (name, bytes) in data {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    merged.insert(name.clone(), text.to_owned());
                }
                Err(_) => {
                    let text =
                        format!("key `{name}` of {key} is not UTF-8 text; configuration is text");
                    self.problems.add(
                        Stage::Configure,
                        Reason::ReferenceNotFound,
                        path.to_owned(),
                        text,
                    );
                }
            }
        }
    }

    pub(super) fn key(&self, kind: ReferenceKind, name: &str) -> ReferenceKey {
        ReferenceKey {
            kind,
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The content of an object without which the workload cannot run.
    pub(super) fn found(&mut self, path: &str, key: &ReferenceKey) -> Option<&'a Referenced> {
        match self.resolved.outcomes.get(key) {
            Some(Outcome::Found(found)) => return Some(found),
            Some(Outcome::Forbidden(text)) => self.forbidden(path, key, text),
            Some(Outcome::Missing) | None => {
                let text = format!("{key} does not exist; create it, or remove the reference");
                self.problems.add(
                    Stage::Configure,
                    Reason::ReferenceNotFound,
                    path.to_owned(),
                    text,
                );
            }
        }
        None
    }

    pub(super) fn forbidden(&mut self, path: &str, key: &ReferenceKey, text: &str) {
        let text = format!("the agent may not get {key}; allow it in the agent's Role ({text})");
        self.problems
            .add(Stage::Configure, Reason::Forbidden, path.to_owned(), text);
    }
}
