//! `cargo xtask generate`: the CRDs, which the Rust types are the source of.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    cargo::{self, cargo},
    steps::Outcome,
};

/// Arguments of `cargo xtask generate`.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if a file is not as it would be written.
    #[arg(long)]
    check: bool,
}

/// Builds the program that prints the CRDs, and writes or compares them.
pub fn run(args: &Args) -> Result<()> {
    let printed = cargo::output(cargo(&[
        "run",
        "--quiet",
        "--package",
        "wash-runtime",
        "--bin",
        "washlet",
        "--",
        "crds",
    ]))?;
    let files = split(&printed)?;
    if args.check {
        compare(&files)
    } else {
        write(&files)
    }
}

/// As `--check`, with the program that `cargo build` has left.
pub fn check_built() -> Result<Outcome> {
    let mut command = Command::new(cargo::built("washlet")?);
    command.arg("crds");
    compare(&split(&cargo::output(command)?)?).map(|()| Outcome::Done)
}

fn compare(files: &BTreeMap<String, String>) -> Result<()> {
    let dir = crate::root().join("crds");
    let differs = |(name, text): &(&String, &String)| {
        fs::read_to_string(dir.join(name)).ok().as_ref() != Some(*text)
    };
    let mut wrong: Vec<String> = files
        .iter()
        .filter(differs)
        .map(|(name, _)| name.clone())
        .collect();
    wrong.extend(strays(&dir, files)?);
    if !wrong.is_empty() {
        bail!(
            "crds/ is not what the types say ({}): run `cargo xtask generate`",
            wrong.join(", ")
        );
    }
    Ok(())
}

fn write(files: &BTreeMap<String, String>) -> Result<()> {
    let dir = crate::root().join("crds");
    fs::create_dir_all(&dir).context("making crds/")?;
    for stray in strays(&dir, files)? {
        fs::remove_file(dir.join(&stray)).with_context(|| format!("removing crds/{stray}"))?;
    }
    for (name, text) in files {
        fs::write(dir.join(name), text).with_context(|| format!("writing crds/{name}"))?;
        println!("crds/{name}");
    }
    Ok(())
}

/// Files that no type stands behind any more.
fn strays(dir: &Path, files: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut strays = Vec::new();
    for entry in dir.read_dir().context("reading crds/")? {
        let name = entry
            .context("reading crds/")?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !files.contains_key(&name) {
            strays.push(name);
        }
    }
    Ok(strays)
}

/// A file for each document, called GROUP_PLURAL.yaml, as controller-gen does.
fn split(printed: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let documents = format!("\n{printed}");
    let documents = documents.split("\n---").map(str::trim);
    for document in documents.filter(|document| !document.is_empty()) {
        // metadata.name is PLURAL.GROUP, and the first name with a dot.
        let mut names = document
            .lines()
            .filter_map(|line| line.strip_prefix("  name: "));
        let name = names.find_map(|name| name.split_once('.'));
        let (plural, group) =
            name.context("`washlet crds` printed a document without metadata.name")?;
        files.insert(format!("{group}_{plural}.yaml"), format!("{document}\n"));
    }
    if files.is_empty() {
        bail!("`washlet crds` printed nothing");
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_is_a_file_called_after_its_group_and_plural() {
        let printed = "---\n# by hand\nkind: A\nmetadata:\n  name: hosts.x.dev\nspec:\n  a: '---'\n---\nkind: B\nmetadata:\n  name: ws.x.dev\n";
        let files = split(printed).unwrap();
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["x.dev_hosts.yaml", "x.dev_ws.yaml"]
        );
        assert!(files["x.dev_hosts.yaml"].starts_with("# by hand\n"));
        assert!(files["x.dev_ws.yaml"].ends_with("ws.x.dev\n"));
        assert!(split("").is_err());
    }
}
