//! Volumes of a workload, and where its components see them.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;

/// A directory that components of the workload may mount.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    /// Unique in its workload.
    pub name: String,
    /// Where its content comes from.
    pub source: VolumeSource,
}

/// Most bytes that an ephemeral volume holds that has no limit of its own: 1 GiB.
pub const DEFAULT_VOLUME_SIZE: u64 = 1 << 30;

/// Where the content of a volume comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeSource {
    /// A directory that is empty when the workload starts, is shared by all its generations, and is removed with it.
    Ephemeral {
        /// Most bytes that it holds, in files and, with 4096 a name, in directories; none means [`DEFAULT_VOLUME_SIZE`]. What
        /// would go beyond fails with `insufficient-space`. While the workload runs this limit can be changed.
        size_limit: Option<u64>,
    },
    /// A directory of the machine; the host must allow it.
    HostPath(PathBuf),
    /// These files, which guests can only read. While the workload runs they follow this content, all at once.
    Files(Files),
}

impl Default for VolumeSource {
    fn default() -> Self {
        Self::Ephemeral { size_limit: None }
    }
}

/// Contents of files, by path in the volume: relative, of plain names, with `/` between them. The `Debug` shows the paths,
/// never a content: some come from Secrets.
#[derive(Clone, Default, PartialEq)]
pub struct Files(pub Arc<BTreeMap<String, Bytes>>);

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.0.keys()).finish()
    }
}

/// A volume as a component sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Absolute path at which the component sees it, as `/data`.
    pub path: String,
    /// Whether the component may only read.
    pub read_only: bool,
}

/// What is wrong with the mounts of one component: the index of the mount, the field as in the specification of a Workload,
/// and what to do, without a subject.
#[must_use]
pub fn mount_problems(volumes: &[Volume], mounts: &[Mount]) -> Vec<(usize, &'static str, String)> {
    let mut problems = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        if !volumes.iter().any(|volume| volume.name == mount.volume) {
            let text = format!(
                "`{}` is no volume of this workload; add it to `volumes`, or mend the name",
                mount.volume
            );
            problems.push((index, "name", text));
        }
        if let Some(problem) = path_problem(&mount.path) {
            problems.push((index, "mountPath", problem));
        } else if let Some(first) = mounts
            .iter()
            .take(index)
            .find(|first| normal(&first.path) == normal(&mount.path))
        {
            let text = format!(
                "`{}` is where volume `{}` is mounted already; choose another path",
                mount.path, first.volume
            );
            problems.push((index, "mountPath", text));
        }
    }
    problems
}

fn path_problem(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!(
            "`{path}` is not absolute; begin it with `/`, as `/data`"
        ));
    }
    let odd = |part: &str| part == ".." || part == ".";
    (path.split('/').any(odd) || path.contains('\0'))
        .then(|| format!("`{path}` has `.`, `..` or a NUL in it; write the path plainly"))
}

/// A mount's path without what makes no difference: `/data` for `/data/`.
#[must_use]
pub fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

/// Whether a path is one of a file in a volume: relative, without anything that would lead out of it.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && path
            .split('/')
            // Names that begin with two dots are the volume's own.
            .all(|name| {
                !name.is_empty() && name != "." && !name.starts_with("..") && name.len() <= 255
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_mounts_are_named() {
        let volumes = [Volume {
            name: "a".to_owned(),
            ..Volume::default()
        }];
        let mount = |volume: &str, path: &str| Mount {
            volume: volume.to_owned(),
            path: path.to_owned(),
            read_only: false,
        };
        let cases = [
            (vec![mount("a", "/x"), mount("a", "/y/")], None),
            (
                vec![mount("b", "/x")],
                Some((0, "name", "`b` is no volume")),
            ),
            (
                vec![mount("a", "x")],
                Some((0, "mountPath", "not absolute")),
            ),
            (vec![mount("a", "")], Some((0, "mountPath", "not absolute"))),
            (
                vec![mount("a", "/x/../y")],
                Some((0, "mountPath", "plainly")),
            ),
            (
                vec![mount("a", "/x"), mount("a", "/x/")],
                Some((1, "mountPath", "volume `a` is mounted already")),
            ),
        ];
        for (mounts, expected) in cases {
            let problems = mount_problems(&volumes, &mounts);
            match expected {
                None => assert!(problems.is_empty(), "{problems:?}"),
                Some((index, field, part)) => {
                    assert_eq!(problems.len(), 1, "{problems:?}");
                    assert_eq!((problems[0].0, problems[0].1), (index, field));
                    assert!(problems[0].2.contains(part), "{problems:?}");
                }
            }
        }
    }

    #[test]
    fn files_stay_in_their_volume() {
        for path in ["a", "a/b.c", ".hidden", "a..b"] {
            assert!(is_plain(path), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", ".", "..data", "a\0"] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn contents_are_not_printed() {
        let files = Files(Arc::new([("key".to_owned(), "s3cret".into())].into()));
        let text = format!("{files:?}");
        assert!(text.contains("key") && !text.contains("s3cret"), "{text}");
    }
}
