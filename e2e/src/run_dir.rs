//! One temporary directory a process, for the data and the logs of everything that it starts.
//!
//! It is removed when the process ends, however it ends, by a small shell that waits for the other end of a pipe to
//! close: values in statics are never dropped, and nothing of ours runs after a SIGKILL. A panic keeps the directory, but
//! for etcd's files, which are large and say little.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Mutex, Once, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

/// Its presence tells the remover to leave the directory alone.
const KEEP: &str = "keep";

const REMOVER: &str = r#"
cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  if [ -e "$1/keep" ]; then unwanted="$1"/*/etcd; else unwanted=$1; fi
  rm -rf $unwanted 2>/dev/null && exit 0
  sleep 0.3
done"#;

struct RunDir {
    path: PathBuf,
    /// Closed by the kernel when the process is gone.
    _alive: ChildStdin,
}

/// Makes a new directory for one thing that runs, called after `label`.
///
/// # Errors
/// When the directory can't be made.
pub fn subdir(label: &str) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = run_dir()?.join(format!("{number:02}-{label}"));
    fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Keeps the directory of this run, and says once where it is.
pub fn keep() {
    static SAID: Once = Once::new();
    let Ok(dir) = run_dir() else { return };
    if fs::write(dir.join(KEEP), "").is_ok() {
        SAID.call_once(|| eprintln!("the logs of this run are kept in {}", dir.display()));
    }
}

fn run_dir() -> Result<&'static Path> {
    static RUN: OnceLock<RunDir> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock();
    if RUN.get().is_none() {
        let made = make()?;
        // Not while the lock above is held by a thread that panics: `keep` asks for this directory again.
        let _ = RUN.set(made);
        keep_on_panic();
    }
    RUN.get()
        .map(|run| run.path.as_path())
        .context("the directory of this run is missing")
}

fn make() -> Result<RunDir> {
    let path = tempfile::Builder::new()
        .prefix("washlet-e2e-")
        .tempdir()
        .context("making a temporary directory")?
        .keep();
    let mut remover = Command::new("sh")
        .args(["-c", REMOVER, "remover"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C reaches the whole foreground group; this one must see the end.
        .process_group(0)
        .spawn()
        .context("starting the remover of temporary files")?;
    let alive = remover
        .stdin
        .take()
        .context("the remover has no standard input")?;
    Ok(RunDir {
        path,
        _alive: alive,
    })
}

fn keep_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        keep();
    }));
}
