//! The contract between the host and a capability: what it offers to components, what it calls on them, and how long its
//! state lives.
//!
//! Four scopes, four types. The *process*: a [`HostPlugin`], which touches each component's linker once. The *workload*: a
//! [`Binding`], made from the workload's configuration; dropping it is the unbind. The *instance*: a [`Slot`], shared by all
//! instances of a component and read by type, so that a host call costs no lookup by name. The *call*: the host function.

mod apart;
mod boxed;
#[cfg_attr(
    not(feature = "wasi-http"),
    allow(dead_code, reason = "requests use all of it")
)]
mod lane;
mod notices;
mod run;
mod store;
#[cfg(test)]
#[cfg_attr(
    not(any(
        feature = "wasi-config",
        feature = "wasi-http",
        feature = "wasi-logging"
    )),
    allow(dead_code, reason = "most of it tests plugins that are off")
)]
pub(crate) mod testing;
pub mod wasi;
pub(crate) mod wasi_cli;
#[cfg(feature = "wasi-config")]
pub mod wasi_config;
#[cfg(feature = "wasi-http")]
pub mod wasi_http;
#[cfg(feature = "wasi-logging")]
pub mod wasi_logging;

use std::{any::Any, sync::Arc};

use futures::future::BoxFuture;
use tokio::sync::Notify;
use wasmtime::component::{InstancePre, Linker};

use crate::{
    engine::Flavor,
    fault::Fault,
    spec,
    wit::{InterfaceId, World},
};

pub use apart::{Apart, MAX_APART};
pub use notices::{Notice, Notices};
pub use run::{Run, RunState};
pub use store::{Part, Slots, StoreState, StoreTemplate};

/// Per-component state of a plugin; a host call finds it by its type with [`StoreState::slot`].
pub type Slot = Arc<dyn Any + Send + Sync>;

/// A capability of the host.
///
/// # Guarantees
/// `start` runs once, before any workload. `bind` runs once for each generation of each workload that imports from, exports
/// to or configures the plugin's [`world`](Self::world). `link` runs at least once for each component that is used with the
/// plugin, and its result is shared by all workloads that use the same bytes: what it defines may depend on what the
/// component imports, and finds all that is a workload's own in its [`Slot`].
pub trait HostPlugin: Send + Sync + 'static {
    /// A name for messages, unique in a host.
    fn id(&self) -> &'static str;

    /// What the plugin offers to components (`imports`) and calls on them (`exports`). A pure fact.
    fn world(&self) -> World;

    /// Adds the interfaces that `component` imports to its linker; also those that are granted to one component of a workload
    /// rather than to another (`config`, `allowedHosts`) under the [names](ComponentFacts::own_names) that parts of it have for
    /// them.
    ///
    /// # Errors
    /// When Wasmtime refuses a definition (two plugins offer one interface).
    fn link(
        &self,
        linker: &mut Linker<StoreState>,
        component: &ComponentFacts,
    ) -> wasmtime::Result<()>;

    /// Takes a workload's configuration for this plugin: parses it, connects what is to be connected. Nothing is visible to
    /// anybody before [`Binding::start`].
    ///
    /// # Errors
    /// [`Fault`]: unknown keys, values that make no sense, a backend that is away.
    fn bind<'a>(
        &'a self,
        request: BindRequest<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>>;

    /// Opens what the plugin needs from the machine (a listener); called by `UnstartedHost::start`.
    ///
    /// # Errors
    /// [`PluginStartError`], which fails the host's start.
    fn start(&self) -> BoxFuture<'_, Result<(), PluginStartError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A plugin could not open what it needs.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin}: {message}")]
pub struct PluginStartError {
    /// [`HostPlugin::id`].
    pub plugin: &'static str,
    /// What could not be opened, and what to do.
    pub message: String,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// What is known of a component before it is linked.
#[derive(Debug, Clone)]
pub struct ComponentFacts {
    /// Its name in the workload.
    pub name: Arc<str>,
    /// What it imports and exports.
    pub world: Arc<World>,
    /// The engine that it was compiled for.
    pub flavor: Flavor,
    /// Components that are parts of it and granted something else: each one's place is its index.
    pub apart: Arc<[Apart]>,
}

impl ComponentFacts {
    /// Whether the component imports this interface, at a version that `offered` can serve.
    #[must_use]
    pub fn imports(&self, offered: &InterfaceId) -> bool {
        self.world.imports.iter().any(|i| i.served_by(offered))
    }

    /// Whether the component imports anything of this package of WASI, at a version `0.minor`.
    pub(crate) fn imports_wasi(&self, package: &str, minor: u64) -> bool {
        self.world.imports.iter().any(|import| {
            let version = import.version.as_ref();
            import.namespace == "wasi"
                && import.package == package
                && version.is_some_and(|v| v.major == 0 && v.minor == minor)
        })
    }

    /// The names under which parts with [grants of their own](Apart) import this interface, each with the part's place.
    pub fn own_names(&self, offered: &InterfaceId) -> impl Iterator<Item = (usize, String)> {
        let parts = self.apart.iter().enumerate();
        parts.flat_map(|(place, part)| part.names(offered).map(move |name| (place, name)))
    }

    /// Whether the component exports this interface, at a compatible version.
    #[must_use]
    pub fn exports(&self, wanted: &InterfaceId) -> bool {
        self.world.exports.iter().any(|e| e.served_by(wanted))
    }
}

/// A workload that asks a plugin for its capability.
pub struct BindRequest<'a> {
    /// The workload. Of components that are linked into one it has the first, and those with grants of their own.
    pub workload: &'a spec::Workload,
    /// Its entries for the packages of the plugin's world.
    pub interfaces: Vec<&'a spec::Interface>,
    /// Its components that can be instantiated, in the workload's order.
    pub components: &'a [ComponentFacts],
    /// To be notified when [`Binding::fault`] may have changed.
    pub signal: Arc<Notify>,
    /// Where to tell what the workload's owner should hear of.
    pub notices: Notices,
}

/// A plugin's state for one generation of one workload. Dropping it undoes all that it did.
pub trait Binding: Send + Sync + 'static {
    /// The state that a component's instances share; asked once, when the component is linked.
    fn slot(&self, component: &str) -> Option<Slot> {
        let _ = component;
        None
    }

    /// All components are linked: begin to call them. From here on the new generation may answer beside the old one, or
    /// instead of it.
    ///
    /// # Errors
    /// [`Fault`], when the components cannot be called as the configuration says.
    fn start(&mut self, linked: &[Linked]) -> Result<(), Fault> {
        let _ = linked;
        Ok(())
    }

    /// The generation serves from here on, and no other of the workload does: what runs by itself, rather than being called,
    /// begins now.
    fn run(&mut self) {}

    /// How what runs by itself is doing. When that changes, the binding notifies the signal that it was bound with.
    fn runs(&self) -> Vec<Run> {
        Vec::new()
    }

    /// Whether the workload has done all that it is there for, and will do no more.
    fn completed(&self) -> bool {
        false
    }

    /// Whether the workload will do no more, whether or not it has done all that it is there for.
    fn over(&self) -> bool {
        self.completed()
    }

    /// Takes over what of the workload may change while it runs: its service port, whether it may have its routes, and
    /// whether its commands are held.
    fn update(&mut self, workload: &spec::Workload) {
        let _ = workload;
    }

    /// Why the workload does not answer through this plugin although it is started; none if it does.
    fn fault(&self) -> Option<Fault> {
        None
    }

    /// Stops new calls; ready when the last one has ended. The host bounds the time and then drops the binding, which cuts
    /// what is left.
    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A component that is ready to be instantiated.
#[derive(Clone)]
pub struct Linked {
    /// What it is.
    pub facts: ComponentFacts,
    /// The component with its imports resolved.
    pub pre: InstancePre<StoreState>,
    /// Makes the store of each instance.
    pub template: Arc<StoreTemplate>,
}

/// The ids that are written in these constants.
fn interface_ids(names: &[&str]) -> Vec<InterfaceId> {
    // A name that is none would be missing from its plugin's world, which a test of that plugin sees.
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
