//! Compiling in a process of its own, with limits.
//!
//! A component of some hundred kilobytes can make the compiler take gigabytes of memory and minutes of time, or overflow its
//! stack: each function is a graph, and what is done with it is not linear. In the host's own process that would be the end
//! of all its workloads. It also gives back what a compile took, which an allocator keeps.

use std::{
    ffi::OsString,
    io,
    num::NonZeroUsize,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::Semaphore,
};

use super::{
    super::Flavor,
    CompileError,
    worker::{OUT_OF_MEMORY, REFUSED},
};

/// Most of what a compiler says that is read, in bytes.
const MAX_TEXT: u64 = 4096;

/// A component of so many bytes is taken for one that needs much without a try: a guest with an interpreter in it.
const LARGE: usize = 4 << 20;

/// Memory, in bytes, that is enough for most: a hello in Rust takes 50 MiB, most of it whatever it does.
const SMALL_MEMORY: u64 = 128 << 20;

/// Memory, in bytes, that each thread should have of a compile that needs much. With two, StarlingMonkey (13 MB) and CPython
/// (22 MB) take 570 MiB of address space, and two thirds of that are ever used.
const THREAD_MEMORY: u64 = 128 << 20;

/// What a compiler says that got no memory: Rust before it aborts, and Wasmtime in panics and errors.
const NO_MEMORY: [&str; 2] = ["memory allocation of", OUT_OF_MEMORY];

/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

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
    /// rest for up to as many others as the engine has [threads](crate::engine::EngineBuilder::compile_threads) to compile.
    /// Counted is what a process may write to (`RLIMIT_DATA`), of which it uses a part.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Most processor time of one compile, of all its threads together, in whole seconds. One that has not ended after a
    /// tenth of it is taken for one that needs much.
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
    pub threads: usize,
    pub max_memory: u64,
    pub max_time: Duration,
}

impl Order {
    fn arguments(&self) -> [String; 4] {
        [
            self.flavor.as_str().to_owned(),
            self.threads.to_string(),
            self.max_memory.to_string(),
            self.max_time.as_secs().to_string(),
        ]
    }

    pub fn parse(arguments: &[&str]) -> Option<Self> {
        let [flavor, threads, max_memory, max_time] = arguments else {
            return None;
        };
        Some(Self {
            flavor: Flavor::ALL.into_iter().find(|f| f.as_str() == *flavor)?,
            threads: threads.parse().ok()?,
            max_memory: max_memory.parse().ok()?,
            max_time: Duration::from_secs(max_time.parse().ok()?),
        })
    }
}

/// Compilers in other processes. What takes long or much has a place of its own, so that it holds up nobody else.
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

impl Processes {
    pub fn new(process: CompilerProcess, threads: NonZeroUsize) -> Self {
        let threads = threads.get();
        let for_small = process.max_memory / 4;
        let places = times(for_small, SMALL_MEMORY).min(threads);
        let small = Room {
            places: Arc::new(Semaphore::new(places)),
            threads: threads.min(2),
            max_memory: for_small / places as u64,
            max_time: process.max_time / 10,
        };
        let for_large = process.max_memory - for_small;
        let large = Room {
            places: Arc::new(Semaphore::new(1)),
            threads: threads.min(times(for_large, THREAD_MEMORY)),
            max_memory: for_large,
            max_time: process.max_time,
        };
        Self {
            process,
            small,
            large,
        }
    }

    /// The machine code of a component.
    pub async fn compile(&self, flavor: Flavor, bytes: &Bytes) -> Result<Vec<u8>, CompileError> {
        if bytes.len() >= LARGE {
            return self.compile_in(&self.large, flavor, bytes).await;
        }
        match self.compile_in(&self.small, flavor, bytes).await {
            Err(CompileError::TooMuchMemory { .. } | CompileError::TooMuchTime { .. }) => {
                self.compile_in(&self.large, flavor, bytes).await
            }
            outcome => outcome,
        }
    }

    async fn compile_in(
        &self,
        room: &Room,
        flavor: Flavor,
        bytes: &Bytes,
    ) -> Result<Vec<u8>, CompileError> {
        let _place = room
            .places
            .acquire()
            .await
            .map_err(|_| CompileError::Cancelled)?;
        let order = Order {
            flavor,
            threads: room.threads,
            max_memory: room.max_memory,
            max_time: room.max_time.max(Duration::from_secs(1)),
        };
        self.run(&order, bytes).await
    }

    /// One process, from its start to its end.
    async fn run(&self, order: &Order, bytes: &Bytes) -> Result<Vec<u8>, CompileError> {
        let failed =
            |what: &str, error: io::Error| CompileError::Process(format!("{what}: {error}"));
        let mut child = Command::new(&self.process.program)
            .args(&self.process.arguments)
            .args(order.arguments())
            .env_clear()
            // The allocator would take a gigabyte at once, which counts.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What a terminal tells this process, this process tells others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("cannot be started", error))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that ends before it has read all says why at its end.
                let _ = stdin.write_all(bytes).await;
            }
        };
        // Machine code that is larger than all memory of its compiler is none.
        let code = read(stdout, order.max_memory);
        let ((), code, text, status) =
            tokio::join!(give, code, read(stderr, MAX_TEXT), child.wait());
        let status = status.map_err(|error| failed("is lost", error))?;
        let (code, text) = (
            code.map_err(|error| failed("cannot be read", error))?,
            text.unwrap_or_default(),
        );
        judge(status, &String::from_utf8_lossy(&text), order)?;
        Ok(code)
    }
}

/// How often there is so much in it; at least once.
fn times(whole: u64, part: u64) -> usize {
    usize::try_from(whole / part).unwrap_or(usize::MAX).max(1)
}

/// Reads to the end, and keeps so much of it.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(most).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// What the end of a compiler's process says.
fn judge(status: ExitStatus, text: &str, order: &Order) -> Result<(), CompileError> {
    let text = text.trim();
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(REFUSED.into()) {
        return Err(CompileError::Refused(text.to_owned()));
    }
    if NO_MEMORY.iter().any(|said| text.contains(said)) {
        return Err(CompileError::TooMuchMemory {
            max_memory: order.max_memory,
        });
    }
    if status.code() == Some(PANICKED) {
        return Err(CompileError::Refused(format!(
            "the compiler panicked: {text}"
        )));
    }
    let signal = status.signal().and_then(Signal::from_named_raw);
    Err(match signal {
        Some(Signal::XCPU) => CompileError::TooMuchTime {
            max_time: order.max_time,
        },
        // It did something that no program may: because of what it was given.
        Some(Signal::SEGV | Signal::BUS | Signal::ILL | Signal::ABORT | Signal::FPE) => {
            CompileError::Refused(format!("the compiler crashed ({status}): {text}"))
        }
        // Somebody ended it, for example the system for want of memory.
        _ => CompileError::Process(format!("ended with {status}: {text}")),
    })
}
