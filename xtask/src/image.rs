//! `cargo xtask image`: the container image, built without a container runtime.
//!
//! One layer, and the same bytes from the same program: sorted entries, no times, root as the owner of everything. The
//! `Dockerfile` copies what `--rootfs` writes, so both ways give the same files.

mod archive;
mod rootfs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{self, cargo};
use archive::Image;
use rootfs::Rootfs;

/// The user that the program runs as; by number, so that `runAsNonRoot` can be checked.
const USER: u32 = 65_532;

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("result").required(true).multiple(true))]
pub struct Args {
    /// Write an archive for `docker load`, `ctr images import` or `kind load image-archive`.
    #[arg(long, value_name = "FILE", group = "result")]
    output: Option<PathBuf>,
    /// Write the image's files into a folder that is empty or not there.
    #[arg(long, value_name = "DIR", group = "result")]
    rootfs: Option<PathBuf>,
    /// How to build the program.
    #[arg(long, default_value = "release", value_parser = ["dev", "release"])]
    profile: String,
    /// Take this program, and build none.
    #[arg(long, value_name = "PATH", conflicts_with = "profile")]
    binary: Option<PathBuf>,
    /// The image's name in the archive.
    #[arg(long, value_name = "NAME:TAG", default_value = "localhost/washlet:dev")]
    name: String,
}

/// Builds the program unless it is given, and writes what is asked for.
pub fn run(args: &Args) -> Result<()> {
    if !args.name.contains(':') {
        bail!("--name {}: a tag is missing, as in NAME:dev", args.name);
    }
    let binary = match &args.binary {
        Some(path) => path.clone(),
        None => build(&args.profile)?,
    };
    let rootfs = Rootfs::of(&binary)?;
    if let Some(dir) = &args.rootfs {
        rootfs.write(dir)?;
        println!("{}", dir.display());
    }
    if let Some(path) = &args.output {
        let image = Image::new(&rootfs, USER)?;
        write_whole(path, &image.archive(&args.name)?)?;
        println!(
            "{}: {} {:.1} MB, {}",
            path.display(),
            args.name,
            image.size() as f64 / 1e6,
            image.id(),
        );
    }
    Ok(())
}

/// Builds `washlet` and gives its path, which cargo knows best.
fn build(profile: &str) -> Result<PathBuf> {
    let printed = cargo::output(cargo(&[
        "build",
        "--locked",
        "--package",
        "wash-runtime",
        "--bin",
        "washlet",
        "--profile",
        profile,
        "--message-format",
        "json-render-diagnostics",
    ]))?;
    executable(&printed).context("cargo built no program")
}

/// The last program among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let paths = messages.lines().rev().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    paths.into_iter().next()
}

/// A reader sees the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))
}

/// A command of the system's that is told what to install when it is missing.
fn system(program: &str, package: &str) -> impl Fn(Command) -> Result<std::process::Output> {
    let missing = format!("running `{program}`: is the package {package} installed?");
    move |mut command| command.output().with_context(|| missing.clone())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let dir = std::env::temp_dir().join(format!("washlet-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let build = || {
            let rootfs = Rootfs::of(&program).unwrap();
            Image::new(&rootfs, USER)
                .unwrap()
                .archive("localhost/x:dev")
                .unwrap()
        };
        let first = build();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        fs::File::open(&program)
            .unwrap()
            .set_modified(later)
            .unwrap();
        let second = build();
        fs::remove_dir_all(&dir).unwrap();
        assert!(first == second);
    }

    #[test]
    fn something_has_to_be_written() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            _args: Args,
        }
        let parse = |args: &[&str]| <Command as clap::Parser>::try_parse_from(args).is_ok();
        assert!(!parse(&["image", "--binary", "x"]));
        assert!(
            parse(&["image", "--rootfs", "x"])
                && parse(&["image", "--output", "x", "--rootfs", "y"])
        );
        assert!(!parse(&[
            "image",
            "--output",
            "x",
            "--binary",
            "y",
            "--profile",
            "dev"
        ]));
    }

    #[test]
    fn cargo_tells_where_the_program_is() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/washlet\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/washlet")));
        assert_eq!(executable("{}\n"), None);
    }
}
