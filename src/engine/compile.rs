//! From bytes to machine code: once for each digest, on threads or in processes of their own, through the cache on disk. Components that are
//! linked to each other are one component here, with a digest of its own.

mod error;
mod process;
mod worker;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{Semaphore, oneshot};
use wasmtime::component::Component;

use super::{
    Compiled, CompiledParts, Engine, Flavor,
    cache::{self, Cache, CacheError},
    compose::Composition,
    inspect::{self, Preamble},
    memo::Memo,
    nice,
};
use crate::{content::Content, spec::Digest, wit::World};

use process::Processes;

pub use error::CompileError;
pub use process::CompilerProcess;
pub use worker::compile_worker;

/// The compiler's threads, and what they are doing.
pub(super) struct Compiler {
    cache: Option<Cache>,
    threads: Arc<ThreadPool>,
    machine: Machine,
    known: Arc<Mutex<Known>>,
}

/// What makes machine code.
#[derive(Clone)]
enum Machine {
    /// The threads, so many at a time.
    Here(Arc<Semaphore>),
    /// Other processes.
    Apart(Processes),
}

type Outcome = Result<Compiled, CompileError>;

/// A component's digest, and whether what it executes is counted.
pub(super) type Key = (Digest, bool);

/// What is in memory or on its way there.
#[derive(Default)]
struct Known {
    live: HashMap<Key, Weak<CompiledParts>>,
    flights: HashMap<Key, Shared<BoxFuture<'static, Outcome>>>,
    /// What took too much, since when, so that nobody tries it again soon.
    refused: HashMap<Key, (CompileError, Instant)>,
}

/// How long that is known: it cannot be told from a machine that had too little at the time.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// Most components that are known to take too much.
const MAX_REFUSED: usize = 1000;

impl Compiler {
    pub fn new(
        cache: Option<Cache>,
        threads: NonZeroUsize,
        process: Option<CompilerProcess>,
    ) -> io::Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|index| format!("washlet-cc-{index}"))
            .start_handler(|_| yield_to_others())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            cache,
            threads: Arc::new(pool),
            machine: match process {
                Some(process) => Machine::Apart(Processes::new(process, threads)),
                None => Machine::Here(Arc::new(Semaphore::new(threads.get()))),
            },
            known: Arc::default(),
        })
    }

    /// The component of this key: the one that is in memory, the one that is being compiled, or a new one.
    pub async fn compile(&self, engine: Engine, key: Key, input: Input) -> Outcome {
        let flight = {
            let mut known = lock(&self.known);
            if let Some(parts) = known.live.get(&key).and_then(Weak::upgrade) {
                return Ok(Compiled(parts));
            }
            if let Some((error, since)) = known.refused.get(&key)
                && since.elapsed() < REFUSED_FOR
            {
                return Err(error.clone());
            }
            match known.flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(engine, key.clone(), input);
                    known.flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Starts a compile as a task of its own, which therefore ends even if nobody waits for it any more.
    fn start(&self, engine: Engine, key: Key, input: Input) -> Shared<BoxFuture<'static, Outcome>> {
        let job = Job {
            engine,
            key,
            input,
            cache: self.cache.clone(),
            threads: self.threads.clone(),
            machine: self.machine.clone(),
        };
        let known = self.known.clone();
        let task = tokio::spawn(async move {
            let key = job.key.clone();
            let outcome = AssertUnwindSafe(job.run()).catch_unwind().await;
            let outcome =
                outcome.unwrap_or_else(|_| Err(CompileError::Process("is not reached".to_owned())));
            lock(&known).end(key, &outcome);
            outcome
        });
        task.map(|joined| joined.unwrap_or(Err(CompileError::Cancelled)))
            .boxed()
            .shared()
    }
}

impl Known {
    /// A compile has ended.
    fn end(&mut self, key: Key, outcome: &Outcome) {
        self.flights.remove(&key);
        self.live.retain(|_, parts| parts.strong_count() > 0);
        match outcome {
            Ok(compiled) => {
                self.live.insert(key, Arc::downgrade(&compiled.0));
            }
            Err(
                error @ (CompileError::TooMuchMemory { .. } | CompileError::TooMuchTime { .. }),
            ) => {
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                self.refused.insert(key, (error.clone(), Instant::now()));
            }
            Err(_) => {}
        }
    }
}

/// What is compiled.
#[derive(Clone)]
pub(super) enum Input {
    /// A component as it was fetched.
    One(Content),
    /// Components that are linked into one.
    Many(Arc<Composition>),
}

impl Input {
    fn bytes(&self) -> Result<Bytes, CompileError> {
        match self {
            Self::One(content) => component_bytes(content),
            Self::Many(composition) => composition.bytes().map(Bytes::from),
        }
    }

    /// The bytes, and which engine they are for.
    fn read(&self, metered: bool) -> Result<(Bytes, Flavor), CompileError> {
        let bytes = self.bytes()?;
        let flavor = inspect::flavor(&bytes);
        Ok((bytes, if metered { flavor.metered() } else { flavor }))
    }
}

/// One compile.
struct Job {
    engine: Engine,
    key: Key,
    input: Input,
    cache: Option<Cache>,
    threads: Arc<ThreadPool>,
    machine: Machine,
}

impl Job {
    async fn run(self) -> Outcome {
        let Self {
            engine,
            key: (digest, metered),
            input,
            cache,
            threads,
            machine,
        } = self;
        if let Some(cache) = cache.clone() {
            let (engine, wanted) = (engine.clone(), digest.clone());
            // Not on the compiler's threads: what is cached must not wait for what is not.
            let cached = blocking(move || load_cached(&cache, &engine, &wanted, metered)).await?;
            if let Some((component, flavor)) = cached {
                return Ok(finish(digest, component, flavor));
            }
        }
        let composed = matches!(input, Input::Many(_));
        let refused = |error| match error {
            // Each part is valid by itself.
            CompileError::Refused(why) if composed => CompileError::Uncomposable(why),
            error => error,
        };
        match machine {
            Machine::Here(places) => {
                let _place = places
                    .acquire()
                    .await
                    .map_err(|_| CompileError::Cancelled)?;
                on(&threads, move || {
                    let (bytes, flavor) = input.read(metered)?;
                    let code = engine.made(flavor)?.precompile_component(&bytes);
                    let code = code.map_err(|error| CompileError::Refused(format!("{error:#}")))?;
                    keep(&engine, (digest, flavor), Code::Bytes(code), cache.as_ref())
                })
                .await
            }
            Machine::Apart(processes) => {
                let read = || {
                    let (threads, input) = (threads.clone(), input.clone());
                    async move { on(&threads, move || input.read(metered)).await }.boxed()
                };
                match processes.compile(&read).await {
                    Err(error) => Err(error),
                    Ok(made) => {
                        on(&threads, move || {
                            let key = (digest, made.flavor);
                            keep(&engine, key, Code::File(&made.code), cache.as_ref())
                        })
                        .await
                    }
                }
            }
        }
        .map_err(refused)
    }
}

/// Does something on the compiler's threads. A panic of it is this component's failure, not the process'.
async fn on<T: Send + 'static>(
    threads: &ThreadPool,
    work: impl FnOnce() -> Result<T, CompileError> + Send + 'static,
) -> Result<T, CompileError> {
    let (sender, receiver) = oneshot::channel();
    threads.spawn(move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        let _ = sender
            .send(outcome.unwrap_or_else(|_| Err(CompileError::Crashed("panicked".to_owned()))));
    });
    receiver.await.map_err(|_| CompileError::Cancelled)?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CompileError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| CompileError::Cancelled)
}

/// What the cache has. Whether a component needs concurrency follows from its bytes, so a digest has a file for one of the
/// engines only, counting or not; this saves reading the bytes.
fn load_cached(
    cache: &Cache,
    engine: &Engine,
    digest: &Digest,
    metered: bool,
) -> Option<(Component, Flavor)> {
    let mut flavors = Flavor::ALL
        .into_iter()
        .filter(|f| f.is_metered() == metered);
    flavors.find_map(|flavor| {
        let engine = engine.made(flavor).ok()?;
        let path = cache.path(digest, flavor, engine);
        match Cache::load(&path, engine) {
            Ok(component) => component.map(|component| (component, flavor)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached machine code is useless; compiling again");
                None
            }
        }
    })
}

/// Machine code that has just been made.
enum Code<'a> {
    Bytes(Vec<u8>),
    File(&'a File),
}

impl Code<'_> {
    fn store(&self, path: &Path, engine: &wasmtime::Engine) -> Result<Component, CacheError> {
        match self {
            Self::Bytes(bytes) => Cache::store(path, engine, &mut &bytes[..]),
            Self::File(file) => Cache::store(path, engine, &mut rewound(file)?),
        }
    }

    fn load(self, engine: &wasmtime::Engine) -> Result<Component, CacheError> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::File(file) => {
                let mut bytes = Vec::new();
                rewound(file)?.read_to_end(&mut bytes)?;
                bytes
            }
        };
        cache::deserialize(engine, &bytes).map_err(CacheError::Refused)
    }
}

fn rewound(mut file: &File) -> io::Result<&File> {
    file.rewind()?;
    Ok(file)
}

/// Caches machine code, and makes it ready to run.
fn keep(
    engine: &Engine,
    (digest, flavor): (Digest, Flavor),
    code: Code<'_>,
    cache: Option<&Cache>,
) -> Outcome {
    let engine = engine.made(flavor)?;
    let cached = cache.and_then(|cache| {
        let path = cache.path(&digest, flavor, engine);
        code.store(&path, engine)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "machine code is not cached"))
            .ok()
    });
    let component = match cached {
        Some(component) => component,
        None => code.load(engine).map_err(|error| {
            CompileError::Process(format!("made machine code that cannot be used: {error}"))
        })?,
    };
    Ok(finish(digest, component, flavor))
}

/// What these bytes import and export, without compiling them.
///
/// # Errors
/// As compiling them would fail on their form.
pub(super) async fn inspect(content: Content) -> Result<World, CompileError> {
    blocking(move || {
        let bytes = component_bytes(&content)?;
        inspect::names(&bytes).map_err(CompileError::Refused)
    })
    .await?
}

/// The bytes, if they begin as a component does.
pub(super) fn component_bytes(content: &Content) -> Result<Bytes, CompileError> {
    let bytes = read(content)?;
    match inspect::preamble(&bytes) {
        Preamble::Component => Ok(bytes),
        Preamble::Module => Err(CompileError::CoreModule),
        Preamble::Other if bytes.is_empty() => Err(CompileError::Empty),
        Preamble::Other => {
            let start = bytes.get(..bytes.len().min(16)).unwrap_or_default();
            Err(CompileError::NotWasm {
                start: start.escape_ascii().to_string(),
            })
        }
    }
}

fn read(content: &Content) -> Result<Bytes, CompileError> {
    match content {
        Content::Memory(bytes) => Ok(bytes.clone()),
        Content::File(path) => {
            std::fs::read(path)
                .map(Bytes::from)
                .map_err(|source| CompileError::Unreadable {
                    path: path.clone(),
                    source: Arc::new(source),
                })
        }
    }
}

fn finish(digest: Digest, component: Component, flavor: Flavor) -> Compiled {
    let (world, bare_names) = inspect::world(&component);
    Compiled(Arc::new(CompiledParts {
        digest,
        component,
        world: Arc::new(world),
        bare_names,
        flavor,
        memo: Memo::default(),
    }))
}

/// Gives the calling thread a low priority, so that compiling takes what is left over.
fn yield_to_others() {
    const NICE: i32 = 10;
    nice::be_nicer(NICE);
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // Nothing panics while it holds the lock, and the maps are whole after each statement.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
