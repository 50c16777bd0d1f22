//! Builds the Go programs that the tests run against, once for each pinned module file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cache, process, repository};

/// A cold build of the control plane takes minutes on two cores; past this something hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// A program that a module file pins.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it is called here.
    pub name: &'static str,
    /// The Go package that it is built from.
    pub package: &'static str,
}

/// A directory of built programs.
#[derive(Clone, Debug)]
pub struct BinDir(PathBuf);

impl BinDir {
    /// The path of a program in it.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Builds `programs` as pinned by the `go.mod` of `e2e/<module>`, unless an earlier run has.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn installed(module: &str, programs: &[Program]) -> Result<BinDir> {
    let source = repository().join("e2e").join(module);
    let go_mod = fs::read_to_string(source.join("go.mod"))
        .with_context(|| format!("reading {module}/go.mod"))?;
    let go_sum =
        fs::read(source.join("go.sum")).with_context(|| format!("reading {module}/go.sum"))?;
    let ldflags = ldflags(&go_mod);

    let mut parts = vec![go_mod.as_bytes(), &go_sum, ldflags.as_bytes()];
    for program in programs {
        parts.extend([program.name.as_bytes(), program.package.as_bytes()]);
    }
    let key = cache::key(parts);
    let target = cache::dir()?.join("bin").join(format!("{module}-{key}"));
    cache::made(&target, |staging| {
        go_install(&source, &go_mod, &ldflags, programs, staging)
    })?;
    Ok(BinDir(target))
}

fn go_install(
    source: &Path,
    go_mod: &str,
    ldflags: &str,
    programs: &[Program],
    to: &Path,
) -> Result<()> {
    let names: Vec<_> = programs.iter().map(|program| program.name).collect();
    let wanted = go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .unwrap_or("1.26");
    eprintln!(
        "building {} with Go (once; some minutes when nothing is cached)",
        names.join(", ")
    );
    let started = Instant::now();

    let mut command = Command::new("go");
    command
        .current_dir(source)
        .env("GOBIN", to)
        .args(["install", "-ldflags", ldflags]);
    command.args(programs.iter().map(|program| program.package));
    let status = match process::run_inheriting(command, LIMIT) {
        Ok(status) => status,
        Err(error) if is_not_found(&error) => bail!(
            "Go is not installed. The end-to-end tests build Kubernetes' own programs with it: \
             install Go {wanted} or newer and put `go` on PATH, or leave these tests out with \
             `cargo xtask test --skip e2e`"
        ),
        Err(error) => return Err(error.context("running `go install`")),
    };
    if !status.success() {
        bail!(
            "`go install` of {} failed ({status}); it needs Go {wanted} or newer, see its output above",
            names.join(", ")
        );
    }
    for program in programs {
        let built = to.join(binary_name(program.package));
        if !built.ends_with(program.name) {
            fs::rename(&built, to.join(program.name))
                .with_context(|| format!("renaming {}", built.display()))?;
        }
    }
    eprintln!("built {} in {:.0?}", names.join(", "), started.elapsed());
    Ok(())
}

/// Kubernetes' programs learn their version from the linker; without it clients see `v0.0.0`.
fn ldflags(go_mod: &str) -> String {
    let version = go_mod
        .lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes v")
        })
        .find_map(|rest| rest.split_whitespace().next());
    let Some(version) = version else {
        return "-s -w".to_owned();
    };
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    [
        "-s -w".to_owned(),
        set("gitVersion", &format!("v{version}")),
        set("gitMajor", major),
        set("gitMinor", minor),
    ]
    .concat()
}

/// The name that `go install` gives: the last part of the path that is no major version.
fn binary_name(package: &str) -> &str {
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    };
    package
        .rsplit('/')
        .find(|part| !is_version(part))
        .unwrap_or(package)
}

/// Whether a program could not be started because there is none.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_named_by_the_last_part_that_is_no_version() {
        assert_eq!(binary_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(binary_name("k8s.io/kubernetes/cmd/kubectl"), "kubectl");
    }

    #[test]
    fn the_version_for_the_linker_comes_from_the_module_file() {
        let flags = ldflags("module x\n\nrequire k8s.io/kubernetes v1.36.3 // indirect\n");
        assert!(
            flags.contains("gitVersion=v1.36.3") && flags.contains("gitMinor=36"),
            "{flags}"
        );
        assert_eq!(ldflags("module x\n"), "-s -w");
    }
}
