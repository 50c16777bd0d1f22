//! The Wasmtime engine: compiles components off the async threads, keeps the machine code on disk, and bounds what an
//! instance may use.
//!
//! There are several engines in one. Supporting component-model concurrency costs every call, so there is one without it for
//! components that use only WASI 0.2 and one with it for the rest: what a component imports and exports decides. Counting
//! [fuel](Flavor::is_metered) costs every instruction, so there are two more for those that asked for it.
//!
//! Not here: what instances see of the host (plugins), and when they are made (the plugins that call them).

mod builder;
mod cache;
mod compile;
mod compose;
mod config;
mod inspect;
mod limits;
mod memo;
mod metered;
pub(crate) mod nice;
mod room;
#[cfg(test)]
mod tests;
mod ticker;

use std::{fmt, ops::Deref, sync::Arc};

use wasmtime::component::{Component, Linker};

use crate::{content::Fetched, spec::Digest, wit::World};

pub use builder::{EngineBuilder, EngineError, Pooling};
pub use compile::{CompileError, CompilerProcess, compile_worker};
pub use compose::{Composition, OwnImport, Wire};
pub use limits::{InstanceLimits, Refusal, SharedMemory};
pub use memo::Memo;
pub use room::{Full, Keeper, Place, Room};
pub use ticker::TICK;
pub(crate) use ticker::ticks;

/// Which of the engines a component was compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// Without component-model concurrency: faster, enough for WASI 0.2.
    Plain,
    /// With it: needed for WASI 0.3 and every async import or export.
    Concurrent,
    /// As [`Flavor::Plain`], and what it executes is counted.
    PlainMetered,
    /// As [`Flavor::Concurrent`], and what it executes is counted.
    ConcurrentMetered,
}

impl Flavor {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Plain,
        Self::Concurrent,
        Self::PlainMetered,
        Self::ConcurrentMetered,
    ];

    /// Whether it has component-model concurrency.
    #[must_use]
    pub const fn is_concurrent(self) -> bool {
        matches!(self, Self::Concurrent | Self::ConcurrentMetered)
    }

    /// Whether what a component executes is counted: it needs fuel for about each of its instructions, and traps where that
    /// ends. Its stores begin with none.
    #[must_use]
    pub const fn is_metered(self) -> bool {
        matches!(self, Self::PlainMetered | Self::ConcurrentMetered)
    }

    /// The same with counting.
    #[must_use]
    pub(crate) const fn metered(self) -> Self {
        if self.is_concurrent() {
            Self::ConcurrentMetered
        } else {
            Self::PlainMetered
        }
    }

    /// A short word for file names and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Concurrent => "concurrent",
            Self::PlainMetered => "plain-metered",
            Self::ConcurrentMetered => "concurrent-metered",
        }
    }
}

/// A compiled component; cheap to clone. As long as a clone lives, compiling the same bytes again returns this one.
#[derive(Clone)]
pub struct Compiled(Arc<CompiledParts>);

/// What a [`Compiled`] consists of.
pub struct CompiledParts {
    /// Digest of the component's bytes; of a [`Composition`], of what it is made of.
    pub digest: Digest,
    /// The machine code.
    pub component: Component,
    /// What it imports and exports.
    pub world: Arc<World>,
    /// Imports and exports whose names are not interfaces (a bare function), as they are written. Nobody offers such imports
    /// and nobody calls such exports.
    pub bare_names: Vec<String>,
    /// The engine that it belongs to.
    pub flavor: Flavor,
    /// What was made of it, for whoever needs the same.
    pub memo: Memo,
}

impl Deref for Compiled {
    type Target = CompiledParts;

    fn deref(&self) -> &CompiledParts {
        &self.0
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &self.digest)
            .field("flavor", &self.flavor)
            .finish_non_exhaustive()
    }
}

/// Compiles and runs components; cheap to clone. Its threads end when the last clone, and the last thing that it compiled,
/// is gone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    plain: wasmtime::Engine,
    concurrent: wasmtime::Engine,
    max_memory: usize,
    pooled: bool,
    metered: metered::Metered,
    rooms: [Arc<Room>; 4],
    compiler: compile::Compiler,
}

impl Engine {
    /// An engine with options; every one of them has a default.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Compiles a component, or loads it from the cache.
    ///
    /// # Guarantees
    /// The same digest is compiled once, however many ask at the same time, and shared as long as anybody holds it. Compiling
    /// happens on threads of its own, of low priority, or in [processes](EngineBuilder::compile_apart). What nobody has waited
    /// for during half a second is given up: its process is ended, while a thread finishes what it has begun. Must be called
    /// within a Tokio runtime, with IO and time.
    ///
    /// # Errors
    /// [`CompileError`]: the bytes are no component, Wasmtime refuses them, or they cannot be read.
    pub async fn compile(&self, fetched: &Fetched) -> Result<Compiled, CompileError> {
        self.compile_one(fetched, false).await
    }

    /// The same for a component whose instructions are to be [counted](Flavor::is_metered). What is cached and shared is
    /// another thing than without.
    ///
    /// # Errors
    /// [`CompileError`], also if no engine that counts can be made.
    pub async fn compile_metered(&self, fetched: &Fetched) -> Result<Compiled, CompileError> {
        self.compile_one(fetched, true).await
    }

    async fn compile_one(
        &self,
        fetched: &Fetched,
        metered: bool,
    ) -> Result<Compiled, CompileError> {
        let input = compile::Input::One(fetched.content.clone());
        let key = (fetched.digest.clone(), metered);
        self.0.compiler.compile(self.clone(), key, input).await
    }

    /// Links components into one and compiles that, or loads it from the cache.
    ///
    /// # Guarantees
    /// Those of [`compile`](Self::compile), for the same parts linked in the same way; what is cached is the whole, and the
    /// parts are read only if it is not. Linking happens on the threads that compile, and a panic in it is an error.
    ///
    /// # Errors
    /// [`CompileError`], of a part, of how the parts fit, or of the whole.
    pub async fn compose(&self, composition: Composition) -> Result<Compiled, CompileError> {
        self.compose_all(composition, false).await
    }

    /// The same, and the instructions of all parts are [counted](Flavor::is_metered) together.
    ///
    /// # Errors
    /// [`CompileError`], also if no engine that counts can be made.
    pub async fn compose_metered(
        &self,
        composition: Composition,
    ) -> Result<Compiled, CompileError> {
        self.compose_all(composition, true).await
    }

    async fn compose_all(
        &self,
        composition: Composition,
        metered: bool,
    ) -> Result<Compiled, CompileError> {
        let key = (composition.digest(), metered);
        let input = compile::Input::Many(Arc::new(composition));
        self.0.compiler.compile(self.clone(), key, input).await
    }

    /// What a component imports and exports, without compiling it: its form is checked, its content is not.
    ///
    /// # Errors
    /// [`CompileError`]: the bytes are no component, or cannot be read.
    pub async fn inspect(&self, fetched: &Fetched) -> Result<World, CompileError> {
        compile::inspect(fetched.content.clone()).await
    }

    /// An empty linker for components of one flavor.
    #[must_use]
    pub fn linker<T: 'static>(&self, flavor: Flavor) -> Linker<T> {
        Linker::new(self.wasmtime(flavor))
    }

    /// Wasmtime's own engine for components of one flavor; one that counts is made now, if it is not yet.
    ///
    /// # Errors
    /// [`CompileError::NotMetered`].
    pub(crate) fn made(&self, flavor: Flavor) -> Result<&wasmtime::Engine, CompileError> {
        match flavor {
            Flavor::Plain => Ok(&self.0.plain),
            Flavor::Concurrent => Ok(&self.0.concurrent),
            Flavor::PlainMetered | Flavor::ConcurrentMetered => {
                let made = self.0.metered.engine(flavor);
                made.map_err(|why| CompileError::NotMetered(why.to_owned()))
            }
        }
    }

    /// Wasmtime's own engine for components of one flavor. If there is none that counts, one that does not: no component was
    /// compiled for the former, and Wasmtime refuses to use it with the latter.
    #[must_use]
    pub fn wasmtime(&self, flavor: Flavor) -> &wasmtime::Engine {
        self.made(flavor).unwrap_or(&self.0.plain)
    }

    /// Most linear memory, in bytes, of an instance whose component sets no limit of its own.
    #[must_use]
    pub fn max_memory(&self) -> usize {
        self.0.max_memory
    }

    /// The room for instances of one flavor, which every instance should take a place in before it is made.
    #[must_use]
    pub fn room(&self, flavor: Flavor) -> &Arc<Room> {
        let [plain, concurrent, plain_metered, concurrent_metered] = &self.0.rooms;
        match flavor {
            Flavor::Plain => plain,
            Flavor::Concurrent => concurrent,
            Flavor::PlainMetered => plain_metered,
            Flavor::ConcurrentMetered => concurrent_metered,
        }
    }

    /// Whether instances come from a pool; false when the machine's address space, or a limit on it, does not allow one.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.0.pooled
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("pooled", &self.0.pooled)
            .finish_non_exhaustive()
    }
}
