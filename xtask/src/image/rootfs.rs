//! The files of an image: a program, what the dynamic loader needs to start it, and what a C library looks up.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{USER, system};

/// Authorities that programs which read the system's trust; left out where the build machine has none.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// What is at a path.
pub(super) enum Node {
    Dir,
    File(Vec<u8>),
}

/// A node with its mode; its owner is root always, so the program can change nothing.
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) node: Node,
}

/// Paths without a leading `/`; parents sort before their children.
pub(super) struct Rootfs {
    pub(super) entries: BTreeMap<String, Entry>,
    /// The program's own path in the image, with a leading `/`.
    pub(super) program: String,
}

// === impl Rootfs ===

impl Rootfs {
    /// The files that `binary` needs on a machine like this one.
    pub(super) fn of(binary: &Path) -> Result<Self> {
        let name = binary.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} names no program", binary.display()))?;
        let mut this = Self {
            entries: BTreeMap::new(),
            program: format!("/{name}"),
        };
        let accounts = |root: &str, own: &str| format!("{root}\n{own}\n").into_bytes();
        let (user, nowhere) = (USER, "/:/sbin/nologin");
        this.file(
            "etc/passwd",
            0o644,
            accounts(
                &format!("root:x:0:0:root:{nowhere}"),
                &format!("nonroot:x:{user}:{user}:nonroot:{nowhere}"),
            ),
        );
        this.file(
            "etc/group",
            0o644,
            accounts("root:x:0:", &format!("nonroot:x:{user}:")),
        );
        this.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n".to_vec());
        if let Ok(authorities) = fs::read(Path::new("/").join(AUTHORITIES)) {
            this.file(AUTHORITIES, 0o644, authorities);
        }
        let license = crate::root().join("LICENSE");
        let license =
            fs::read(&license).with_context(|| format!("reading {}", license.display()))?;
        this.file("usr/share/licenses/washlet/LICENSE", 0o644, license);
        this.dir("tmp", 0o1777);
        for library in libraries(binary)? {
            let bytes =
                fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
            let path = library
                .to_str()
                .with_context(|| format!("{} is no UTF-8", library.display()))?;
            this.file(path.trim_start_matches('/'), 0o755, bytes);
        }
        this.file(name, 0o755, stripped(binary)?);
        Ok(this)
    }

    /// Writes it into a folder that is empty or not there.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        if dir
            .read_dir()
            .with_context(|| format!("reading {}", dir.display()))?
            .next()
            .is_some()
        {
            bail!("--rootfs {}: the folder is not empty", dir.display());
        }
        for (path, entry) in &self.entries {
            let path = dir.join(path);
            match &entry.node {
                Node::Dir => fs::create_dir(&path),
                Node::File(bytes) => fs::write(&path, bytes),
            }
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)))
            .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn dir(&mut self, path: &str, mode: u32) {
        self.parents(path);
        let node = Node::Dir;
        self.entries.insert(path.to_owned(), Entry { mode, node });
    }

    fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.parents(path);
        let node = Node::File(bytes);
        self.entries.insert(path.to_owned(), Entry { mode, node });
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            self.entries.entry(parent.to_owned()).or_insert(Entry {
                mode: 0o755,
                node: Node::Dir,
            });
        }
    }
}

/// The program without its symbols, which are most of a development build.
fn stripped(binary: &Path) -> Result<Vec<u8>> {
    let to = std::env::temp_dir().join(format!(
        "{}-{}",
        binary.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let mut command = Command::new("strip");
    command.arg("--strip-all").arg("-o").arg(&to).arg(binary);
    let output = system("strip", "binutils")(command)?;
    if !output.status.success() {
        bail!(
            "strip {}: {}",
            binary.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let bytes = fs::read(&to).with_context(|| format!("reading {}", to.display()));
    // Of no use, and at worst left to the system's own cleaning.
    let _ = fs::remove_file(&to);
    bytes
}

/// The dynamic loader and the shared libraries of a program, as the loader itself tells them.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(binary).env("LC_ALL", "C");
    let output = system("ldd", "libc-bin")(command)?;
    let said = String::from_utf8_lossy(&output.stdout);
    // ldd fails for a program that needs none.
    let is_static = said.contains("statically linked")
        || String::from_utf8_lossy(&output.stderr).contains("not a dynamic executable");
    if is_static {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!(
            "ldd {}: {}",
            binary.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    parse_ldd(&said)
}

/// Lines are `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)`, or `NAME (ADDRESS)` for what the kernel brings.
fn parse_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("a library that the program needs is missing: {line}");
        }
        let target = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = target
            .split_once(" (")
            .map_or(target, |(path, _)| path)
            .trim();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_lines_with_a_path() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let paths = parse_ldd(said).unwrap();
        assert_eq!(
            paths,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        let missing = parse_ldd("\tlibfoo.so.1 => not found\n").unwrap_err();
        assert!(missing.to_string().contains("libfoo.so.1"));
    }

    #[test]
    fn a_program_comes_with_its_loader_and_without_its_symbols() {
        let own = std::env::current_exe().unwrap();
        let rootfs = Rootfs::of(&own).unwrap();
        let paths: Vec<_> = rootfs.entries.keys().map(String::as_str).collect();
        assert!(
            paths.iter().any(|path| path.contains("libc.so")),
            "{paths:?}"
        );
        assert!(paths.contains(&"etc/passwd") && paths.contains(&"tmp"));
        let program = &rootfs.entries[rootfs.program.trim_start_matches('/')];
        let Node::File(bytes) = &program.node else {
            panic!("the program is no file")
        };
        assert!(
            bytes.starts_with(b"\x7fELF")
                && (bytes.len() as u64) < fs::metadata(&own).unwrap().len()
        );
    }
}
