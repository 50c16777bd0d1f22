//! Compiling in a process of its own, with limits.
//!
//! A component of some hundred kilobytes can make the compiler take gigabytes of memory and minutes of time, or overflow its
//! stack: each function is a graph, and what is done with it is not linear. In the host's own process that would be the end
//! of all its workloads. It also gives back what a compile took, which an allocator keeps.

use std::{
    ffi::OsString,
    fs::File,
    io,
    num::NonZeroUsize,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    super::Flavor,
    CompileError,
    worker::{OUT_OF_MEMORY, REFUSED, TOO_LARGE},
};

/// Most of what a compiler says that is read, in bytes.
const MAX_TEXT: u64 = 4096;

/// A component of so many bytes is taken for one that needs much without a try: a guest with an interpreter in it.
const LARGE: usize = 4 << 20;

/// Memory, in bytes, that is enough for most: a hello in Rust takes 50 MiB, most of it whatever it does.
const SMALL_MEMORY: u64 = 128 << 20;

/// Memory, in bytes, that each thread should have of a compile that needs much. StarlingMonkey (13 MB) and CPython (22 MB) take
/// 570 MiB with two threads, and more than 672 with six; two thirds of that are ever used.
const THREAD_MEMORY: u64 = 320 << 20;

/// With less memory, in bytes, nothing is tried.
const LEAST_MEMORY: u64 = 64 << 20;

/// The part of a compile's time that a small one may take.
const SMALL_TIME: u32 = 30;

/// How much longer than its processor time a compile may take, on a machine with other things to do.
const WALL: u32 = 4;

/// What a compiler says that got no memory: Rust before it aborts, and Wasmtime in panics and errors.
const NO_MEMORY: [&str; 2] = ["memory allocation of", OUT_OF_MEMORY];

/// Exit code of a Rust program that panicked.
const PANICKED: u8 = 101;

/// How to compile in other processes: a program that calls [`compile_worker`](super::compile_worker), and what it may use.
///
/// The machine code that comes back is run with the host's rights, so the program has to be as trusted as the host's own;
/// and it has to have been built with the same version of this library, or all that it makes is refused. Best is the host's
/// own program: [`CompilerProcess::this_program`].
#[derive(Debug, Clone)]
pub struct CompilerProcess {
    program: PathBuf,
    arguments: Vec<OsString>,
    max_memory: u64,
    max_time: Duration,
}

impl CompilerProcess {
    /// Starts `program` with these arguments, followed by those for [`compile_worker`](super::compile_worker), and with an
    /// empty environment. It may take 1 GiB of memory and 5 minutes of processor time.
    #[must_use]
    pub fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            max_memory: 1 << 30,
            max_time: Duration::from_secs(300),
        }
    }

    /// The same of the program that runs, also when its file has been replaced since.
    ///
    /// # Errors
    /// The system does not say which one that is.
    pub fn this_program<A: Into<OsString>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let program = if cfg!(target_os = "linux") {
            "/proc/self/exe".into()
        } else {
            std::env::current_exe()?
        };
        Ok(Self::new(program, arguments))
    }

    /// Most memory, in bytes, that all compiles together may take at a time. Three quarters are for one that needs much, the
    /// rest for up to as many others as the engine has [threads](crate::engine::EngineBuilder::compile_threads), or two.
    /// Counted is what a process may write to (`RLIMIT_DATA`), of which it uses a part.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Most processor time of one compile, of all its threads together, in whole seconds. One that has not ended after a
    /// thirtieth of it is taken for one that needs much.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }
}

/// What one process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub flavor: Flavor,
    /// Of the component, in bytes.
    pub size: usize,
    pub threads: usize,
    pub max_memory: u64,
    pub max_code: u64,
    pub max_time: Duration,
}

impl Order {
    fn arguments(&self) -> [String; 6] {
        [
            self.flavor.as_str().to_owned(),
            self.size.to_string(),
            self.threads.to_string(),
            self.max_memory.to_string(),
            self.max_code.to_string(),
            self.max_time.as_secs().to_string(),
        ]
    }

    pub fn parse(arguments: &[&str]) -> Option<Self> {
        let [flavor, size, threads, max_memory, max_code, max_time] = arguments else {
            return None;
        };
        Some(Self {
            flavor: Flavor::ALL.into_iter().find(|f| f.as_str() == *flavor)?,
            size: size.parse().ok()?,
            threads: threads.parse().ok()?,
            max_memory: max_memory.parse().ok()?,
            max_code: max_code.parse().ok()?,
            max_time: Duration::from_secs(max_time.parse().ok()?),
        })
    }
}

/// Compilers in other processes. What takes long or much has a place of its own, so that small components wait for it no
/// longer than a first try takes.
#[derive(Clone)]
pub(super) struct Processes {
    process: CompilerProcess,
    small: Room,
    large: Room,
}

/// How many compiles of one kind there are at a time, and what each may use.
#[derive(Clone)]
struct Room {
    places: Arc<Semaphore>,
    threads: usize,
    max_memory: u64,
    max_time: Duration,
}

/// A component's bytes, which are read again for a second try: those of all that wait would be much.
pub(super) type Read<'a> =
    &'a (dyn Fn() -> BoxFuture<'static, Result<(Bytes, Flavor), CompileError>> + Sync);

/// Machine code that a process has written.
pub(super) struct Made {
    pub code: File,
    pub flavor: Flavor,
    /// Held until the code is kept.
    _place: OwnedSemaphorePermit,
}

/// Why a process has made no machine code.
enum Failed {
    /// It was given up: it had taken its time by the clock, whatever it had of the processor.
    Late,
    With(CompileError),
}

impl Processes {
    pub fn new(process: CompilerProcess, threads: NonZeroUsize) -> Self {
        let for_small = process.max_memory / 4;
        let for_large = process.max_memory - for_small;
        // One that takes long leaves another one a place, on one core too.
        let places = times(for_small, SMALL_MEMORY).min(threads.get().max(2));
        let room = |places: usize, most_threads: usize, memory: u64, max_time: Duration| {
            let max_memory = memory / places as u64;
            Room {
                places: Arc::new(Semaphore::new(places)),
                threads: threads.get().min(most_threads),
                max_memory,
                max_time: max_time.max(Duration::from_secs(1)),
            }
        };
        let large_threads = times(for_large, THREAD_MEMORY);
        let max_time = process.max_time;
        Self {
            small: room(places, 2, for_small, max_time / SMALL_TIME),
            large: room(1, large_threads, for_large, max_time),
            process,
        }
    }

    /// The machine code of a component.
    pub async fn compile(&self, read: Read<'_>) -> Result<Made, CompileError> {
        if self.small.max_memory >= LEAST_MEMORY {
            let place = self.small.place().await?;
            let (bytes, flavor) = read().await?;
            if bytes.len() < LARGE {
                let order = self.small.order(flavor, &bytes);
                match self.run(&order, &bytes).await {
                    Err(
                        Failed::Late
                        | Failed::With(
                            CompileError::TooMuchMemory { .. } | CompileError::TooMuchTime { .. },
                        ),
                    ) => {}
                    Err(Failed::With(error)) => return Err(error),
                    Ok(code) => return Ok(Made::new(code, flavor, place)),
                }
            }
        }
        let place = self.large.place().await?;
        let (bytes, flavor) = read().await?;
        let order = self.large.order(flavor, &bytes);
        match self.run(&order, &bytes).await {
            Ok(code) => Ok(Made::new(code, flavor, place)),
            Err(Failed::With(error)) => Err(error),
            // The machine may be busier than the component is large.
            Err(Failed::Late) => {
                let why = format!("had not ended after {} s", order.wall().as_secs());
                Err(CompileError::Process(why))
            }
        }
    }

    /// One process, from its start to its end; dropping this ends it.
    async fn run(&self, order: &Order, bytes: &Bytes) -> Result<File, Failed> {
        let failed = |what: &str, error: io::Error| {
            Failed::With(CompileError::Process(format!("{what}: {error}")))
        };
        let code = anonymous_file().map_err(|error| failed("has nothing to write to", error))?;
        let out = code
            .try_clone()
            .map_err(|error| failed("has nothing to write to", error))?;
        let mut child = Command::new(&self.process.program)
            .args(&self.process.arguments)
            .args(order.arguments())
            .env_clear()
            // The allocator would take a gigabyte at once, which counts.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::piped())
            // What a terminal tells this process, this process tells others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("cannot be started", error))?;
        let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let give = async {
            if let Some(stdin) = &mut stdin {
                // One that ends before it has read all says why at its end.
                let _ = stdin.write_all(bytes).await;
            }
        };
        let wait = async {
            let (text, status) = tokio::join!(said(stderr), child.wait());
            (text.unwrap_or_default(), status)
        };
        // Its standard input stays open until it has ended: it ends itself when that ends.
        let both = async { tokio::join!(give, wait).1 };
        let Ok((text, status)) = timeout(order.wall(), both).await else {
            // What it has of the memory is free when it is gone.
            let _ = child.kill().await;
            return Err(Failed::Late);
        };
        let status = status.map_err(|error| failed("is lost", error))?;
        judge(status, &String::from_utf8_lossy(&text), order).map_err(Failed::With)?;
        Ok(code)
    }
}

impl Room {
    async fn place(&self) -> Result<OwnedSemaphorePermit, CompileError> {
        let place = self.places.clone().acquire_owned().await;
        place.map_err(|_| CompileError::Cancelled)
    }

    fn order(&self, flavor: Flavor, bytes: &Bytes) -> Order {
        // Code that is written is in memory a second time.
        let max_code = self.max_memory / 8;
        Order {
            flavor,
            size: bytes.len(),
            threads: self.threads,
            max_memory: self.max_memory - max_code,
            max_code,
            max_time: self.max_time,
        }
    }
}

impl Order {
    const fn too_large(&self) -> CompileError {
        CompileError::TooMuchMemory {
            max_memory: self.max_memory + self.max_code,
        }
    }

    /// How long the process may take by the clock.
    const fn wall(&self) -> Duration {
        self.max_time.saturating_mul(WALL)
    }

    const fn too_long(&self) -> CompileError {
        CompileError::TooMuchTime {
            max_time: self.max_time,
        }
    }
}

impl Made {
    const fn new(code: File, flavor: Flavor, place: OwnedSemaphorePermit) -> Self {
        Self {
            code,
            flavor,
            _place: place,
        }
    }
}

/// A file without a name: in memory where the system has that, so that a full disk keeps nothing from running.
fn anonymous_file() -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{MemfdFlags, memfd_create};
        Ok(memfd_create("washlet-code", MemfdFlags::CLOEXEC)?.into())
    }
    #[cfg(not(target_os = "linux"))]
    tempfile::tempfile()
}

/// What a compiler says, and that is not too much.
async fn said(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(MAX_TEXT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// How often there is so much in it; at least once.
fn times(whole: u64, part: u64) -> usize {
    usize::try_from(whole / part).unwrap_or(usize::MAX).max(1)
}

/// What the end of a compiler's process says.
fn judge(status: ExitStatus, text: &str, order: &Order) -> Result<(), CompileError> {
    let text = text.trim();
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    if status.success() {
        return Ok(());
    }
    if code == Some(REFUSED) {
        return Err(CompileError::Refused(text.to_owned()));
    }
    if code == Some(TOO_LARGE) || NO_MEMORY.iter().any(|said| text.contains(said)) {
        return Err(order.too_large());
    }
    if code == Some(PANICKED) {
        return Err(CompileError::Crashed(format!("panicked: {text}")));
    }
    let signal = status.signal().and_then(Signal::from_named_raw);
    Err(match signal {
        Some(Signal::XCPU) => order.too_long(),
        Some(Signal::XFSZ) => order.too_large(),
        // It did something that no program may: because of what it was given.
        Some(Signal::SEGV | Signal::BUS | Signal::ILL | Signal::ABORT | Signal::FPE) => {
            CompileError::Crashed(format!("crashed ({status}): {text}"))
        }
        // Somebody ended it, for example the system for want of memory.
        _ => CompileError::Process(format!("ended with {status}: {text}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(mebibytes: u64, threads: usize) -> Processes {
        let process = CompilerProcess::new("compiler", [""; 0]).max_memory(mebibytes << 20);
        Processes::new(process, NonZeroUsize::new(threads).unwrap())
    }

    #[test]
    fn all_places_together_have_what_was_allowed() {
        for (mebibytes, threads) in [(1, 1), (64, 2), (512, 1), (1024, 2), (1024, 64), (8192, 64)] {
            let Processes { small, large, .. } = processes(mebibytes, threads);
            let most = |room: &Room| {
                let order = room.order(Flavor::Plain, &Bytes::new());
                (order.max_memory + order.max_code) * room.places.available_permits() as u64
            };
            assert!(most(&small) + most(&large) <= mebibytes << 20);
        }
    }

    #[test]
    fn by_default_there_are_two_small_ones_and_a_large_one() {
        for threads in [1, 2, 64] {
            let Processes { small, large, .. } = processes(1024, threads);
            assert_eq!(small.places.available_permits(), 2);
            assert_eq!(small.max_memory, 128 << 20);
            assert_eq!(
                (large.threads, large.max_memory),
                (threads.min(2), 768 << 20)
            );
        }
    }

    #[test]
    fn an_order_is_understood() {
        let order = Order {
            flavor: Flavor::ConcurrentMetered,
            size: 1,
            threads: 2,
            max_memory: 3,
            max_code: 4,
            max_time: Duration::from_secs(5),
        };
        let arguments = order.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(Order::parse(&arguments), Some(order));
        assert_eq!(Order::parse(&arguments[1..]), None);
    }
}
