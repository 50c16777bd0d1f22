//! From files to desired states: finds YAML, takes it apart, and says file, line and field of all that is wrong.

mod place;
mod read;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    spec::{self, Source},
    washlet::{
        api,
        convert::{self, Outcome, ReferenceKey, ReferenceKind, Referenced, Resolved},
    },
};

use place::Document;
pub use place::{ManifestError, Problem};
pub(super) use read::Before;

/// The namespace of what names none.
const NAMESPACE: &str = "default";

/// All that the files say.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub workloads: HashMap<spec::WorkloadId, spec::Workload>,
    /// Documents that mean nothing here, as `Kind name (file:line)`.
    pub skipped: Vec<String>,
    /// Files that, when they change, change what runs.
    pub files: BTreeSet<PathBuf>,
    /// The file that each workload is in.
    homes: HashMap<spec::WorkloadId, PathBuf>,
    /// Files with documents in them.
    filled: BTreeSet<PathBuf>,
}

/// Why there is nothing to run, and the files that may change that.
#[derive(Debug)]
pub(super) struct Rejected {
    pub error: ManifestError,
    pub files: BTreeSet<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeaderMeta,
}

#[derive(Deserialize, Default)]
struct HeaderMeta {
    #[serde(default)]
    name: String,
}

/// Reads all paths: files, folders (their `*.yaml`, `*.yml` and `*.json`, not deeper), and `-`.
pub(super) fn load(paths: &[PathBuf], before: &Before<'_>) -> Result<Loaded, Rejected> {
    let found = read::read(paths, before);
    let mut reader = Reader {
        problems: found.problems,
        ..Reader::default()
    };
    reader.loaded.files = found.files;
    // What a document refers to may be in a file that cannot be read.
    if reader.problems.is_empty() {
        for document in &found.documents {
            reader.loaded.filled.insert(document.file.clone());
            reader.document(document);
        }
    }
    reader.finish(paths)
}

impl Loaded {
    /// What is to be known of the files when they are read again, while others write some of them.
    pub fn before(&self, being_written: BTreeSet<PathBuf>) -> Before<'_> {
        Before {
            filled: self.filled.iter().map(PathBuf::as_path).collect(),
            being_written,
        }
    }

    /// Takes over the workloads that are gone from files that are still there: a file may be written in steps, each of which
    /// closes it. Says whether there are any.
    pub fn hold(&mut self, last: &Self) -> bool {
        let mut held = false;
        for (id, file) in &last.homes {
            if let Some(workload) = last.workloads.get(id)
                && !self.workloads.contains_key(id)
                && file.exists()
            {
                self.workloads.insert(id.clone(), workload.clone());
                self.homes.insert(id.clone(), file.clone());
                held = true;
            }
        }
        held
    }
}

#[derive(Default)]
struct Reader {
    workloads: Vec<(api::Workload, usize)>,
    places: Vec<(PathBuf, PathBuf, u64, String)>,
    outcomes: HashMap<ReferenceKey, Outcome>,
    loaded: Loaded,
    problems: Vec<Problem>,
}

impl Reader {
    fn document(&mut self, document: &Document) {
        let Some(content) = self.parse(document) else {
            return;
        };
        let Some(header) = self.typed::<Header>(document, &content) else {
            return;
        };
        match (header.api_version.as_str(), header.kind.as_str()) {
            (group, "Workload") if group.starts_with("runtime.wasmcloud.dev/") => {
                self.workload(document, content)
            }
            ("v1", "Secret") => {
                if let Some(mut secret) = self.typed::<Secret>(document, &content) {
                    // The API server moves `stringData` into `data`; here nobody else does.
                    let plain = secret.string_data.take().unwrap_or_default();
                    let plain = plain
                        .into_iter()
                        .map(|(k, v)| (k, k8s_openapi::ByteString(v.into_bytes())));
                    secret.data.get_or_insert_default().extend(plain);
                    let meta = secret.metadata.clone();
                    self.reference(
                        ReferenceKind::Secret,
                        meta.namespace,
                        meta.name,
                        secret.into(),
                    );
                }
            }
            ("v1", "ConfigMap") => {
                if let Some(map) = self.typed::<ConfigMap>(document, &content) {
                    let meta = map.metadata.clone();
                    self.reference(
                        ReferenceKind::ConfigMap,
                        meta.namespace,
                        meta.name,
                        map.into(),
                    );
                }
            }
            ("v1", "ServiceAccount") => {
                if let Some(account) = self.typed::<ServiceAccount>(document, &content) {
                    let meta = account.metadata.clone();
                    self.reference(
                        ReferenceKind::ServiceAccount,
                        meta.namespace,
                        meta.name,
                        account.into(),
                    );
                }
            }
            ("", _) | (_, "") => {
                self.problem(
                    &document.file,
                    Some(document.line),
                    "apiVersion and kind are needed".to_owned(),
                );
            }
            (_, kind) => {
                let place = format!("{}:{}", document.file.display(), document.line);
                self.loaded
                    .skipped
                    .push(format!("{kind} {} ({place})", header.metadata.name));
            }
        }
    }

    fn reference(
        &mut self,
        kind: ReferenceKind,
        namespace: Option<String>,
        name: Option<String>,
        content: Referenced,
    ) {
        let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
        let key = ReferenceKey {
            kind,
            namespace,
            name: name.unwrap_or_default(),
        };
        self.outcomes.insert(key, Outcome::Found(content));
    }

    fn workload(&mut self, document: &Document, mut content: Value) {
        for field in api::admit(&mut content) {
            let message =
                format!("`{field}` is no field of a Workload; mend the name, or remove it");
            self.problem(&document.file, Some(document.line_of(&field)), message);
        }
        let Some(mut workload) = self.typed::<api::Workload>(document, &content) else {
            return;
        };
        workload
            .metadata
            .namespace
            .get_or_insert_with(|| NAMESPACE.to_owned());
        if workload
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            return self.problem(
                &document.file,
                Some(document.line),
                "metadata.name is empty".to_owned(),
            );
        }
        self.workloads.push((workload, self.places.len()));
        self.places.push((
            document.file.clone(),
            document.base_dir.clone(),
            document.line,
            document.text.clone(),
        ));
    }

    fn parse(&mut self, document: &Document) -> Option<Value> {
        match serde_saphyr::from_str(&document.text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let line = error.location().map(|l| l.line() + document.line - 1);
                let text = error.without_snippet().to_string();
                // It ends with a place in the document, and a file has many.
                let text = text.split(" at line ").next().unwrap_or(&text);
                let text = format!("not YAML: {text}");
                self.problem(&document.file, line.or(Some(document.line)), text);
                None
            }
        }
    }

    /// Gives what was parsed its type, or says which field has another one.
    fn typed<T: DeserializeOwned>(&mut self, document: &Document, content: &Value) -> Option<T> {
        match serde_path_to_error::deserialize(content) {
            Ok(typed) => Some(typed),
            Err(error) => {
                let field = error.path().to_string();
                let text = format!("{field}: {}", error.inner());
                self.problem(&document.file, Some(document.line_of(&field)), text);
                None
            }
        }
    }

    fn finish(mut self, paths: &[PathBuf]) -> Result<Loaded, Rejected> {
        for (workload, place) in std::mem::take(&mut self.workloads) {
            self.convert(&workload, place);
        }
        if self.loaded.workloads.is_empty() && self.problems.is_empty() {
            let path = paths.first().cloned().unwrap_or_default();
            self.problem(
                &path,
                None,
                "there is no Workload here; see examples/hello".to_owned(),
            );
        }
        if self.problems.is_empty() {
            Ok(self.loaded)
        } else {
            Err(Rejected {
                error: ManifestError(self.problems),
                files: self.loaded.files,
            })
        }
    }

    fn convert(&mut self, workload: &api::Workload, place: usize) {
        let Some((file, base_dir, line, text)) = self.places.get(place).cloned() else {
            return;
        };
        let resolved = Resolved {
            outcomes: self.outcomes.clone(),
            base_dir: Some(base_dir.clone()),
        };
        let document = Document {
            file: file.clone(),
            base_dir,
            line,
            text,
        };
        match convert::convert(workload, &resolved) {
            Ok(mut desired) => {
                let files = self.component_files(&desired, &document);
                desired.stamp ^= stamp(&files);
                self.loaded.files.extend(files);
                let id: spec::WorkloadId =
                    Arc::from(format!("{}/{}", desired.namespace, desired.name));
                let kubernetes = workload.spec.kubernetes.as_ref();
                if kubernetes.is_some_and(|k| k.service.is_some()) {
                    let place = format!("{}:{line}", file.display());
                    self.loaded
                        .skipped
                        .push(format!("spec.kubernetes.service of {id} ({place})"));
                }
                desired.owner = id.clone();
                desired.id = id.clone();
                self.loaded.homes.insert(id.clone(), file.clone());
                if self.loaded.workloads.insert(id.clone(), desired).is_some() {
                    self.problem(
                        &file,
                        Some(line),
                        format!("a second Workload is called {id}; names are unique"),
                    );
                }
            }
            Err(error) => {
                for problem in error.problems() {
                    self.problem(
                        &file,
                        Some(document.line_of(&problem.field)),
                        problem.to_string(),
                    );
                }
            }
        }
    }

    /// The files that a workload's components are in. One that is not there is a mistake in its name, or not built yet.
    fn component_files(&mut self, workload: &spec::Workload, document: &Document) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for (index, component) in workload.components.iter().enumerate() {
            let Source::File(path) = &component.source else {
                continue;
            };
            if !path.is_file() {
                let field = if component.is_service() {
                    "spec.service.image".to_owned()
                } else {
                    format!("spec.components[{index}].image")
                };
                let text = format!(
                    "{field}: there is no file {}; build it, or mend the name",
                    path.display()
                );
                self.problem(&document.file, Some(document.line_of(&field)), text);
            }
            files.push(path.clone());
        }
        files
    }

    fn problem(&mut self, file: &Path, line: Option<u64>, message: String) {
        self.problems.push(Problem {
            file: file.to_owned(),
            line,
            message,
        });
    }
}

/// Differs whenever a file has changed.
fn stamp(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let meta = fs::metadata(file).ok();
        meta.as_ref().map(fs::Metadata::len).hash(&mut hasher);
        meta.as_ref()
            .and_then(|m| m.modified().ok())
            .hash(&mut hasher);
        // Two writes within one tick of the file system's clock differ by these, if by anything.
        meta.map(|m| (m.ino(), m.ctime(), m.ctime_nsec()))
            .hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
