//! From paths to YAML documents. What may be half a file is a problem, not a file with less in it: what ran because of it would
//! be stopped, for a moment.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::place::{Document, Problem};

/// Most bytes of one file of YAML.
const MAX_FILE: u64 = 16 << 20;

/// What is known of files before they are read again; nothing at the start.
#[derive(Debug, Default)]
pub(in crate::washlet::run) struct Before<'a> {
    /// Those that had documents when all was well.
    pub filled: BTreeSet<&'a Path>,
    /// Those that somebody writes, without symbolic links.
    pub being_written: BTreeSet<PathBuf>,
}

/// What the paths hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub documents: Vec<Document>,
    pub files: BTreeSet<PathBuf>,
    pub problems: Vec<Problem>,
}

/// Reads all paths: files, folders, and `-`.
pub(super) fn read(paths: &[PathBuf], before: &Before<'_>) -> Found {
    let mut found = Found::default();
    for path in paths {
        found.path(path, before);
    }
    found
}

impl Found {
    fn path(&mut self, path: &Path, before: &Before<'_>) {
        if path == Path::new("-") {
            let mut text = String::new();
            match io::stdin().lock().take(MAX_FILE).read_to_string(&mut text) {
                Ok(_) => self.split(Path::new("<stdin>"), Path::new("."), &text),
                Err(error) => self.problem(path, error.to_string()),
            }
        } else if path.is_dir() {
            self.folder(path, before);
        } else {
            self.file(path, before);
        }
    }

    fn folder(&mut self, folder: &Path, before: &Before<'_>) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.problem(folder, error.to_string()),
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| {
                p.extension()
                    .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|y| e == *y))
                    && (p.is_file() || is_dangling(p))
            })
            .collect();
        files.sort();
        if files.is_empty() {
            self.problem(
                folder,
                "there is no .yaml, .yml or .json file in this folder".to_owned(),
            );
        }
        for file in files {
            self.file(&file, before);
        }
    }

    fn file(&mut self, file: &Path, before: &Before<'_>) {
        self.files.insert(file.to_owned());
        if is_dangling(file) {
            let text = "a symbolic link to a file that is not there; mend it, or remove it";
            return self.problem(file, text.to_owned());
        }
        let is_open = |file: PathBuf| before.being_written.contains(&file);
        if !before.being_written.is_empty() && fs::canonicalize(file).is_ok_and(is_open) {
            let text = "still open for writing; it is read once it is closed";
            return self.problem(file, text.to_owned());
        }
        let size = fs::metadata(file).map(|m| m.len());
        match size.and_then(|size| {
            if size > MAX_FILE {
                Err(io::Error::other("larger than 16 MiB"))
            } else {
                fs::read_to_string(file)
            }
        }) {
            Ok(text) => {
                let base = file
                    .parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                let documents = self.documents.len();
                self.split(file, base, &text);
                if self.documents.len() == documents && before.filled.contains(file) {
                    let text = "empty now; remove the file to stop what it had";
                    self.problem(file, text.to_owned());
                }
            }
            Err(error) => self.problem(file, error.to_string()),
        }
    }

    /// Takes a stream of documents apart, and remembers where each begins.
    fn split(&mut self, file: &Path, base: &Path, text: &str) {
        let mut document = String::new();
        let mut begins = 1;
        for (line, number) in text.split_inclusive('\n').zip(1..) {
            if line.trim_end() == "---" || line.starts_with("--- ") {
                self.keep(file, base, begins, std::mem::take(&mut document));
                begins = number + 1;
            } else {
                document.push_str(line);
            }
        }
        self.keep(file, base, begins, document);
    }

    fn keep(&mut self, file: &Path, base: &Path, line: u64, text: String) {
        let empty = text
            .lines()
            .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#') || l.starts_with('%'));
        if !empty {
            self.documents.push(Document {
                file: file.to_owned(),
                base_dir: base.to_owned(),
                line,
                text,
            });
        }
    }

    fn problem(&mut self, file: &Path, message: String) {
        self.problems.push(Problem {
            file: file.to_owned(),
            line: None,
            message,
        });
    }
}

/// Whether this is a symbolic link that leads nowhere. Emacs locks `a.yaml` by such a link, `.#a.yaml`.
fn is_dangling(path: &Path) -> bool {
    let lock = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b".#"));
    !lock && path.is_symlink() && fs::metadata(path).is_err()
}
