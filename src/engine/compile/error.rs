//! Why there is no machine code of a component.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    fault::{Class, Fault, Reason, Stage},
    spec::Source,
};

/// Bytes could not be made a component that runs. Every variant but [`CompileError::Unreadable`],
/// [`CompileError::Process`] and [`CompileError::Cancelled`] is taken to be the same at each try.
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
    /// The compiler panicked or crashed over it.
    #[error("compiling it failed: the compiler {0}")]
    Crashed(String),
    /// Compiling it takes more memory than a compile may have.
    #[error(
        "compiling it takes more than {} MiB of memory, which is what one compile may have here (three quarters of what is \
         allowed for compiling); allow more, or make its largest functions smaller", max_memory >> 20
    )]
    TooMuchMemory {
        /// That, in bytes.
        max_memory: u64,
    },
    /// Compiling it takes more time than a compile may have.
    #[error(
        "compiling it takes more than {} s of processor time, which is what a compile may have here; \
         make its largest functions smaller", max_time.as_secs()
    )]
    TooMuchTime {
        /// That: processor time, of all threads together.
        max_time: Duration,
    },
    /// The process that compiles could not do so, which says nothing about the component.
    #[error("the compiler's process {0}")]
    Process(String),
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
            Self::Refused(_)
            | Self::Crashed(_)
            | Self::TooMuchMemory { .. }
            | Self::TooMuchTime { .. }
            | Self::Process(_)
            | Self::Unreadable { .. }
            | Self::NotMetered(_)
            | Self::Cancelled => Reason::CompileFailed,
            Self::Unfit { .. } | Self::Uncomposable(_) => Reason::ImportNotSatisfied,
            Self::Part { error, .. } => error.reason(),
        }
    }

    /// Whether another try may help.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Unreadable { .. } | Self::Process(_) | Self::Cancelled => Class::Retry,
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
