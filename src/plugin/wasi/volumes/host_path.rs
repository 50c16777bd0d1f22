//! Directories of the machine, opened only below those that the host was told to allow.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::VolumesError;

/// The directories below which `hostPath` volumes may be: as they were given, and where they really are.
#[derive(Debug, Default)]
pub(super) struct Roots(Vec<(PathBuf, PathBuf)>);

impl Roots {
    pub fn open(roots: &[PathBuf]) -> Result<Self, VolumesError> {
        let open = |root: &PathBuf| {
            let real = fs::canonicalize(root).map_err(|source| VolumesError::HostPathRoot {
                path: root.clone(),
                source,
            })?;
            Ok((root.clone(), real))
        };
        roots.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Opens a directory that is below a root, with all symbolic links followed; or says why not, after the field's name.
    pub fn open_below(&self, path: &Path) -> Result<File, String> {
        let shown = path.display();
        let Some(plain) = path.to_str().and_then(|p| p.strip_prefix('/')) else {
            return Err(format!(
                "`{shown}` is not an absolute path; begin it with `/`"
            ));
        };
        if plain.split('/').any(|part| part == ".." || part == ".") {
            return Err(format!(
                "`{shown}` has `.` or `..` in it; write the path plainly"
            ));
        }
        // Looked at first, so that nobody learns what there is elsewhere.
        let named =
            |(given, real): &(PathBuf, PathBuf)| path.starts_with(given) || path.starts_with(real);
        if !self.0.iter().any(named) {
            return Err(format!("`{shown}` is {}", self.not_allowed()));
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits().cast_signed())
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("`{shown}` does not exist on this node; make the directory, or mend the path")
                }
                io::ErrorKind::NotADirectory => {
                    format!("`{shown}` is no directory; name one")
                }
                _ => format!("`{shown}` cannot be opened: {error}"),
            })?;
        // What was opened is looked at, not the path once more: that may lead elsewhere by now.
        let real = fs::read_link(again(&directory))
            .map_err(|error| format!("`{shown}` cannot be opened: {error}"))?;
        if self.0.iter().any(|(_, root)| real.starts_with(root)) {
            Ok(directory)
        } else {
            Err(format!(
                "`{shown}` leads by a symbolic link to a place that is {}",
                self.not_allowed()
            ))
        }
    }

    fn not_allowed(&self) -> String {
        let allowed = match &self.0[..] {
            [] => "it allows none".to_owned(),
            roots => {
                let shown: Vec<_> = roots.iter().map(|(r, _)| r.display().to_string()).collect();
                format!("it allows {}", shown.join(", "))
            }
        };
        format!(
            "below no directory that this host allows ({allowed}); start it with --host-path-root, or use another volume"
        )
    }
}

/// A path by which an open directory is opened once more, whatever has become of its name.
pub(super) fn again(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}
