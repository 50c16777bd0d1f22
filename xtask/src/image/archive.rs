//! An image as `docker save` would write it: a layer, a configuration, and `manifest.json`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::rootfs::{Node, Rootfs};

/// What the image says about itself; the `Dockerfile` says the same.
const LABELS: [(&str, &str); 3] = [
    ("org.opencontainers.image.title", "washlet"),
    (
        "org.opencontainers.image.source",
        env!("CARGO_PKG_REPOSITORY"),
    ),
    ("org.opencontainers.image.licenses", "Apache-2.0"),
];

/// An image of one layer.
pub(super) struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
}

// === impl Image ===

impl Image {
    /// An image that runs the program of `rootfs` as the user of this number.
    pub(super) fn new(rootfs: &Rootfs, user: u32) -> Result<Self> {
        let layer = layer(rootfs)?;
        let labels: Value = LABELS
            .iter()
            .map(|&(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        let config = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {"User": format!("{user}:{user}"), "Entrypoint": [rootfs.program], "WorkingDir": "/", "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        });
        let config = serde_json::to_vec(&config).context("an image's configuration")?;
        Ok(Self { layer, config })
    }

    /// The digest of its configuration, which is what runtimes call its id.
    pub(super) fn id(&self) -> String {
        format!("sha256:{}", sha256(&self.config))
    }

    /// Bytes on a node's disk.
    pub(super) fn size(&self) -> usize {
        self.layer.len()
    }

    /// The archive, in which the image has this name.
    pub(super) fn archive(&self, name: &str) -> Result<Vec<u8>> {
        let config = format!("{}.json", sha256(&self.config));
        let layer = format!("{}.tar", sha256(&self.layer));
        let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": [layer]}]);
        let manifest = serde_json::to_vec(&manifest).context("an archive's manifest")?;
        let mut tar = Builder::new(Vec::new());
        append(
            &mut tar,
            "manifest.json",
            EntryType::Regular,
            0o644,
            &manifest,
        )?;
        append(&mut tar, &config, EntryType::Regular, 0o644, &self.config)?;
        append(&mut tar, &layer, EntryType::Regular, 0o644, &self.layer)?;
        tar.into_inner().context("writing an archive")
    }
}

fn layer(rootfs: &Rootfs) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, entry) in &rootfs.entries {
        match &entry.node {
            Node::Dir => append(
                &mut tar,
                &format!("{path}/"),
                EntryType::Directory,
                entry.mode,
                &[],
            ),
            Node::File(bytes) => append(&mut tar, path, EntryType::Regular, entry.mode, bytes),
        }?;
    }
    tar.into_inner().context("writing a layer")
}

/// An entry that tells nothing about the machine and the time that it was made at.
fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header
        .set_path(path)
        .with_context(|| format!("the path {path} in an archive"))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    tar.append(&header, bytes)
        .with_context(|| format!("adding {path} to an archive"))
}

/// This machine's architecture in the words of image configurations: the program was built for it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images are made for amd64 and arm64; this machine is {other}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;
    use crate::image::rootfs::Entry;

    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        files
    }

    #[test]
    fn an_archive_names_its_parts_by_what_they_hold() {
        let entry = |mode, node| Entry { mode, node };
        let rootfs = Rootfs {
            entries: BTreeMap::from([
                ("bin".to_owned(), entry(0o755, Node::Dir)),
                (
                    "bin/x".to_owned(),
                    entry(0o755, Node::File(b"ELF".to_vec())),
                ),
            ]),
            program: "/bin/x".to_owned(),
        };
        let image = Image::new(&rootfs, 65_532).unwrap();
        let files_of_archive = files(&image.archive("localhost/x:dev").unwrap());
        let manifest: Value = serde_json::from_slice(&files_of_archive["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/x:dev");
        let config = &files_of_archive[manifest[0]["Config"].as_str().unwrap()];
        assert_eq!(format!("sha256:{}", sha256(config)), image.id());
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/x");
        let layer = &files_of_archive[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", sha256(layer))
        );
        assert_eq!(files(layer)["bin/x"], b"ELF");
    }
}
