//! WASI's base for every component: command line, clocks, random numbers, streams, files and sockets, with nothing granted.
//!
//! All of it links, so that whatever a toolchain imports by habit is there; but there are no arguments, no inherited
//! environment, no directory but the volumes that a component mounts, no standard input, and sockets reach nothing but the
//! workload's own loopback. What a component prints is logged line by line.

mod net;
mod output;
mod volumes;

use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime_wasi::{
    WasiCtx, WasiCtxView,
    cli::{WasiCli, WasiCliCtxView},
    filesystem::{WasiFilesystem, WasiFilesystemCtxView},
    p2, p3,
};

use super::{
    ComponentFacts, MAX_APART, StoreState,
    apart::{self, at_each_place},
};
use crate::{
    spec,
    wit::{InterfaceId, World},
};
pub(super) use net::{Grants, Instance, View};
pub use net::{Network, Role};
use output::{Output, Stream};

pub use volumes::{Kept, Preopens, VolumeStore, VolumesError};

/// Its name in messages.
pub const ID: &str = "wasi";

/// The WASI 0.2 that Wasmtime implements; components built for an earlier 0.2 fit.
const V2: &str = "0.2.12";

/// The WASI 0.3 that Wasmtime implements.
const V3: &str = "0.3.0";

/// The interfaces of WASI 0.2 that every component may import, as `package/interface`.
const BASE_2: &[&str] = &[
    "cli/environment",
    "cli/exit",
    "cli/stdin",
    "cli/stdout",
    "cli/stderr",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "cli/terminal-stderr",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
];

/// The same of WASI 0.3.
const BASE_3: &[&str] = &[
    "cli/environment",
    "cli/exit",
    "cli/stdin",
    "cli/stdout",
    "cli/stderr",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "cli/terminal-stderr",
    "cli/types",
    "clocks/monotonic-clock",
    "clocks/system-clock",
    "clocks/types",
    "filesystem/preopens",
    "filesystem/types",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/ip-name-lookup",
    "sockets/types",
];

/// All that the base offers.
#[must_use]
pub fn offers() -> Vec<InterfaceId> {
    let ids = |names: &'static [&'static str], version: &'static str| {
        names
            .iter()
            .filter_map(move |name| format!("wasi:{name}@{version}").parse().ok())
    };
    ids(BASE_2, V2).chain(ids(BASE_3, V3)).collect()
}

/// What the base offers, as a [`World`].
#[must_use]
pub fn world() -> World {
    World {
        imports: offers(),
        exports: Vec::new(),
    }
}

/// Adds what the component imports of the base to its linker.
///
/// # Errors
/// When an interface is in the linker already.
pub fn link(linker: &mut Linker<StoreState>, component: &ComponentFacts) -> wasmtime::Result<()> {
    let imports = |minor| {
        component.world.imports.iter().any(|i| {
            i.namespace == "wasi"
                && i.version
                    .as_ref()
                    .is_some_and(|v| v.major == 0 && v.minor == minor)
        })
    };
    if imports(2) {
        p2::add_to_linker_async(linker)?;
    }
    // Asynchronous host functions exist in the concurrent engine only, and who imports WASI 0.3 is compiled for that.
    if component.flavor.is_concurrent() && imports(3) {
        p3::add_to_linker(linker)?;
    }
    volumes::link(linker, component)?;
    net::link(linker, component)?;
    link_apart(linker, component)
}

/// The same for parts with grants of their own: environment and directories, by which they come to all that they alone have.
fn link_apart(linker: &mut Linker<StoreState>, component: &ComponentFacts) -> wasmtime::Result<()> {
    type Cli = for<'a> fn(&'a mut StoreState) -> WasiCliCtxView<'a>;
    type Files = for<'a> fn(&'a mut StoreState) -> WasiFilesystemCtxView<'a>;
    const CLI: [Cli; MAX_APART] = at_each_place!(cli_of);
    const FILES: [Files; MAX_APART] = at_each_place!(files_of);
    let mut link = apart::Linking { linker, component };
    let environment = p2::bindings::cli::environment::add_to_linker_instance::<_, WasiCli>;
    link.interface("wasi:cli/environment@0.2.12", &CLI, environment)?;
    let preopens = p2::bindings::filesystem::preopens::add_to_linker_instance::<_, WasiFilesystem>;
    link.interface("wasi:filesystem/preopens@0.2.12", &FILES, preopens)?;
    let environment = p3::bindings::cli::environment::add_to_linker_instance::<_, WasiCli>;
    link.interface("wasi:cli/environment@0.3.0", &CLI, environment)?;
    let preopens = p3::bindings::filesystem::preopens::add_to_linker_instance::<_, WasiFilesystem>;
    link.interface("wasi:filesystem/preopens@0.3.0", &FILES, preopens)
}

fn cli_of<const PLACE: usize>(state: &mut StoreState) -> WasiCliCtxView<'_> {
    let WasiCtxView { ctx, table } = state.wasi_of::<PLACE>();
    WasiCliCtxView {
        ctx: ctx.cli(),
        table,
    }
}

fn files_of<const PLACE: usize>(state: &mut StoreState) -> WasiFilesystemCtxView<'_> {
    let WasiCtxView { ctx, table } = state.wasi_of::<PLACE>();
    WasiFilesystemCtxView {
        ctx: ctx.filesystem(),
        table,
    }
}

/// What the WASI state of one component's instances is made of.
pub(super) struct WasiTemplate {
    environment: Vec<(String, String)>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    preopens: Option<Arc<Preopens>>,
    pub grants: Arc<Grants>,
}

impl WasiTemplate {
    pub fn new(
        workload: &spec::Workload,
        component: &spec::Component,
        preopens: Option<Arc<Preopens>>,
        grants: Grants,
    ) -> Self {
        let stream = |name| Arc::new(Stream::new(workload, component, name));
        Self {
            environment: component.environment.clone().into_iter().collect(),
            stdout: stream("stdout"),
            stderr: stream("stderr"),
            preopens,
            grants: Arc::new(grants),
        }
    }

    /// The same for who is granted nothing.
    pub fn nothing(&self) -> Self {
        Self {
            environment: Vec::new(),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            preopens: None,
            grants: Arc::new(self.grants.nothing()),
        }
    }

    /// State for one instance.
    pub fn context(&self) -> WasiCtx {
        let mut builder = WasiCtx::builder();
        builder
            .envs(&self.environment)
            .stdout(Output::new(self.stdout.clone()))
            .stderr(Output::new(self.stderr.clone()))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut context = builder.build();
        if let Some(preopens) = &self.preopens {
            preopens.give(&mut context);
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Flavor};

    /// The interfaces of a world in this repository's WIT files, with all that they need.
    fn interfaces_of(folder: &str) -> Vec<String> {
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_path(folder).unwrap();
        let world = resolve.select_world(&[package], Some("base")).unwrap();
        let ids = resolve.worlds[world].imports.keys().map(|key| match key {
            wit_parser::WorldKey::Interface(id) => resolve.id_of(*id).unwrap(),
            wit_parser::WorldKey::Name(name) => name.clone(),
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }

    #[test]
    fn the_base_is_what_wasi_says() {
        let offers: Vec<String> = offers().iter().map(ToString::to_string).collect();
        let of = |version: &str| {
            let mut ids: Vec<String> = offers
                .iter()
                .filter(|id| id.ends_with(version))
                .cloned()
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(of(V2), interfaces_of("wit"));
        assert_eq!(of(V3), interfaces_of("wit/p3"));
    }

    #[test]
    fn only_what_is_imported_is_linked() {
        let engine = Engine::builder().max_instances(1).build().unwrap();
        let mut linker = engine.linker::<StoreState>(Flavor::Plain);
        let facts = ComponentFacts {
            name: "main".into(),
            world: Arc::default(),
            flavor: Flavor::Plain,
            apart: Arc::default(),
        };
        link(&mut linker, &facts).unwrap();
        assert!(linker.instance("wasi:cli/environment@0.2.12").is_ok());
    }
}
