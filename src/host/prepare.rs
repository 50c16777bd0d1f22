//! One generation of a workload on its way to answering: fetched, compiled, linked, started.

use std::{sync::Arc, time::Duration};

use futures::future::{join_all, try_join_all};
use tokio::sync::Notify;

use super::{Shared, compose, link, step::Prepared};
use crate::{
    fault::Fault,
    plugin::{Binding, Linked, Run, wasi::Kept},
    source::{Fetched, Freshness},
    spec::{self, Digest},
};

/// A generation that does not answer yet. Dropping it undoes what was done.
pub(super) struct Candidate {
    pub workload: Arc<spec::Workload>,
    stage: Stage,
    /// Digests by component, once fetched.
    pub digests: Vec<Digest>,
}

enum Stage {
    Nothing,
    Fetched(Vec<Fetched>),
    Compiled(compose::Roots),
    Linked(Generation),
    Contending(Generation),
}

/// A generation whose plugins are bound. Dropping it unbinds them, which cuts whatever still runs.
pub(super) struct Generation {
    pub workload: Arc<spec::Workload>,
    /// Digests by component.
    pub digests: Vec<Digest>,
    bindings: Vec<Box<dyn Binding>>,
    linked: Vec<Linked>,
}

impl Candidate {
    pub fn new(workload: Arc<spec::Workload>) -> Self {
        Self {
            workload,
            stage: Stage::Nothing,
            digests: Vec::new(),
        }
    }

    pub fn prepared(&self) -> Prepared {
        match self.stage {
            Stage::Nothing => Prepared::Nothing,
            Stage::Fetched(_) => Prepared::Fetched,
            Stage::Compiled(_) => Prepared::Compiled,
            Stage::Linked(_) => Prepared::Linked,
            Stage::Contending(_) => Prepared::Contending,
        }
    }

    /// Gets the bytes of all components at once; the first failure ends the step.
    pub async fn fetch(&mut self, shared: &Shared, freshness: Freshness) -> Result<(), Fault> {
        let fetches = self.workload.components.iter().map(|component| async {
            let fetched = shared.fetcher.fetch(&component.source, freshness).await;
            fetched.map_err(|error| Fault::from(error).in_component(&component.name))
        });
        let fetched = try_join_all(fetches).await?;
        self.digests = fetched.iter().map(|f| f.digest.clone()).collect();
        self.stage = Stage::Fetched(fetched);
        Ok(())
    }

    /// Links what was fetched among itself, and compiles it. The engine bounds how many compile at once.
    pub async fn compile(&mut self, shared: &Shared) -> Result<(), Fault> {
        let Stage::Fetched(fetched) = &self.stage else {
            return Ok(());
        };
        self.stage = Stage::Compiled(compose::compile(shared, &self.workload, fetched).await?);
        Ok(())
    }

    /// Resolves imports from the host, and binds plugins.
    pub async fn link(
        &mut self,
        shared: &Shared,
        signal: &Arc<Notify>,
        kept: &Kept,
    ) -> Result<(), Fault> {
        let Stage::Compiled(roots) = &self.stage else {
            return Ok(());
        };
        let (bindings, linked) = link::link(shared, &self.workload, roots, signal, kept).await?;
        self.stage = Stage::Linked(Generation {
            workload: self.workload.clone(),
            digests: self.digests.clone(),
            bindings,
            linked,
        });
        Ok(())
    }

    /// Lets the plugins call the components. It answers once [`Candidate::answers`] says so.
    pub fn start(&mut self) -> Result<(), Fault> {
        if let Stage::Linked(generation) = &mut self.stage {
            for binding in &mut generation.bindings {
                binding.start(&generation.linked)?;
            }
            // What was linked lives on in the plugins that call it.
            generation.linked = Vec::new();
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Nothing) {
            Stage::Linked(generation) => Stage::Contending(generation),
            other => other,
        };
        Ok(())
    }

    /// Whether the started generation answers; the fault says why not. None if it is not started.
    pub fn answers(&self) -> Option<Result<(), Fault>> {
        match &self.stage {
            Stage::Contending(generation) => Some(generation.fault().map_or(Ok(()), Err)),
            _ => None,
        }
    }

    /// Goes on with a desired state that [starts like](spec::Workload::starts_like) the one before.
    pub fn update(&mut self, workload: Arc<spec::Workload>) {
        if let Stage::Linked(generation) | Stage::Contending(generation) = &mut self.stage {
            generation.workload = workload.clone();
            generation.update(&workload);
        }
        self.workload = workload;
    }

    /// The started generation.
    pub fn into_generation(self) -> Option<Generation> {
        match self.stage {
            Stage::Contending(generation) => Some(generation),
            _ => None,
        }
    }

    /// Forgets what was done, to begin anew.
    pub fn reset(&mut self) {
        self.stage = Stage::Nothing;
    }
}

impl Generation {
    /// Takes over what of a changed desired state needs no new generation.
    pub fn update(&mut self, workload: &spec::Workload) {
        for binding in &mut self.bindings {
            binding.update(workload);
        }
    }

    /// It serves: what runs by itself begins.
    pub fn run(&mut self) {
        self.bindings.iter_mut().for_each(|binding| binding.run());
    }

    /// How what runs by itself is doing.
    pub fn runs(&self) -> Vec<Run> {
        self.bindings.iter().flat_map(|b| b.runs()).collect()
    }

    /// Whether it has done all that it is there for.
    pub fn completed(&self) -> bool {
        self.bindings.iter().any(|binding| binding.completed())
    }

    /// Whether it will do no more.
    pub fn over(&self) -> bool {
        self.bindings.iter().any(|binding| binding.over())
    }

    /// Why it does not answer although it is started.
    pub fn fault(&self) -> Option<Fault> {
        self.bindings.iter().find_map(|binding| binding.fault())
    }

    /// Takes no more calls, and gives those that run at most `grace` to end; then cuts the rest.
    pub async fn drain(self, grace: Duration) {
        let drained = join_all(self.bindings.iter().map(|binding| binding.drain()));
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!(
                namespace = self.workload.namespace,
                workload = self.workload.name,
                grace_seconds = grace.as_secs(),
                "requests still in flight after the grace period are cut"
            );
        }
    }
}
