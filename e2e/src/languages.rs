//! The guests in languages whose components are too large to check in (they bring an engine along): built once for each
//! state of their sources, with the tools that these pin. Nothing is installed outside the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cache, install::is_not_found, process, repository};

/// For one command. Most of it goes into downloads.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The version of WASI in `wit/deps`.
const WASI: &str = "0.2.12";

/// A language with a guest in `e2e/guests/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// By `componentize-js`: StarlingMonkey, an engine with the web's interfaces.
    JavaScript,
    /// By `componentize-py`: CPython.
    Python,
}

/// Builds the guests of all languages, unless they are in the cache.
///
/// # Errors
/// As [`Language::guest`].
pub fn install() -> Result<()> {
    Language::JavaScript.guest()?;
    Language::Python.guest().map(drop)
}

// === impl Language ===

impl Language {
    /// Its guest, a component; built unless it is in the cache.
    ///
    /// # Errors
    /// When the language's own tools are missing, or the build fails.
    pub fn guest(self) -> Result<PathBuf> {
        let source = self.source();
        let key = cache::key(
            self.inputs()?
                .iter()
                .flat_map(|(path, bytes)| [path.as_os_str().as_encoded_bytes(), bytes.as_slice()]),
        );
        let target = cache::dir()?
            .join("guests")
            .join(format!("{}-{key}", self.folder()));
        cache::made(&target, |staging| {
            eprintln!("building the guest in {self:?} (once)");
            let started = Instant::now();
            let work = staging.join("work");
            copy(&source, &work)?;
            self.lay_interfaces(&work)?;
            let built = match self {
                Self::JavaScript => javascript(&work),
                Self::Python => python(&work),
            }?;
            fs::rename(built, staging.join(COMPONENT)).context("moving the component")?;
            fs::remove_dir_all(&work).context("removing what it was built with")?;
            eprintln!("built it in {:.0?}", started.elapsed());
            Ok(())
        })
        .with_context(|| format!("building {}", source.display()))?;
        Ok(target.join(COMPONENT))
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::JavaScript => "js",
            Self::Python => "python",
        }
    }

    fn source(self) -> PathBuf {
        repository().join("e2e/guests").join(self.folder())
    }

    /// All that the component depends on, with this recipe.
    fn inputs(self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut inputs = files(&self.source())?;
        inputs.extend(files(&interfaces())?);
        inputs.push((
            PathBuf::from(file!()),
            include_bytes!("languages.rs").to_vec(),
        ));
        Ok(inputs)
    }

    /// Puts the world and what it refers to into `work/wit`.
    fn lay_interfaces(self, work: &Path) -> Result<()> {
        let deps = work.join("wit/deps");
        fs::create_dir_all(&deps).context("making a folder for interfaces")?;
        fs::rename(work.join("world.wit"), work.join("wit/world.wit"))
            .context("moving world.wit")?;
        for (path, bytes) in files(&interfaces())? {
            let text = String::from_utf8(bytes).context("an interface that is no text")?;
            let text = match self {
                // This engine is built for one version, and takes no other.
                Self::JavaScript => text.replace(WASI, "0.2.10"),
                Self::Python => text,
            };
            fs::write(deps.join(path), text).context("writing an interface")?;
        }
        Ok(())
    }
}

const COMPONENT: &str = "component.wasm";

fn interfaces() -> PathBuf {
    repository().join("wit/deps")
}

fn javascript(work: &Path) -> Result<PathBuf> {
    let needed = "Node.js 20 or newer with npm, which the guest in JavaScript is built with";
    let mut install = command("npm", work);
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(install, needed)?;
    let mut build = command("node", work);
    build
        .arg("node_modules/@bytecodealliance/componentize-js/src/cli.js")
        .args(["guest.js", "--wit", "wit", "--world-name", "guest"])
        .args(["--out", COMPONENT]);
    run(build, needed)?;
    Ok(work.join(COMPONENT))
}

fn python(work: &Path) -> Result<PathBuf> {
    let needed = "Python 3.9 or newer with venv and pip (Debian: python3-venv), which the guest in Python is built with";
    let mut venv = command("python3", work);
    venv.args(["-m", "venv", "venv"]);
    run(venv, needed)?;
    let mut install = command("venv/bin/python", work);
    install
        .args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--requirement", "requirements.txt"]);
    run(install, needed)?;
    // Its search path is a folder, all of which goes into the component.
    let app = work.join("app");
    fs::create_dir(&app).context("making a folder for the program")?;
    fs::rename(work.join("app.py"), app.join("app.py")).context("moving app.py")?;
    let mut build = command("venv/bin/componentize-py", work);
    build
        .args(["--quiet", "--wit-path", "wit", "--world", "guest"])
        .args(["componentize", "app", "--python-path", "app"])
        .args(["--output", COMPONENT]);
    run(build, needed)?;
    Ok(work.join(COMPONENT))
}

/// A program of the PATH, or one below `work`.
fn command(program: &str, work: &Path) -> Command {
    let mut command = if program.contains('/') {
        Command::new(work.join(program))
    } else {
        Command::new(program)
    };
    // Python would look for modules of the component where the developer has some of their own.
    command
        .current_dir(work)
        .env_remove("VIRTUAL_ENV")
        .env_remove("PYTHONPATH");
    command
}

fn run(command: Command, needed: &str) -> Result<()> {
    let shown = format!("{command:?}");
    match process::run_inheriting(command, LIMIT) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{shown}: {status}, see its output above; it takes {needed}"),
        Err(error) if is_not_found(&error) => bail!(
            "install {needed}, or leave the end-to-end tests out with `cargo xtask test --skip e2e`"
        ),
        Err(error) => Err(error.context(shown)),
    }
}

/// The files of a folder, by name, without those of folders in it.
fn files(dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let read = || -> std::io::Result<_> {
        let mut files = Vec::new();
        for entry in dir.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push((PathBuf::from(entry.file_name()), fs::read(entry.path())?));
            }
        }
        files.sort();
        Ok(files)
    };
    read().with_context(|| format!("reading {}", dir.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for (name, bytes) in files(from)? {
        fs::write(to.join(name), bytes).context("copying a source")?;
    }
    Ok(())
}
