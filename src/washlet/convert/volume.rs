//! `spec.volumes`, and the mounts of components.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{Converter, Outcome, ReferenceKind, Referenced, quantity};
use crate::{
    fault::{Reason, Stage},
    spec::{self, Files, Mount, Volume, VolumeSource},
    washlet::api,
};

/// A volume of files from one object.
struct From<'a> {
    kind: ReferenceKind,
    /// Field of the object's name, below the volume.
    field: &'static str,
    /// Field of the keys to show.
    items_field: &'static str,
    name: &'a str,
    items: &'a [api::KeyToPath],
    optional: bool,
}

impl<'a> From<'a> {
    fn of(volume: &'a api::Volume) -> Option<Self> {
        let map = volume.config_map.as_ref().map(|map| Self {
            kind: ReferenceKind::ConfigMap,
            field: "configMap.name",
            items_field: "configMap.items",
            name: &map.name,
            items: &map.items,
            optional: map.optional == Some(true),
        });
        map.or(volume.secret.as_ref().map(|secret| Self {
            kind: ReferenceKind::Secret,
            field: "secret.secretName",
            items_field: "secret.items",
            name: &secret.secret_name,
            items: &secret.items,
            optional: secret.optional == Some(true),
        }))
    }
}

impl Converter<'_> {
    pub(super) fn volumes(&mut self, volumes: &[api::Volume]) -> Vec<Volume> {
        let mut converted: Vec<Volume> = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.iter().enumerate() {
            let path = format!("spec.volumes[{index}]");
            if volume.name.is_empty() {
                let text = "is empty; give the volume a name";
                self.problems.invalid(format!("{path}.name"), text);
            } else if converted.iter().any(|other| other.name == volume.name) {
                let text = format!(
                    "`{}` is the name of an earlier volume too; names are unique",
                    volume.name
                );
                self.problems.invalid(format!("{path}.name"), text);
            }
            converted.push(Volume {
                name: volume.name.clone(),
                source: self.volume_source(&path, volume),
            });
        }
        converted
    }

    fn volume_source(&mut self, path: &str, volume: &api::Volume) -> VolumeSource {
        let sources = [
            volume.ephemeral.is_some(),
            volume.host_path.is_some(),
            volume.config_map.is_some(),
            volume.secret.is_some(),
        ];
        if sources.iter().filter(|given| **given).count() > 1 {
            let text = "has several sources; keep one of ephemeral, hostPath, configMap and secret";
            self.problems.invalid(path.to_owned(), text);
        }
        if let Some(host) = &volume.host_path {
            let plain = host.path.strip_prefix('/').is_some_and(|rest| {
                !rest.contains('\0') && !rest.split('/').any(|part| part == ".." || part == ".")
            });
            if !plain {
                let text = format!(
                    "`{}` is no plain absolute path; begin it with `/`, without `.` or `..`",
                    host.path
                );
                self.problems.invalid(format!("{path}.hostPath.path"), text);
            }
            return VolumeSource::HostPath(PathBuf::from(&host.path));
        }
        match From::of(volume) {
            Some(from) => VolumeSource::Files(self.files(path, &from)),
            None => VolumeSource::Ephemeral {
                size_limit: self.size_limit(path, volume.ephemeral.as_ref()),
            },
        }
    }

    fn size_limit(&mut self, path: &str, volume: Option<&api::EphemeralVolume>) -> Option<u64> {
        let limit = quantity::bytes(&volume?.size_limit.as_ref()?.0);
        limit
            .map_err(|error| {
                let field = format!("{path}.ephemeral.sizeLimit");
                self.problems.invalid(field, error.to_string());
            })
            .ok()
    }

    fn files(&mut self, path: &str, from: &From<'_>) -> Files {
        if from.name.is_empty() {
            let text = format!("is empty; name a {}", from.kind);
            self.problems
                .invalid(format!("{path}.{}", from.field), text);
            return Files::default();
        }
        let key = self.key(from.kind, from.name);
        let missing = matches!(
            self.resolved.outcomes.get(&key),
            Some(Outcome::Missing) | None
        );
        if missing && from.optional {
            return Files::default();
        }
        let found = self.found(&format!("{path}.{}", from.field), &key);
        let Some(Referenced::ConfigMap(data) | Referenced::Secret { data, .. }) = found else {
            return Files::default();
        };
        let content = |bytes: &[u8]| bytes::Bytes::copy_from_slice(bytes);
        let mut files = BTreeMap::new();
        if from.items.is_empty() {
            for (name, bytes) in data {
                if !name.contains('/') && spec::is_plain(name) {
                    files.insert(name.clone(), content(bytes));
                } else {
                    let text = format!(
                        "key `{name}` of {key} is no name of a file; give it a path in `items`"
                    );
                    self.problems
                        .invalid(format!("{path}.{}", from.field), text);
                }
            }
            return Files(Arc::new(files));
        }
        for (index, item) in from.items.iter().enumerate() {
            let at = format!("{path}.{}[{index}]", from.items_field);
            if !spec::is_plain(&item.path) || inside_another(&files, &item.path) {
                let text = format!(
                    "`{}` is no free relative path of plain names; choose another",
                    item.path
                );
                self.problems.invalid(format!("{at}.path"), text);
            }
            match data.get(&item.key) {
                Some(bytes) => drop(files.insert(item.path.clone(), content(bytes))),
                None if from.optional => {}
                None => {
                    let text = format!("{key} has no key `{}`; add it, or mend the name", item.key);
                    let field = format!("{at}.key");
                    self.problems
                        .add(Stage::Configure, Reason::ReferenceNotFound, field, text);
                }
            }
        }
        Files(Arc::new(files))
    }

    /// The mounts of a component, or of whatever `path` is.
    pub(super) fn mounts(
        &mut self,
        path: &str,
        mounts: &[api::VolumeMount],
        volumes: &[Volume],
    ) -> Vec<Mount> {
        let mounts: Vec<Mount> = mounts
            .iter()
            .map(|mount| Mount {
                volume: mount.name.clone(),
                path: mount.mount_path.clone(),
                read_only: mount.read_only == Some(true),
            })
            .collect();
        for (index, field, text) in spec::mount_problems(volumes, &mounts) {
            let field = format!("{path}.localResources.volumeMounts[{index}].{field}");
            self.problems.invalid(field, text);
        }
        mounts
    }
}

/// Whether a file would be another one, or below it, or above it.
fn inside_another(files: &BTreeMap<String, bytes::Bytes>, path: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    files
        .keys()
        .any(|other| other == path || below(other, path) || below(path, other))
}
