//! `cargo xtask generate`: the CRDs, which the Rust types are the source of, and what is made of them and of the chart.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    cargo::{self, cargo},
    chart,
    steps::Outcome,
};

/// Folders that have nothing but generated files.
const FOLDERS: [&str; 2] = ["crds", chart::CRDS];

/// Arguments of `cargo xtask generate`.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if a file is not as it would be written.
    #[arg(long)]
    check: bool,
}

/// Texts by path.
type Files = BTreeMap<String, String>;

/// Builds the programs that it takes, and writes or compares the files.
pub fn run(args: &Args) -> Result<()> {
    // All of them: with the features of one crate alone Wasmtime is compiled again.
    cargo::run(cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    if args.check {
        return match check_built()? {
            Outcome::Done => Ok(()),
            Outcome::NotRun(why) => bail!("{why}"),
        };
    }
    write(&from_types()?)?;
    // Last, as it is made of the others.
    write(&rendered()?)
}

/// As `--check`, with the programs that `cargo build` has left.
pub fn check_built() -> Result<Outcome> {
    compare(&from_types()?)?;
    if let Some(not_run) = chart::cannot_render() {
        return Ok(not_run);
    }
    compare(&rendered()?).map(|()| Outcome::Done)
}

/// The CRDs, and what of the chart is made of them.
fn from_types() -> Result<Files> {
    let mut command = Command::new(cargo::built("washlet")?);
    command.arg("crds");
    let crds = split(&cargo::output(command)?)?;
    let mut files = chart::files(&crds)?;
    let crds = crds.into_iter();
    files.extend(crds.map(|(name, text)| (format!("crds/{name}"), text)));
    Ok(files)
}

fn rendered() -> Result<Files> {
    Ok(Files::from([(
        chart::INSTALL.to_owned(),
        chart::rendered()?,
    )]))
}

fn compare(files: &Files) -> Result<()> {
    let differs = |(path, text): &(&String, &String)| {
        fs::read_to_string(crate::root().join(path)).ok().as_ref() != Some(*text)
    };
    let mut wrong: Vec<String> = files
        .iter()
        .filter(differs)
        .map(|(path, _)| path.clone())
        .collect();
    wrong.extend(strays(files)?);
    if !wrong.is_empty() {
        bail!(
            "not as they would be generated ({}): run `cargo xtask generate`",
            wrong.join(", ")
        );
    }
    Ok(())
}

fn write(files: &Files) -> Result<()> {
    for stray in strays(files)? {
        fs::remove_file(crate::root().join(&stray)).with_context(|| format!("removing {stray}"))?;
    }
    for (path, text) in files {
        let file = crate::root().join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making the folder of {path}"))?;
        }
        fs::write(file, text).with_context(|| format!("writing {path}"))?;
        println!("{path}");
    }
    Ok(())
}

/// Files in the folders of `files` that nothing stands behind any more.
fn strays(files: &Files) -> Result<Vec<String>> {
    let mut strays = Vec::new();
    for folder in FOLDERS {
        let dir = crate::root().join(folder);
        if !dir.is_dir() || !files.keys().any(|path| path.starts_with(folder)) {
            continue;
        }
        for entry in dir
            .read_dir()
            .with_context(|| format!("reading {folder}"))?
        {
            let name = entry.with_context(|| format!("reading {folder}"))?;
            let path = format!("{folder}/{}", name.file_name().to_string_lossy());
            if !files.contains_key(&path) {
                strays.push(path);
            }
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
