//! Options of the engine.

use std::{io, num::NonZeroUsize, path::PathBuf, sync::Arc, thread};

use super::{
    Engine, Flavor, Inner, Room,
    cache::{self, Cache},
    compile::{Compiler, CompilerProcess},
    config,
    metered::Metered,
    ticker,
};

/// Whether instances come from a pool of slots that are mapped ahead of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// If the address space allows it, with a warning if not.
    #[default]
    Auto,
    /// Or fail.
    On,
    /// Map and unmap for each instance: slower, but needs no address space ahead of time.
    Off,
}

/// Options of an [`Engine`].
#[derive(Debug, Clone)]
#[must_use = "an engine is made by `build`"]
pub struct EngineBuilder {
    cache_dir: Option<PathBuf>,
    cache_space: u64,
    max_instances: u32,
    max_memory: u64,
    compile_threads: Option<NonZeroUsize>,
    compiler_process: Option<CompilerProcess>,
    pooling: Pooling,
}

/// An engine cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Wasmtime refuses the machine or the configuration.
    #[error("Wasmtime cannot be configured on this machine")]
    Configure(#[source] wasmtime::Error),
    /// The cache's directory cannot be made or read.
    #[error("compile cache {}", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could put machine code into the cache, which would then run with the host's rights.
    #[error("compile cache {} cannot be trusted: {why}", path.display())]
    UntrustedCache {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_space: cache::DEFAULT_SPACE,
            max_instances: config::DEFAULT_INSTANCES,
            max_memory: config::DEFAULT_MEMORY,
            compile_threads: None,
            compiler_process: None,
            pooling: Pooling::default(),
        }
    }
}

impl EngineBuilder {
    /// Keeps machine code in this directory, which is made (with mode 0700) if it does not exist. By default nothing is kept.
    ///
    /// What is in the directory is mapped and run without further proof than a checksum, so nobody else may be able to write
    /// to it, or to put another one in its place: [`EngineError::UntrustedCache`]. A parent like `/tmp`, where only the owner
    /// of a directory can rename it, will do.
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(directory.into());
        self
    }

    /// Most bytes of machine code in that directory, 4 GiB by default. When it is more, what has not been used for longest is
    /// removed; what runs goes on.
    pub fn cache_space(mut self, bytes: u64) -> Self {
        self.cache_space = bytes;
        self
    }

    /// Most instances at a time, for each [`Flavor`]. Whoever needs one more waits.
    ///
    /// In the pool, an instance that has once been used keeps what it dirtied (at most about 1.1 MiB, see
    /// [`EngineBuilder::build`]) for the next one; so at most about `max_instances × 1.1 MiB` for each flavor, and in
    /// practice the pages that guests dirty times the most instances that were ever in use together.
    pub fn max_instances(mut self, instances: u32) -> Self {
        self.max_instances = instances.max(1);
        self
    }

    /// Most linear memory, in bytes, of an instance whose component sets no limit of its own; 256 MiB by default: enough for
    /// a guest with an embedded JavaScript or Python interpreter, and a leak is stopped before it fills a small node.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Threads that compile, by default as many as the process may use; with [`EngineBuilder::compile_apart`], most threads of one
    /// process. They have a low priority, so that whatever serves requests comes first.
    pub fn compile_threads(mut self, threads: NonZeroUsize) -> Self {
        self.compile_threads = Some(threads);
        self
    }

    /// Compiles in other processes, within limits: whoever runs components of others should. By default compiling is done in
    /// this process, where a component of 300 KB can make it take gigabytes of memory, and minutes.
    pub fn compile_apart(mut self, process: CompilerProcess) -> Self {
        self.compiler_process = Some(process);
        self
    }

    /// Whether instances come from a pool.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// Makes the engine.
    ///
    /// # Limits
    /// There is a pool for each [`Flavor`]; those that count fuel are made when the first component needs them. Each pool reserves address space, not memory: about 4 GiB for each linear memory, 2 MiB for each stack. A slot that
    /// has been used keeps at most 1 MiB of dirty linear memory and 64 KiB of tables; what a guest dirties beyond is
    /// returned to the system after each instance. A guest's own stack is 512 KiB.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn build(self) -> Result<Engine, EngineError> {
        let space = self.cache_space;
        let cache = self.cache_dir.map(|path| Cache::open(&path, space));
        let cache = cache.transpose()?;
        let plain = config::engine(Flavor::Plain, self.max_instances, self.pooling)
            .map_err(EngineError::Configure)?;
        let concurrent = config::engine(Flavor::Concurrent, self.max_instances, self.pooling)
            .map_err(EngineError::Configure)?;
        if let Some(cache) = &cache {
            cache.tidy([
                (Flavor::Plain, &plain.engine),
                (Flavor::Concurrent, &concurrent.engine),
            ]);
        }
        let ticker =
            ticker::start(&[&plain.engine, &concurrent.engine]).map_err(EngineError::Thread)?;
        let threads = self
            .compile_threads
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let compiler =
            Compiler::new(cache, threads, self.compiler_process).map_err(EngineError::Thread)?;
        Ok(Engine(Arc::new(Inner {
            pooled: plain.pooled && concurrent.pooled,
            plain: plain.engine,
            concurrent: concurrent.engine,
            max_memory: usize::try_from(self.max_memory).unwrap_or(usize::MAX),
            metered: Metered::new(self.max_instances, self.pooling, ticker),
            rooms: [(); 4].map(|()| Arc::new(Room::new(self.max_instances))),
            compiler,
        })))
    }
}
