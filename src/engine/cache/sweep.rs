//! What leaves the cache: leftovers of processes that were killed, code that no engine of this version runs, and, when there is
//! too much, what has not been used for longest. Code that is mapped goes on without its file.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::engine::Flavor;

/// How the name of a file begins that is not whole yet.
pub(super) const WRITING: &str = ".writing-";

/// Nobody writes for this long.
const LEFTOVER: Duration = Duration::from_secs(3600);
/// Code of another version is kept for this long after its last use: the two may take turns.
const OTHERS: Duration = Duration::from_secs(24 * 3600);

/// Removes leftovers, and what engines of these flavors with other endings of names have left. Flavors that are not among them
/// have no engine yet, which would be asked.
pub(super) fn tidy(directory: &Path, current: &[(Flavor, String)], now: SystemTime) {
    for (path, found) in files(directory) {
        let name = name(&path);
        let limit = if name.starts_with(WRITING) {
            LEFTOVER
        } else if is_of_others(name, current) {
            OTHERS
        } else {
            continue;
        };
        let age = found
            .modified()
            .ok()
            .and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age > limit) {
            remove(&path);
        }
    }
}

/// Removes machine code until there is no more than this, in bytes.
pub(super) fn fit(directory: &Path, space: u64, keep: Option<&Path>) {
    let mut code: Vec<_> = files(directory)
        .filter(|(path, _)| path.extension() == Some(OsStr::new("cwasm")))
        .map(|(path, found)| (found.modified().ok(), found.len(), path))
        .collect();
    let mut sum: u64 = code.iter().map(|(_, size, _)| size).sum();
    if sum <= space {
        return;
    }
    code.sort();
    for (_, size, path) in code {
        if sum <= space {
            break;
        }
        if keep != Some(path.as_path()) {
            remove(&path);
            sum -= size;
        }
    }
}

/// The files of a directory. What is gone in between, or cannot be read, is left out.
fn files(directory: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let found = entry.metadata().ok().filter(Metadata::is_file)?;
        Some((entry.path(), found))
    })
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Whether a name is of one of these flavors, and not of its engine.
fn is_of_others(name: &str, current: &[(Flavor, String)]) -> bool {
    let mut parts = name.split('.').skip(1);
    let flavor = parts.next();
    let ours = current.iter().find(|(f, _)| Some(f.as_str()) == flavor);
    name.ends_with(".cwasm") && ours.is_some_and(|(_, ending)| !name.ends_with(ending))
}

/// Another process may have been faster.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "old machine code stays");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Makes a file of ten bytes that was used so long ago.
    fn file(directory: &Path, name: &str, age: Duration) {
        let path = directory.join(name);
        fs::write(&path, [0; 10]).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn left(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = files(directory).map(|(p, _)| name(&p).to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn leftovers_and_code_of_other_versions_go() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            (".writing-old", 2, false),
            (".writing-new", 0, true),
            ("a.plain.00.cwasm", 1000, true),
            ("a.plain.11.cwasm", 25, false),
            ("b.plain.11.cwasm", 23, true),
            // Each flavor has its own.
            ("c.plain.22.cwasm", 25, false),
            ("c.concurrent.22.cwasm", 25, true),
            // Nobody knows yet.
            ("d.plain-metered.33.cwasm", 25, true),
            ("notes.plain.txt", 1000, true),
        ];
        for (name, hours, _) in files {
            file(directory.path(), name, HOUR * hours);
        }
        let current = [
            (Flavor::Plain, ".plain.00.cwasm".to_owned()),
            (Flavor::Concurrent, ".concurrent.22.cwasm".to_owned()),
        ];
        tidy(directory.path(), &current, SystemTime::now());
        let mut wanted: Vec<&str> = files.iter().filter(|f| f.2).map(|f| f.0).collect();
        wanted.sort_unstable();
        assert_eq!(left(directory.path()), wanted);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let all = ["a.cwasm", "b.cwasm", "c.cwasm", "d.cwasm"];
        for (name, hours) in all.iter().zip([3, 4, 1, 2]) {
            file(directory.path(), name, HOUR * hours);
        }
        file(directory.path(), "other", HOUR * 9);
        let fit = |space, keep: &str| {
            fit(directory.path(), space, Some(&directory.path().join(keep)));
            left(directory.path())
        };
        assert_eq!(fit(40, "").len(), 5);
        assert_eq!(fit(39, ""), ["a.cwasm", "c.cwasm", "d.cwasm", "other"]);
        assert_eq!(fit(15, "a.cwasm"), ["a.cwasm", "other"]);
        assert_eq!(fit(0, "a.cwasm"), ["a.cwasm", "other"]);
    }
}
