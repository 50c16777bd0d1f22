//! One generation of a workload, as the HTTP server sees it: which component it calls, its routes, and what it may call.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    HANDLER_3, INCOMING_2,
    counters::Counters,
    egress::Egress,
    flight::Flight,
    handler::{Export, Handler, Label},
    route::Route,
    routes::{Claim, Standing, Token},
    serve::Ingress,
};
use crate::{
    fault::{Class, Fault, Reason, Stage},
    plugin::{BindRequest, Binding, ComponentFacts, Linked, Slot, interface_ids},
    spec,
    wit::InterfaceId,
};

/// The binding. Dropping it gives up the routes and cuts what is in flight.
pub(super) struct Bound {
    ingress: Arc<Ingress>,
    claim: Claim,
    /// The component that is called; none if the workload is not served.
    called: Option<Called>,
    egress: Vec<Arc<Egress>>,
    counters: Arc<Counters>,
    label: Label,
    signal: Arc<Notify>,
    running: Option<Running>,
}

struct Called {
    component: Arc<str>,
    concurrent: bool,
    timeout: std::time::Duration,
}

struct Running {
    handler: Arc<Handler>,
    token: Token,
}

impl Bound {
    /// Reads the workload's entries and finds the component that they are about.
    ///
    /// # Errors
    /// A fault that names an option, or says why there is no component to call.
    pub fn new(ingress: &Arc<Ingress>, request: &BindRequest<'_>) -> Result<Self, Fault> {
        let workload = request.workload;
        let mut routes = Vec::new();
        for entry in &request.interfaces {
            routes.extend(Route::of_entry(entry)?);
        }
        routes.sort_unstable();
        routes.dedup();
        let called = if routes.is_empty() {
            None
        } else {
            Some(called(ingress, workload, request.components)?)
        };
        let counters = ingress.counters(&workload.id);
        let label = |component: &Arc<str>| Label {
            namespace: workload.namespace.as_str().into(),
            workload: workload.name.as_str().into(),
            component: component.clone(),
        };
        let egress = workload.components.iter().map(|component| {
            Arc::new(Egress::new(
                component.allowed_hosts.clone(),
                counters.clone(),
                label(&component.name),
            ))
        });
        Ok(Self {
            ingress: ingress.clone(),
            claim: Claim {
                workload: workload.id.clone(),
                created: workload.created,
                owner: workload.owner.clone(),
                name: format!("{}/{}", workload.namespace, workload.name).into(),
                routes,
            },
            egress: egress.collect(),
            label: label(
                &called
                    .as_ref()
                    .map_or_else(|| "".into(), |called| called.component.clone()),
            ),
            called,
            counters,
            signal: request.signal.clone(),
            running: None,
        })
    }

    fn release(&self) {
        if let Some(running) = &self.running {
            self.ingress.release(running.token);
        }
    }
}

impl Binding for Bound {
    fn slot(&self, component: &str) -> Option<Slot> {
        self.egress
            .iter()
            .find(|egress| egress.is_of(component))
            .map(|egress| egress.clone() as Slot)
    }

    fn start(&mut self, linked: &[Linked]) -> Result<(), Fault> {
        let Some(called) = &self.called else {
            return Ok(());
        };
        let linked = linked
            .iter()
            .find(|linked| linked.facts.name == called.component)
            .ok_or_else(|| {
                Fault::new(
                    Stage::Start,
                    Reason::HostError,
                    format!("component \"{}\" was not linked", called.component),
                )
            })?;
        let handler = Arc::new(Handler {
            export: Export::of(linked, called.concurrent)?,
            template: linked.template.clone(),
            timeout: called.timeout,
            flight: Flight::default(),
            counters: self.counters.clone(),
            label: self.label.clone(),
        });
        let token = self
            .ingress
            .claim(self.claim.clone(), handler.clone(), self.signal.clone());
        self.running = Some(Running { handler, token });
        Ok(())
    }

    fn fault(&self) -> Option<Fault> {
        let running = self.running.as_ref()?;
        match self.ingress.standing(running.token)? {
            Standing::Holds | Standing::Superseded => None,
            Standing::Waits { route, holder } => {
                let message = format!(
                    "the route ({route}) belongs to workload {holder}, which is older; \
                     give one of them another `host` or `path` in its wasi:http entry, or delete one"
                );
                Some(Fault::new(Stage::Start, Reason::RouteConflict, message).class(Class::Signal))
            }
        }
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.release();
            if let Some(running) = &self.running {
                running.handler.flight.drain().await;
            }
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.release();
        if let Some(running) = &self.running {
            running.handler.flight.close();
            self.ingress.forget(running.token);
        }
    }
}

/// The one component that exports a handler.
fn called(
    ingress: &Ingress,
    workload: &spec::Workload,
    components: &[ComponentFacts],
) -> Result<Called, Fault> {
    let handlers = interface_ids(&[HANDLER_3, INCOMING_2]);
    let concurrent = interface_ids(&[HANDLER_3]);
    let exports =
        |facts: &ComponentFacts, ids: &[InterfaceId]| ids.iter().any(|id| facts.exports(id));
    let mut able = components.iter().filter(|facts| exports(facts, &handlers));
    let refuse = |message: String| Err(Fault::new(Stage::Link, Reason::BindFailed, message));
    let Some(facts) = able.next() else {
        return refuse(format!(
            "a wasi:http entry asks for a route, but no component exports {INCOMING_2} or {HANDLER_3}{}; \
             remove the entry, or build the component for the world wasi:http/proxy or wasi:http/service",
            nearest_export(components, &handlers)
        ));
    };
    if let Some(second) = able.next() {
        return refuse(format!(
            "a wasi:http entry asks for a route, but components \"{}\" and \"{}\" both export a handler, and one can be \
             called; put them in workloads of their own",
            facts.name, second.name
        ));
    }
    let timeout = workload
        .components
        .iter()
        .find(|c| c.name == facts.name)
        .and_then(|c| c.request_timeout);
    Ok(Called {
        component: facts.name.clone(),
        // A component that exports both is called by the newer one.
        concurrent: exports(facts, &concurrent),
        timeout: timeout.unwrap_or(ingress.request_timeout),
    })
}

/// What a component exports instead, as a clause.
fn nearest_export(components: &[ComponentFacts], handlers: &[InterfaceId]) -> String {
    let nearest = components.iter().find_map(|facts| {
        let export = handlers
            .iter()
            .find_map(|wanted| wanted.nearest(&facts.world.exports))?;
        Some(format!(
            " (the nearest is {export} of component \"{}\")",
            facts.name
        ))
    });
    nearest
        .or_else(|| {
            let facts = components.first()?;
            let exports: Vec<String> = facts
                .world
                .exports
                .iter()
                .take(4)
                .map(ToString::to_string)
                .collect();
            let exports = if exports.is_empty() {
                "nothing".to_owned()
            } else {
                exports.join(", ")
            };
            Some(format!(" (component \"{}\" exports {exports})", facts.name))
        })
        .unwrap_or_default()
}
