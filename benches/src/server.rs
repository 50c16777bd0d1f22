//! The servers that are compared: child processes on a core of their own.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The core of the servers.
pub const SERVER_CORE: usize = 0;

/// The core of the load.
pub const LOAD_CORE: usize = 1;

/// Longest time for a server to listen.
const START: Duration = Duration::from_secs(120);

/// A server; dropping it ends it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    _folder: Option<tempfile::TempDir>,
}

/// A process on the servers' core that misbehaves; dropping it ends it.
pub struct Pest(Child);

impl Pest {
    /// One that `spins` or `allocates`, with the priority that washlet gives to guests that take long.
    pub fn new(does: &str) -> Result<Self> {
        let mut command = pinned(Path::new("nice"));
        command.args(["-n", "10"]).arg(std::env::current_exe()?);
        command.args(["pest", does]);
        // It ends when its standard input does, however this process ends.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("starting a pest")?))
    }
}

impl Drop for Pest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes this thread the load's.
pub fn pin_load() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores > LOAD_CORE,
        "two cores are needed: one for the servers, one for the load"
    );
    pin(LOAD_CORE)
}

/// Keeps this thread on a core, where that is known how.
pub fn pin(core: usize) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
    Ok(())
}

impl Server {
    /// `washlet run` with this manifest; each component's file is one of `guests`, by its name.
    pub fn washlet(washlet: &Path, manifest: &str, guests: &[(&str, PathBuf)]) -> Result<Self> {
        Self::washlet_on(&[SERVER_CORE], washlet, manifest, guests)
    }

    /// The same on other cores.
    pub fn washlet_on(
        cores: &[usize],
        washlet: &Path,
        manifest: &str,
        guests: &[(&str, PathBuf)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("workload.yaml"), manifest)?;
        for (name, path) in guests {
            std::fs::copy(path, folder.path().join(name))
                .with_context(|| format!("copying {}", path.display()))?;
        }
        let address = free()?;
        let mut command = on(cores, washlet);
        command
            .args(["run", "--no-watch", "--http-listen", &address.to_string()])
            .arg(folder.path());
        Self::start(command, address, Some(folder))
    }

    /// `wasmtime serve` of a component.
    pub fn wasmtime(wasmtime: &Path, component: &Path, options: &[&str]) -> Result<Self> {
        let address = free()?;
        let mut command = pinned(wasmtime);
        command
            .args(["serve", "-O", "pooling-allocator=y", "-S", "cli=y"])
            .args(options)
            .args(["--addr", &address.to_string()])
            .arg(component);
        Self::start(command, address, None)
    }

    /// A bare hyper server.
    pub fn bare() -> Result<Self> {
        Self::bare_on(&[SERVER_CORE])
    }

    /// The same on other cores, with a thread for each.
    pub fn bare_on(cores: &[usize]) -> Result<Self> {
        let address = free()?;
        let mut command = on(cores, &std::env::current_exe()?);
        command.args(["peer", &address.to_string()]);
        Self::start(command, address, None)
    }

    /// A bare program of hyper and Wasmtime that serves a component of this WASI, `p2` or `p3`.
    pub fn bare_component(component: &Path, wasi: &str, instances: &str) -> Result<Self> {
        let address = free()?;
        let mut command = pinned(&std::env::current_exe()?);
        command
            .args(["peer-component", &address.to_string()])
            .arg(component)
            .args([wasi, instances]);
        Self::start(command, address, None)
    }

    fn start(
        mut command: Command,
        address: SocketAddr,
        folder: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        let child = command
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        let mut server = Self {
            child,
            address,
            _folder: folder,
        };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(begun.elapsed() < START, "{command:?} does not listen");
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("{command:?} ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command on the servers' core.
fn pinned(program: &Path) -> Command {
    on(&[SERVER_CORE], program)
}

fn on(cores: &[usize], program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
        let mut command = Command::new("taskset");
        command.args(["-c", &cores.join(",")]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// An address that nobody has.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
