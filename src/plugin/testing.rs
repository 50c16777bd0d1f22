//! Binds, links and calls components without a host.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, broadcast};

use super::{
    BindRequest, Binding, ComponentFacts, HostPlugin, Linked, Notice, Notices, Part, StoreTemplate,
    wasi::{self, Kept},
};
use crate::{
    engine::{Compiled, Engine},
    fault::Fault,
    source::Fetched,
    spec::{self, DEFAULT_GRACE},
};

/// A plugin, maybe others beside it, and a workload to try them with.
pub(crate) struct Kit {
    pub plugin: Arc<dyn HostPlugin>,
    pub others: Vec<Arc<dyn HostPlugin>>,
    pub workload: spec::Workload,
    pub facts: Vec<ComponentFacts>,
    pub signal: Arc<Notify>,
    pub notices: broadcast::Sender<Notice>,
}

/// A workload that is bound and linked.
pub(crate) struct Bound {
    /// Of the plugin, not of the others, which are only linked.
    pub binding: Box<dyn Binding>,
    pub linked: Vec<Linked>,
    pub signal: Arc<Notify>,
    pub kept: Kept,
}

impl Kit {
    /// A plugin, and a workload `default/test` with one component `main` of no bytes.
    pub fn new(plugin: Arc<dyn HostPlugin>) -> Self {
        let workload = workload("test");
        let facts = vec![ComponentFacts {
            name: "main".into(),
            world: Arc::default(),
            flavor: crate::engine::Flavor::Plain,
            apart: Arc::default(),
        }];
        Self {
            plugin,
            others: Vec::new(),
            workload,
            facts,
            signal: Arc::default(),
            notices: Notices::channel(),
        }
    }

    fn request(&self, plugin: &dyn HostPlugin) -> BindRequest<'_> {
        let world = plugin.world();
        let ids = || world.imports.iter().chain(&world.exports);
        BindRequest {
            workload: &self.workload,
            interfaces: self
                .workload
                .interfaces
                .iter()
                .filter(|entry| ids().any(|id| entry.is(&id.namespace, &id.package)))
                .collect(),
            components: &self.facts,
            signal: self.signal.clone(),
            notices: Notices::new(&self.workload, &self.notices),
        }
    }

    /// Only binds.
    pub async fn bind(&self) -> Result<Box<dyn Binding>, Fault> {
        self.plugin.bind(self.request(&*self.plugin)).await
    }

    /// Compiles the workload's only component, binds, and links it with WASI's base and the plugins.
    pub async fn link(&mut self, engine: &Engine, bytes: &[u8]) -> Result<Bound, Fault> {
        let compiled = match self.workload.components[0].fuel {
            Some(_) => engine.compile_metered(&fetched(bytes)).await.unwrap(),
            None => compile(engine, bytes).await,
        };
        self.facts[0].world = compiled.world.clone();
        self.facts[0].flavor = compiled.flavor;
        let binding = self.bind().await?;
        let mut linker = engine.linker(compiled.flavor);
        wasi::link(&mut linker, &self.facts[0]).unwrap();
        self.plugin.link(&mut linker, &self.facts[0]).unwrap();
        let mut slots = Vec::from_iter(binding.slot("main"));
        for plugin in &self.others {
            slots.extend(plugin.bind(self.request(&**plugin)).await?.slot("main"));
            plugin.link(&mut linker, &self.facts[0]).unwrap();
        }
        let kept = Kept::new(Arc::default());
        let of_components = kept.slots(&self.workload, &self.facts).await?;
        let slots = slots.into_iter().chain(of_components.into_iter().flatten());
        let slots = slots.collect();
        let whole = Part::new(
            &self.workload,
            &self.workload.components[0],
            slots,
            &wasi::Network::default(),
            wasi::Role::Component,
        );
        let template = StoreTemplate::new(
            engine,
            &self.workload,
            &self.workload.components[0],
            &compiled,
            whole,
            Vec::new(),
        );
        let linked = Linked {
            facts: self.facts[0].clone(),
            pre: linker.instantiate_pre(&compiled.component).unwrap(),
            template: Arc::new(template),
        };
        Ok(Bound {
            binding,
            linked: vec![linked],
            signal: self.signal.clone(),
            kept,
        })
    }
}

/// A workload `default/NAME` with one component `main`, as old as any.
pub(crate) fn workload(name: &str) -> spec::Workload {
    spec::Workload {
        id: name.into(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        generation: 1,
        created: 0,
        owner: name.into(),
        components: vec![spec::Component {
            name: "main".into(),
            source: spec::Source::Bytes(Bytes::new()),
            config: Default::default(),
            environment: Default::default(),
            allowed_hosts: Vec::new(),
            allowed_names: Vec::new(),
            loopback_ports: Vec::new(),
            memory_limit: None,
            fuel: None,
            request_timeout: Some(Duration::from_secs(20)),
            reuse: None,
            max_instances: None,
            mounts: Vec::new(),
            role: spec::Role::Component,
        }],
        interfaces: Vec::new(),
        volumes: Vec::new(),
        memory_limit: None,
        grace: DEFAULT_GRACE,
        service_port: None,
        behind_service: false,
        routes_withheld: None,
        stamp: 0,
        commands: spec::Commands::default(),
    }
}

/// An entry of `hostInterfaces` for `namespace:package`.
pub(crate) fn config_entry(
    package: &str,
    interfaces: &[&str],
    config: &[(&str, &str)],
) -> spec::Interface {
    let (namespace, package) = package.split_once(':').unwrap();
    spec::Interface {
        namespace: namespace.to_owned(),
        package: package.to_owned(),
        interfaces: interfaces.iter().map(|&i| i.to_owned()).collect(),
        config: config
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        ..Default::default()
    }
}

/// Bytes as if they had been fetched.
pub(crate) fn fetched(bytes: impl AsRef<[u8]>) -> Fetched {
    Fetched::in_memory(Bytes::copy_from_slice(bytes.as_ref()))
}

pub(crate) async fn compile(engine: &Engine, bytes: &[u8]) -> Compiled {
    engine.compile(&fetched(bytes)).await.unwrap()
}

/// A guest that is checked in.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = format!("{}/e2e/guests/wasm/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Log events of one thread, as text; made by [`events_of`]. None for those of the others, which are not kept.
#[derive(Clone)]
struct Events(Option<Arc<Mutex<Vec<String>>>>);

/// What `work` logs, one text an event: its level and its fields.
pub(crate) fn events_of(work: impl FnOnce()) -> Vec<String> {
    // Or another thread that is first at the place where an event is logged could decide that nobody wants it.
    let _ = tracing::subscriber::set_global_default(Events(None));
    let events = Arc::<Mutex<Vec<String>>>::default();
    tracing::subscriber::with_default(Events(Some(events.clone())), work);
    let events = events.lock().unwrap();
    events.clone()
}

impl tracing::Subscriber for Events {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let Some(events) = &self.0 else {
            return;
        };
        let mut text = event.metadata().level().to_string();
        event.record(
            &mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                text.push_str(&format!(" {}={value:?}", field.name()));
            },
        );
        events.lock().unwrap().push(text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
