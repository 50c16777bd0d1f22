//! What each task comes to: gathers what is known, asks a pure function, and returns what is to be written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource as _;
use tokio::time::Instant;

use super::{
    super::{
        api::{self, Condition, condition_type},
        events::{News, Tone},
    },
    control::Leader,
    hosts, part,
    part::{Absent, Facts, Placement},
    placement::{self, absence, is_pinned},
    schedule::{Labels, Verdict, schedule},
    task::Task,
    traffic::{self, Backend, Published},
    world::{Id, World},
    write::Write,
};

/// Least time between two reasons that are given for one workload that fits nowhere.
const EXPLAINED: Duration = Duration::from_secs(10);
/// Least time between two placements: changes that come together are placed together.
const BETWEEN: Duration = Duration::from_millis(20);
/// A placement takes at most this share of the loop's time.
const SHARE: u32 = 5;

impl Leader<'_> {
    /// Decides about one task.
    pub(super) fn decide(&mut self, task: &Task, now: Instant) -> Vec<Write> {
        match task {
            Task::Placement => {
                self.place(now);
                Vec::new()
            }
            Task::Workload(id) => self.workload(id).into_iter().collect(),
            Task::Service(id) => self.service(id, now),
            Task::ReplicaSet(id) => self.replica_set(id, now),
            Task::Deployment(id) => self.deployment(id, now),
        }
    }

    // === Placement ===

    /// Decides where workloads without a host go; their own tasks write it.
    fn place(&mut self, now: Instant) {
        if let Some(earliest) = self.placed.filter(|at| *at > now) {
            return self.queue.mark_at(Task::Placement, earliest);
        }
        let none = Labels::new();
        let seen = placement::snapshot(&self.world, &self.placements, &self.judgement, &none);
        let allowance = self.evictions.allowance(&self.judgement, now);
        let begun = Instant::now();
        let plan = schedule(&seen.snapshot, allowance);
        let took = begun.elapsed();
        let mut decided: Vec<(Id, Placement)> = Vec::new();
        for decision in plan.decisions {
            let Some(&id) = seen.ids.get(decision.workload) else {
                continue;
            };
            decided.push((
                id.clone(),
                match decision.verdict {
                    Verdict::Nowhere(why) => Placement::Nowhere {
                        why: why.to_string(),
                    },
                    Verdict::Host(index) => {
                        let Some(host) = seen.snapshot.hosts.get(index) else {
                            continue;
                        };
                        Placement::On {
                            host: host.id.to_owned(),
                            environment: host.environment.map(str::to_owned),
                        }
                    }
                },
            ));
        }
        self.given.metrics.scheduling.observe(took.as_secs_f64());
        self.given
            .metrics
            .evictions
            .inc_by(u64::try_from(plan.moved).unwrap_or(u64::MAX));
        self.evictions.spend(plan.moved, now);
        if plan.waiting > 0 {
            // Suspended evictions are looked at again when they are suspended no more.
            if let Some(again) = self
                .evictions
                .again()
                .filter(|_| self.judgement.suspended.is_none())
            {
                self.queue.mark_at(Task::Placement, again);
            }
        }
        self.placed = Some(Instant::now() + BETWEEN.max(begun.elapsed() * SHARE));
        self.placements_decided(decided);
    }

    fn placements_decided(&mut self, decided: Vec<(Id, Placement)>) {
        // What is written by now need not be remembered.
        let world = &self.world;
        self.placements
            .retain(|id, placement| match (placement, world.workloads.get(id)) {
                (Placement::On { host, .. }, Some(workload)) => {
                    World::host_of(workload) != Some(host)
                }
                _ => false,
            });
        let now = Instant::now();
        self.explained
            .retain(|_, at| now.duration_since(*at) < EXPLAINED);
        let conditions =
            |workload: &api::Workload| workload.status.clone().unwrap_or_default().conditions;
        let told = |workload: &api::Workload, why: &str| {
            Condition::find(&conditions(workload), condition_type::SCHEDULED)
                .is_some_and(|is| is.message == why)
        };
        for (id, placement) in decided {
            let Some(workload) = self.world.workloads.get(&id) else {
                continue;
            };
            let assigned = World::host_of(workload).map(str::to_owned);
            match (&placement, &assigned) {
                // It stays assigned to a lost host, which may come back.
                (Placement::Nowhere { .. }, Some(_)) => continue,
                (Placement::Nowhere { why }, None) if told(workload, why) => {}
                // It has heard another reason a moment ago; every host that comes or goes makes a new one.
                (Placement::Nowhere { .. }, None) if self.explained.contains_key(&id) => {
                    self.queue.mark_at(Task::Placement, now + EXPLAINED);
                    continue;
                }
                (Placement::Nowhere { why }, None) => {
                    self.tell(workload, Tone::Warning, "FailedScheduling", why.clone());
                    self.explained.insert(id.clone(), now);
                }
                (Placement::On { host, .. }, None) => {
                    self.tell(
                        workload,
                        Tone::Normal,
                        "Scheduled",
                        format!("assigned to host {host}"),
                    );
                }
                (Placement::On { host, .. }, Some(lost)) => {
                    self.tell(
                        workload,
                        Tone::Warning,
                        "Rescheduled",
                        format!("moved from host {lost}, which is lost, to {host}"),
                    );
                }
                _ => {}
            }
            self.queue.mark(Task::Workload(id.clone()));
            self.placements.insert(id, placement);
        }
    }

    fn tell(&self, workload: &api::Workload, tone: Tone, reason: &'static str, note: String) {
        self.given.events.tell(News {
            regarding: workload.object_ref(&()),
            tone,
            reason,
            action: "Scheduling",
            note,
        });
    }

    // === Workloads ===

    fn workload(&mut self, id: &Id) -> Option<Write> {
        let workload = self.world.workloads.get(id)?.clone();
        let facts = self.facts(id, &workload);
        part::write(&workload, &facts, Timestamp::now())
    }

    fn facts(&mut self, id: &Id, workload: &api::Workload) -> Facts {
        let placement = self.placement(id, workload);
        let service_id = World::service_of(workload);
        let service = service_id.as_ref().map(|id| {
            let port = self.ports.of(id);
            traffic::check(id, self.world.services.get(id).map(|s| &**s), port)
        });
        let reported = World::host_of(workload);
        let absent = match (&placement, reported) {
            (Placement::Nowhere { why }, None) => Some(Absent::Unschedulable { why: why.clone() }),
            (_, Some(host)) => self.absent(workload, host),
            _ => None,
        };
        let host = placement::host_of(id, workload, &self.placements);
        let host = host.and_then(|host| self.world.host(host));
        let endpoints = match (&service, host) {
            (Some(Ok(port)), Some(host)) => endpoints(host, *port),
            _ => Vec::new(),
        };
        Facts {
            placement,
            conflict: self.routes.conflict(id),
            service,
            endpoints,
            absent,
        }
    }

    /// Why nobody reports about a workload that has a host.
    fn absent(&self, workload: &api::Workload, host: &str) -> Option<Absent> {
        // A host that was never heard of may be another installation's, or come yet.
        if is_pinned(workload) && self.world.host(host).is_none() {
            return None;
        }
        absence(&self.world, &self.judgement, host)
    }

    fn placement(&self, id: &Id, workload: &api::Workload) -> Placement {
        if is_pinned(workload) {
            return Placement::Pinned;
        }
        if let Some(decided) = self.placements.get(id) {
            return decided.clone();
        }
        let Some(host) = World::host_of(workload) else {
            return Placement::Pending;
        };
        // While a host is not known, what was said of its environment is left.
        let said = || workload.status.as_ref().and_then(|s| s.environment.clone());
        let environment = self
            .world
            .host(host)
            .map_or_else(said, |host| host.spec.environment.clone());
        Placement::On {
            host: host.to_owned(),
            environment,
        }
    }

    // === Services ===

    fn service(&mut self, id: &Id, now: Instant) -> Vec<Write> {
        self.leaving.retain(|_, until| *until > now);
        let is_named = self.world.workloads_behind(id).next().is_some();
        let backends = self.backends(id);
        if !is_named && backends.is_empty() {
            self.ports.release(id);
        }
        let port = if is_named {
            self.ports.of(id)
        } else {
            self.ports.known(id)
        };
        let service = self.world.services.get(id).cloned();
        let checked = traffic::check(id, service.as_deref(), port);
        let published = match (&service, checked) {
            (Some(service), Ok(port)) => Some(Published {
                service,
                port,
                backends: &backends,
            }),
            _ => None,
        };
        traffic::publish(id, published.as_ref(), &self.slices(id))
    }

    /// The EndpointSlices that there are of a Service.
    fn slices(&self, id: &Id) -> Vec<&EndpointSlice> {
        let is_of = |slice: &&Arc<EndpointSlice>| {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|l| l.get("kubernetes.io/service-name"));
            service.map(String::as_str) == Some(&*id.name)
        };
        let slices = self.world.slices.in_namespace(&id.namespace);
        slices.filter(is_of).map(|slice| &**slice).collect()
    }

    /// The hosts that a Service leads to.
    fn backends(&self, id: &Id) -> Vec<Backend> {
        let mut hosts: BTreeMap<Arc<str>, (bool, bool)> = BTreeMap::new();
        for workload in self.world.workloads_behind(id) {
            let Some(host) = World::host_of(workload) else {
                continue;
            };
            let (ready, answering) = answers(workload, self.ports.known(id));
            let known = hosts.entry(host.into()).or_default();
            *known = (known.0 || ready, known.1 || answering);
        }
        for (_, host) in self.leaving.keys().filter(|(service, _)| service == id) {
            hosts.entry(host.clone()).or_insert((false, true));
        }
        let slices = self.slices(id);
        let backend = |(id, (ready, answering)): (Arc<str>, (bool, bool))| {
            let host = self.world.host(&id)?;
            let alive = absence(&self.world, &self.judgement, &id).is_none();
            let draining = hosts::is_draining(host);
            let node = self.world.nodes.get(&Id::new("", &id));
            let mut backend = Backend {
                zone: hosts::zone(node.map(|n| &**n)),
                addresses: hosts::addresses(host),
                ready: ready && alive && !draining,
                serving: answering && alive,
                terminating: draining || (!ready && answering),
                host: id,
            };
            // When most hosts seem lost, it is more likely that they cannot be heard than that they do not answer: what was
            // published of them is left as it is.
            if !alive && self.judgement.suspended.is_some() {
                traffic::leave(&mut backend, &slices);
            }
            Some(backend)
        };
        hosts.into_iter().filter_map(backend).collect()
    }
}

/// Whether a workload should get the Service's traffic, and whether it would answer it.
fn answers(workload: &api::Workload, port: Option<u16>) -> (bool, bool) {
    let status = workload.status.as_ref();
    let ready = Condition::find(status.map_or(&[], |s| &s.conditions), condition_type::READY);
    // Its agent opens the port once the status names it.
    let opened = port.is_some() && status.and_then(|s| s.service_port) == port.map(i32::from);
    let ready_now = opened
        && ready.is_some_and(Condition::is_true)
        && workload.metadata.deletion_timestamp.is_none();
    let draining = opened && ready.is_some_and(|r| r.reason == "Draining");
    (ready_now, ready_now || draining)
}

fn endpoints(host: &api::Host, port: u16) -> Vec<api::Endpoint> {
    let endpoint = |address: std::net::IpAddr| api::Endpoint {
        address: address.to_string(),
        port: i32::from(port),
        host_id: Some(host.spec.host_id.clone()),
    };
    hosts::addresses(host).into_iter().map(endpoint).collect()
}
