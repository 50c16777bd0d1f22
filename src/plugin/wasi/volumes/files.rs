//! Files that change all at once, laid out as a kubelet does: `..data` is a symbolic link to the directory of one version,
//! and each name in the volume leads through it. A reader that opens a file sees one version whole; a new version is seen
//! with the one rename that turns `..data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::Path,
};

use bytes::Bytes;

use super::place;
use crate::spec;

/// The link that is turned.
const DATA: &str = "..data";
/// What the link is made as.
const NEXT: &str = "..next";

/// Makes the volume's content `files`. If it fails, the former content stays.
pub(super) fn write(volume: &Path, files: &BTreeMap<String, Bytes>) -> io::Result<()> {
    if let Some(path) = files.keys().find(|path| !spec::is_plain(path)) {
        let text = format!("`{path}` is no path of a file in a volume");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let former = fs::read_link(volume.join(DATA)).ok();
    let version = tempfile::Builder::new()
        .prefix("..")
        .tempdir_in(volume)?
        .keep();
    let written = fill(&version, files).and_then(|()| turn(volume, &version));
    if let Err(error) = written {
        place::remove(&version);
        return Err(error);
    }
    // From here on readers see the new version; names follow.
    let names: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &names {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(volume)? {
        let name: OsString = entry?.file_name();
        let own = name.as_encoded_bytes().starts_with(b"..");
        if !own && !name.to_str().is_some_and(|n| names.contains(n)) {
            fs::remove_file(volume.join(name))?;
        }
    }
    if let Some(former) = former {
        place::remove(&volume.join(former));
    }
    Ok(())
}

fn fill(version: &Path, files: &BTreeMap<String, Bytes>) -> io::Result<()> {
    for (path, content) in files {
        let path = version.join(path);
        if let Some(folder) = path.parent() {
            place::directories(folder)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o400);
        options.open(&path)?.write_all(content)?;
    }
    Ok(())
}

fn turn(volume: &Path, version: &Path) -> io::Result<()> {
    let next = volume.join(NEXT);
    // Left behind if a former try failed just here.
    let _ = fs::remove_file(&next);
    symlink(version.file_name().unwrap_or_default(), &next)?;
    fs::rename(&next, volume.join(DATA))
}
