//! One generation of a workload, as the HTTP server sees it: which component it calls, its routes, and what it may call.

use std::{
    mem,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{sync::Notify, time};

use super::{
    HANDLER_3, INCOMING_2,
    counters::Counters,
    egress::{Egress, Outside, Pool},
    flight::Flight,
    handler::{Export, Handler, Label},
    instances::{Instances, tend},
    route::Route,
    routes::{Claim, Standing, Token},
    serve::Ingress,
    shared::Shared,
};
use crate::{
    fault::{Class, Fault, Reason, Stage},
    plugin::{BindRequest, Binding, ComponentFacts, Linked, Slot, interface_ids, lane::Lane},
    spec,
    wit::InterfaceId,
};

/// Longest time that a workload answers on at its service port after it was told to stop, if nobody else answers there:
/// clients learn of it only some time later.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// The binding. Dropping it gives up the routes and cuts what is in flight.
pub(super) struct Bound {
    ingress: Arc<Ingress>,
    claim: Claim,
    /// The component that is called; or why there is none, which is no fault of a workload that need not be served.
    called: Result<Called, Fault>,
    service_port: Option<u16>,
    withheld: Option<Arc<str>>,
    lame_duck: Duration,
    egress: Vec<Arc<Egress>>,
    connections: Arc<Pool>,
    counters: Arc<Counters>,
    label: Label,
    signal: Arc<Notify>,
    running: Option<Running>,
}

struct Called {
    component: Arc<str>,
    concurrent: bool,
    timeout: Duration,
    reuse: Option<spec::Reuse>,
    max_instances: Option<NonZeroU32>,
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
    pub fn new(
        ingress: &Arc<Ingress>,
        outside: &Outside,
        request: &BindRequest<'_>,
    ) -> Result<Self, Fault> {
        let workload = request.workload;
        let mut routes = Vec::new();
        for entry in &request.interfaces {
            routes.extend(Route::of_entry(entry)?);
        }
        routes.retain(|route| !(workload.behind_service && route.is_default()));
        routes.sort_unstable();
        routes.dedup();
        let asks = if routes.is_empty() {
            "a service port asks for a handler"
        } else {
            "a wasi:http entry asks for a route"
        };
        let called = called(ingress, workload, request.components, asks);
        if !routes.is_empty()
            && let Err(fault) = called
        {
            return Err(fault);
        }
        let counters = ingress.counters(&workload.id);
        let label = |component: &Arc<str>| Label {
            namespace: workload.namespace.as_str().into(),
            workload: workload.name.as_str().into(),
            component: component.clone(),
        };
        let connections = Pool::new(outside, &outside.budget(&workload.id));
        let egress = workload.components.iter().map(|component| {
            Arc::new(Egress::new(
                component.allowed_hosts.clone(),
                &connections,
                &counters,
                label(&component.name),
                request.notices.clone(),
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
            connections,
            label: label(
                &called
                    .as_ref()
                    .map_or_else(|_| "".into(), |called| called.component.clone()),
            ),
            called,
            service_port: workload.service_port,
            withheld: workload.routes_withheld.clone(),
            lame_duck: LAME_DUCK.min(workload.grace / 2),
            counters,
            signal: request.signal.clone(),
            running: None,
        })
    }

    /// The routes that may be claimed.
    fn routes(&self) -> Vec<Route> {
        match self.withheld {
            Some(_) => Vec::new(),
            None => self.claim.routes.clone(),
        }
    }

    /// Why the routes do not lead here.
    fn route_fault(&self) -> Option<Fault> {
        let conflict = |message: String| {
            Some(Fault::new(Stage::Start, Reason::RouteConflict, message).class(Class::Signal))
        };
        if let Some(why) = self
            .withheld
            .as_ref()
            .filter(|_| !self.claim.routes.is_empty())
        {
            return conflict(why.to_string());
        }
        match self.ingress.standing(self.running.as_ref()?.token)? {
            Standing::Holds | Standing::Superseded => None,
            Standing::Waits { route, holder } => conflict(format!(
                "the route ({route}) belongs to workload {holder}, which is older; \
                 give one of them another `host` or `path` in its wasi:http entry, or delete one"
            )),
        }
    }

    /// Why the service port does not lead here.
    fn port_fault(&self) -> Option<Fault> {
        let port = self.service_port?;
        if let Err(fault) = &self.called {
            return Some(fault.clone());
        }
        let why = self.ingress.port_fault(port)?;
        let message = format!(
            "the service port {port} cannot be opened: {why}; stop what has it, it is tried again every second"
        );
        Some(Fault::new(Stage::Start, Reason::PortConflict, message).class(Class::Signal))
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
        let Ok(called) = &self.called else {
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
        let instances = Arc::new(Instances::new(
            linked.template.clone(),
            Export::of(linked, called.concurrent)?,
            called.reuse,
            called.max_instances,
            self.ingress.wait,
        ));
        let handler = Arc::new(Handler {
            shared: Shared::of(&instances, called.reuse),
            instances,
            timeout: called.timeout,
            lane: Lane::new(self.ingress.slow.get().cloned()),
            flight: Flight::default(),
            counters: self.counters.clone(),
            label: self.label.clone(),
        });
        if let Some(reuse) = called.reuse {
            let keeper: Weak<Handler> = Arc::downgrade(&handler);
            linked.template.room().add_keeper(keeper.clone());
            tokio::spawn(tend(keeper, reuse));
        }
        let claim = Claim {
            routes: self.routes(),
            ..self.claim.clone()
        };
        let (port, signal) = (self.service_port, self.signal.clone());
        let token = self.ingress.claim(claim, port, handler.clone(), signal);
        self.running = Some(Running { handler, token });
        Ok(())
    }

    fn update(&mut self, workload: &spec::Workload) {
        let former = mem::replace(&mut self.service_port, workload.service_port);
        let withheld = mem::replace(&mut self.withheld, workload.routes_withheld.clone());
        let Some(running) = &self.running else {
            return;
        };
        if (former, withheld.is_some()) == (self.service_port, self.withheld.is_some()) {
            return;
        }
        self.ingress
            .update(running.token, self.routes(), self.service_port);
        if let Some(former) = former.filter(|_| self.service_port != former) {
            let (ingress, token, wait) = (self.ingress.clone(), running.token, self.lame_duck);
            tokio::spawn(async move {
                time::sleep(wait).await;
                ingress.close_port(former).await;
                ingress.leave_port(token, former);
            });
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.route_fault().or_else(|| self.port_fault())
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(running) = &self.running else {
                return;
            };
            if self.ingress.leave(running.token) {
                time::sleep(self.lame_duck).await;
                // Until now clients were sent away; who has not come since then is told so too.
                self.ingress.close_ports_of(running.token).await;
            }
            // The next generation is within the same limit of memory.
            running.handler.keep_none();
            // Until the last one has ended, new requests are told so, unless somebody else has the route.
            running.handler.flight.drain().await;
            self.release();
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
        self.connections.close();
    }
}

/// The one component that exports a handler; `asks` says who wants one.
fn called(
    ingress: &Ingress,
    workload: &spec::Workload,
    components: &[ComponentFacts],
    asks: &str,
) -> Result<Called, Fault> {
    let handlers = interface_ids(&[HANDLER_3, INCOMING_2]);
    let concurrent = interface_ids(&[HANDLER_3]);
    let exports =
        |facts: &ComponentFacts, ids: &[InterfaceId]| ids.iter().any(|id| facts.exports(id));
    let mut able = components.iter().filter(|facts| exports(facts, &handlers));
    let refuse = |message: String| Err(Fault::new(Stage::Link, Reason::BindFailed, message));
    let Some(facts) = able.next() else {
        return refuse(format!(
            "{asks}, but no component exports {INCOMING_2} or {HANDLER_3}{}; \
             remove that, or build the component for the world wasi:http/proxy or wasi:http/service",
            nearest_export(components, &handlers)
        ));
    };
    if let Some(second) = able.next() {
        return refuse(format!(
            "{asks}, but components \"{}\" and \"{}\" both export a handler, and one can be \
             called; put them in workloads of their own",
            facts.name, second.name
        ));
    }
    let component = workload.components.iter().find(|c| c.name == facts.name);
    Ok(Called {
        component: facts.name.clone(),
        // A component that exports both is called by the newer one.
        concurrent: exports(facts, &concurrent),
        timeout: component
            .and_then(|c| c.request_timeout)
            .unwrap_or(ingress.request_timeout),
        reuse: component.and_then(reuse),
        max_instances: component.and_then(|c| c.max_instances),
    })
}

/// How instances are kept. Fuel is counted for a whole instance, so with it one serves one request at a time.
fn reuse(component: &spec::Component) -> Option<spec::Reuse> {
    let reuse = component.reuse?;
    Some(match component.fuel {
        Some(_) => spec::Reuse {
            max_concurrency: NonZeroU32::MIN,
            ..reuse
        },
        None => reuse,
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
