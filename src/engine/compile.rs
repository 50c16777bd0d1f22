//! From bytes to machine code: once for each digest, on threads of their own, through the cache on disk. Components that are
//! linked to each other are one component here, with a digest of its own.

use std::{
    collections::HashMap,
    io,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
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
    cache::Cache,
    compose::Composition,
    inspect::{self, Preamble},
    memo::Memo,
    nice,
};
use crate::{
    content::Content,
    fault::{Class, Fault, Reason, Stage},
    spec::{Digest, Source},
    wit::World,
};

/// Bytes could not be made a component that runs. Every variant but [`CompileError::Unreadable`] and
/// [`CompileError::Cancelled`] is the same at each try.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// The bytes are not WebAssembly.
    #[error("it is not WebAssembly: it begins with `{start}`")]
    NotWasm {
        /// The first bytes, escaped.
        start: String,
    },
    /// A core module, which says nothing about interfaces.
    #[error(
        "it is a core module, not a component: build it with `--target wasm32-wasip2`, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Wasmtime refuses the component.
    #[error("Wasmtime cannot compile it: {0}")]
    Refused(String),
    /// The bytes that were fetched are no longer there.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Where they were.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// One of the components of a composition is at fault.
    #[error("{error}")]
    Part {
        /// The part, by its index.
        index: usize,
        /// What is wrong with it.
        error: Box<CompileError>,
    },
    /// What one component exports is not what the other one imports by that name.
    #[error("its import {import} is not what the export {export} gives: {why}")]
    Unfit {
        /// The part that imports, by its index.
        importer: usize,
        /// The part that exports, by its index.
        exporter: usize,
        /// The import's name.
        import: String,
        /// The export's name.
        export: String,
        /// How they differ.
        why: String,
    },
    /// The components cannot be linked into one.
    #[error("the components cannot be linked into one: {0}")]
    Uncomposable(String),
    /// It is to be counted what the component executes, and there can be no engine that does.
    #[error("there can be no engine that counts fuel: {0}")]
    NotMetered(String),
    /// The process is ending.
    #[error("the compile was given up because the process is ending")]
    Cancelled,
}

impl CompileError {
    /// The word for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Empty | Self::NotWasm { .. } | Self::CoreModule => Reason::NotAComponent,
            Self::Refused(_) | Self::Unreadable { .. } | Self::NotMetered(_) | Self::Cancelled => {
                Reason::CompileFailed
            }
            Self::Unfit { .. } | Self::Uncomposable(_) => Reason::ImportNotSatisfied,
            Self::Part { error, .. } => error.reason(),
        }
    }

    /// Whether another try may help.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Unreadable { .. } | Self::Cancelled => Class::Retry,
            Self::Part { error, .. } => error.class(),
            _ => Class::Terminal,
        }
    }

    const fn stage(&self) -> Stage {
        match self {
            Self::Unfit { .. } | Self::Uncomposable(_) => Stage::Link,
            _ => Stage::Compile,
        }
    }

    /// The fault of the component `name` that came from `source`.
    #[must_use]
    pub fn fault(&self, name: &Arc<str>, source: &Source) -> Fault {
        let cause = match self {
            Self::Unreadable { source, .. } => format!(": {source}"),
            _ => String::new(),
        };
        let message = format!(
            "component \"{name}\" ({}): {self}{cause}",
            source.describe()
        );
        Fault::new(self.stage(), self.reason(), message)
            .class(self.class())
            .of_component(name.clone())
    }
}

/// The compiler's threads, and what they are doing.
pub(super) struct Compiler {
    cache: Option<Cache>,
    threads: Arc<ThreadPool>,
    permits: Arc<Semaphore>,
    known: Arc<Mutex<Known>>,
}

type Outcome = Result<Compiled, CompileError>;

/// A component's digest, and whether what it executes is counted.
pub(super) type Key = (Digest, bool);

/// What is in memory or on its way there.
#[derive(Default)]
struct Known {
    live: HashMap<Key, Weak<CompiledParts>>,
    flights: HashMap<Key, Shared<BoxFuture<'static, Outcome>>>,
}

impl Compiler {
    pub fn new(cache: Option<Cache>, threads: usize) -> io::Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("washlet-cc-{index}"))
            .start_handler(|_| yield_to_others())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            cache,
            threads: Arc::new(pool),
            permits: Arc::new(Semaphore::new(threads)),
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
            permits: self.permits.clone(),
        };
        let known = self.known.clone();
        let task = tokio::spawn(async move {
            let key = job.key.clone();
            let outcome = job.run().await;
            let mut known = lock(&known);
            known.flights.remove(&key);
            known.live.retain(|_, parts| parts.strong_count() > 0);
            if let Ok(compiled) = &outcome {
                known.live.insert(key, Arc::downgrade(&compiled.0));
            }
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
}

/// One compile.
struct Job {
    engine: Engine,
    key: Key,
    input: Input,
    cache: Option<Cache>,
    threads: Arc<ThreadPool>,
    permits: Arc<Semaphore>,
}

impl Job {
    async fn run(self) -> Outcome {
        let Self {
            engine,
            key: (digest, metered),
            input,
            cache,
            threads,
            permits,
        } = self;
        if let Some(cache) = cache.clone() {
            let (engine, wanted) = (engine.clone(), digest.clone());
            // Not on the compiler's threads: what is cached must not wait for what is not.
            let cached = blocking(move || load_cached(&cache, &engine, &wanted, metered)).await?;
            if let Some((component, flavor)) = cached {
                return Ok(finish(digest, component, flavor));
            }
        }
        let permit = permits
            .acquire_owned()
            .await
            .map_err(|_| CompileError::Cancelled)?;
        let (sender, receiver) = oneshot::channel();
        threads.spawn(move || {
            // A panic of the compiler is this component's failure, not the process'.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                compile(&engine, (digest, metered), &input, cache.as_ref())
            }));
            drop(permit);
            let _ = sender.send(outcome.unwrap_or_else(|_| {
                Err(CompileError::Refused("the compiler panicked".to_owned()))
            }));
        });
        receiver.await.map_err(|_| CompileError::Cancelled)?
    }
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

/// Compiles and caches.
fn compile(
    engine: &Engine,
    (digest, metered): Key,
    input: &Input,
    cache: Option<&Cache>,
) -> Outcome {
    let bytes = input.bytes()?;
    let mut flavor = inspect::flavor(&bytes);
    if metered {
        flavor = flavor.metered();
    }
    let engine = engine.made(flavor)?;
    let component = Component::new(engine, &bytes).map_err(|error| {
        let why = format!("{error:#}");
        match input {
            Input::One(_) => CompileError::Refused(why),
            // Each part is valid by itself.
            Input::Many(_) => CompileError::Uncomposable(why),
        }
    })?;
    let cached = cache.and_then(|cache| {
        let path = cache.path(&digest, flavor, engine);
        Cache::store(&path, &component)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "machine code is not cached"))
            .ok()
    });
    Ok(finish(digest, cached.unwrap_or(component), flavor))
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
