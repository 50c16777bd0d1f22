//! Child processes that can't outlive this one, and commands with a hard limit.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Pid;
pub use rustix::process::Signal;

const POLL: Duration = Duration::from_millis(10);

/// A server that was started here, with its output in a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command` with its standard output and error appended to `log`.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let stdout = file.try_clone().context("sharing a log file")?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(file);
        let child = spawn(command).with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Fails, with the end of its output, when it has exited.
    ///
    /// # Errors
    /// When it no longer runs.
    pub fn check_running(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("asking after {}", self.name))?
        {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended early ({status}):\n{}",
                self.name,
                self.log_tail(30)
            ),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit code when it ends within `limit`.
    ///
    /// # Errors
    /// When it goes on past the limit (it is killed then) or dies by a signal.
    pub async fn terminate(&mut self, limit: Duration) -> Result<i32> {
        self.signal(Signal::TERM)?;
        self.wait(limit).await
    }

    /// Its exit code when it ends within `limit`.
    ///
    /// # Errors
    /// As [`Process::terminate`].
    pub async fn wait(&mut self, limit: Duration) -> Result<i32> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("waiting for a process")? {
                break status;
            }
            if started.elapsed() > limit {
                self.kill9();
                bail!(
                    "{} did not end within {limit:?}:\n{}",
                    self.name,
                    self.log_tail(30)
                );
            }
            tokio::time::sleep(POLL).await;
        };
        let died = || anyhow!("{} died by signal {:?}", self.name, status.signal());
        status.code().ok_or_else(died)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} has no process id", self.name))?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("signalling {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

// === commands with an end ===

/// Runs a command to its end with its output captured; kills it after `limit`.
///
/// # Errors
/// When it can't be started or is killed. A failure of the command itself is in the status.
pub fn run(mut command: Command, limit: Duration) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, limit)?;
    let joined = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output {
        status,
        stdout: joined(stdout),
        stderr: joined(stderr),
    })
}

/// Runs a command to its end with this process's output; kills it after `limit`.
///
/// # Errors
/// As [`run`].
pub fn run_inheriting(mut command: Command, limit: Duration) -> Result<ExitStatus> {
    // Tests' own output is for their results.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    wait(&mut spawn(command)?, limit)
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            return Ok(status);
        }
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("killed after {limit:?}");
        }
        thread::sleep(POLL);
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // Cut short is what a killed command's output is.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

// === starting ===

type Spawn = Box<dyn FnOnce() + Send>;

/// The kernel sends the death signal when the *thread* that forked ends, and each test is a thread: this one stays.
static SPAWNER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Spawn>();
    thread::spawn(move || jobs.into_iter().for_each(|job| job()));
    sender
});

fn spawn(mut command: Command) -> Result<Child> {
    // A group of its own: Ctrl-C is for the one who started it, who then stops things in order.
    command.process_group(0);
    die_with_parent(&mut command);
    let (sender, receiver) = mpsc::channel();
    let job: Spawn = Box::new(move || {
        let _ = sender.send(command.spawn());
    });
    SPAWNER
        .send(job)
        .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    Ok(receiver
        .recv()
        .context("the thread that starts processes gave no answer")??)
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "only the child itself can ask for the signal, between fork and exec"
)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let ask = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; the signal would never come then.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(std::io::Error::other("the parent is gone"))
        }
    };
    // SAFETY: the closure makes three system calls and allocates nothing on the path that succeeds.
    unsafe {
        command.pre_exec(ask);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
