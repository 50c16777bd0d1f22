//! From bytes to machine code: once for each digest, on threads or in processes of their own, through the cache on disk. Components that are
//! linked to each other are one component here, with a digest of its own.

mod error;
mod known;
mod process;
mod worker;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
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

use known::{Known, Waiting};
use process::Processes;

pub use error::CompileError;
pub use process::CompilerProcess;
pub use worker::compile_worker;

/// The compiler's threads, and what they are doing.
pub(super) struct Compiler {
    cache: Option<Cache>,
    threads: Arc<ThreadPool>,
    machine: Machine,
    known: Known,
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
            known: Known::default(),
        })
    }

    /// The component of this key: the one that is in memory, the one that is being compiled, or a new one. What nobody waits
    /// for any more is soon given up.
    pub async fn compile(&self, engine: Engine, key: Key, input: Input) -> Outcome {
        let start = |waiting| self.start(engine, key.clone(), input, waiting);
        self.known.get(&key, start).await
    }

    /// Starts a compile as a task of its own, which goes on when the first one who wanted it does not wait any more.
    fn start(
        &self,
        engine: Engine,
        key: Key,
        input: Input,
        waiting: Arc<Waiting>,
    ) -> Shared<BoxFuture<'static, Outcome>> {
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
            let outcome = tokio::select! {
                biased;
                outcome = AssertUnwindSafe(job.run()).catch_unwind() => outcome,
                () = known.abandoned(&key, &waiting) => return Err(CompileError::Cancelled),
            };
            let outcome =
                outcome.unwrap_or_else(|_| Err(CompileError::Process("is not reached".to_owned())));
            known.end(key, &outcome);
            outcome
        });
        task.map(|joined| joined.unwrap_or(Err(CompileError::Cancelled)))
            .boxed()
            .shared()
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
        if sender.is_closed() {
            // Nobody waits for it any more.
            return;
        }
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
            .inspect(|_| cache.fit(&path))
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
