//! From a `Workload` object to the desired state that the host acts on. Pure: what has to be read from the API server is
//! named by [`references`] and handed in as [`Resolved`].
//!
//! Nothing that a user writes is ignored. What is wrong is an error that names the field and the remedy; so is what this
//! version does not do yet ([`UNOBSERVED`]). All errors are found in one pass, since a user who has to apply a manifest five
//! times to learn five errors is not helped.

mod command;
mod image;
mod interface;
mod layer;
mod problem;
mod quantity;
mod reference;
mod traffic;
mod unobserved;
mod volume;

use std::{
    collections::HashSet,
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use crate::{spec, washlet::api};

pub(super) use command::{STOPPED, end_message, written_end};
pub(super) use interface::version;
pub use problem::{ConvertError, Problem};
pub use quantity::QuantityError;
pub(super) use quantity::bytes;
pub use reference::{Outcome, ReferenceKey, ReferenceKind, Referenced, Resolved, references};
pub use traffic::Asked;
pub(super) use traffic::{restarted_at, stamp};
pub use unobserved::{UNOBSERVED, Unobserved};

use image::PullSecrets;
use layer::Layer;
use problem::Problems;

/// Longest time for one request, and longest grace, that a field may ask for: a day.
const MAX_SECONDS: i64 = 86_400;

/// Makes the desired state.
///
/// # Errors
/// [`ConvertError`], with all that is wrong. References that are not in `resolved` count as missing.
pub fn convert(
    workload: &api::Workload,
    resolved: &Resolved,
) -> Result<spec::Workload, ConvertError> {
    let meta = &workload.metadata;
    let namespace = reference::namespace(workload).to_owned();
    let name = meta.name.clone().unwrap_or_default();
    let mut problems = Problems::default();
    unobserved::check(&workload.spec, &mut problems);
    let mut converter = Converter {
        namespace: &namespace,
        resolved,
        problems,
    };
    let volumes = converter.volumes(&workload.spec.volumes);
    let components = converter.components(&workload.spec, &volumes);
    let commands = converter.commands(workload);
    let memory_limit = converter.memory_limit("spec", workload.spec.resources.as_ref());
    let interfaces = converter.interfaces(&workload.spec.host_interfaces);
    let grace = converter
        .seconds(
            "spec.terminationGracePeriodSeconds",
            workload.spec.termination_grace_period_seconds,
            0,
        )
        .unwrap_or(spec::DEFAULT_GRACE);
    converter.problems.into_result()?;

    let id: spec::WorkloadId = match &meta.uid {
        Some(uid) => uid.as_str().into(),
        None => format!("{namespace}/{name}").into(),
    };
    Ok(spec::Workload {
        owner: root_owner(workload).into(),
        id,
        namespace,
        name,
        generation: meta.generation.unwrap_or_default(),
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        components,
        interfaces,
        volumes,
        memory_limit,
        grace,
        service_port: traffic::service_port(workload),
        behind_service: traffic::is_behind_service(workload),
        routes_withheld: traffic::routes_withheld(workload),
        stamp: traffic::stamp(workload),
        commands,
    })
}

/// Who shares a workload's routes: all revisions of its deployment, else all workloads of its replica set, else all of its
/// controller, else nobody. The labels count though nobody controls it (any more): an orphan is no stranger to its siblings.
///
/// Anybody can write anybody's UID or label, so they count with the namespace only: else a tenant could share another one's
/// routes.
pub(super) fn root_owner(workload: &api::Workload) -> String {
    let meta = &workload.metadata;
    let namespace = reference::namespace(workload);
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    if let Some(deployment) = label(api::label::DEPLOYMENT) {
        return format!("{namespace}/deployment/{deployment}");
    }
    if let Some(set) = label(api::label::REPLICA_SET) {
        return format!("{namespace}/set/{set}");
    }
    let mut owners = meta.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(controller) => format!("{namespace}/{}", controller.uid),
        None => {
            let name = || format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default());
            meta.uid.clone().unwrap_or_else(name)
        }
    }
}

/// The name of a component, for what is wrong with it.
fn named(component: &api::Component) -> Option<Arc<str>> {
    (!component.name.is_empty()).then(|| component.name.as_str().into())
}

/// Converts part by part. A part that is wrong leaves a problem behind and some value that is never used.
struct Converter<'a> {
    namespace: &'a str,
    resolved: &'a Resolved,
    problems: Problems,
}

impl Converter<'_> {
    fn components(
        &mut self,
        workload: &api::WorkloadSpec,
        volumes: &[spec::Volume],
    ) -> Vec<spec::Component> {
        let shared = self.shared_pull_secrets(workload);
        let mut names = HashSet::new();
        let mut components = Vec::with_capacity(workload.components.len());
        for (index, component) in workload.components.iter().enumerate() {
            let path = format!("spec.components[{index}]");
            if component.name.is_empty() {
                self.problems.invalid(
                    format!("{path}.name"),
                    "is empty; give the component a name",
                );
            } else if !names.insert(component.name.as_str()) {
                let text = format!(
                    "`{}` is the name of an earlier component too; names are unique",
                    component.name
                );
                self.problems.invalid(format!("{path}.name"), text);
            }
            self.problems.component = named(component);
            components.push(self.component(&path, component, &shared, volumes));
            self.problems.component = None;
        }
        if let Some(service) = &workload.service {
            components.push(self.service(service, &shared, &components, volumes));
        }
        components
    }

    fn component(
        &mut self,
        path: &str,
        component: &api::Component,
        shared: &PullSecrets,
        volumes: &[spec::Volume],
    ) -> spec::Component {
        let none = api::LocalResources::default();
        let local = component.local_resources.as_ref().unwrap_or(&none);
        let environment = local.environment.as_ref().map(|environment| {
            let at = format!("{path}.localResources.environment");
            self.check_variables(&at, environment);
            self.merge(&at, Layer::of_environment(environment))
        });
        let at = |field: &str| format!("{path}.localResources.{field}");
        spec::Component {
            name: Arc::from(component.name.as_str()),
            source: self.source(path, component, shared),
            config: local.config.clone(),
            environment: environment.unwrap_or_default(),
            allowed_hosts: self.entries(&at("allowedHosts"), &local.allowed_hosts),
            allowed_names: self
                .entries(&at("allowedIpNameLookups"), &local.allowed_ip_name_lookups),
            loopback_ports: self.entries(
                &at("allowedHostLoopbackPorts"),
                &local.allowed_host_loopback_ports,
            ),
            memory_limit: self.memory_limit(path, component.resources.as_ref()),
            fuel: self.fuel(path, component, local.fuel),
            request_timeout: self.seconds(
                &format!("{path}.requestTimeoutSeconds"),
                component.request_timeout_seconds,
                1,
            ),
            reuse: self.reuse(path, component),
            max_instances: self
                .count(&format!("{path}.maxInstances"), component.max_instances)
                .and_then(NonZeroU32::new),
            mounts: self.mounts(path, &local.volume_mounts, volumes),
            role: spec::Role::Component,
        }
    }

    fn fuel(
        &mut self,
        path: &str,
        component: &api::Component,
        fuel: Option<i64>,
    ) -> Option<NonZeroU64> {
        let value = fuel?;
        let fuel = u64::try_from(value).ok().and_then(NonZeroU64::new);
        let at = format!("{path}.localResources.fuel");
        if fuel.is_none() {
            let text = format!("{value} is not positive; leave it out if nothing is to be counted");
            self.problems.invalid(at, text);
        } else if component.max_concurrency.is_some_and(|most| most > 1) {
            let text = "is counted for an instance, not for each of the requests that one serves at the same time; \
                        leave it out, or `maxConcurrency`";
            self.problems.invalid(at, text);
        }
        fuel
    }

    fn reuse(&mut self, path: &str, component: &api::Component) -> Option<spec::Reuse> {
        let mut count = |field: &str, value| self.count(&format!("{path}.{field}"), value);
        let pool_size = count("poolSize", component.pool_size);
        let max_invocations = count("maxInvocations", component.max_invocations);
        let max_concurrency = count("maxConcurrency", component.max_concurrency);
        let min_instances = count("reclaimMinInstances", component.reclaim_min_instances);
        let idle = count("reclaimWindowSeconds", component.reclaim_window_seconds);
        let pool_size = pool_size.and_then(NonZeroU32::new)?;
        Some(spec::Reuse {
            pool_size,
            max_invocations: max_invocations.and_then(NonZeroU32::new),
            max_concurrency: max_concurrency
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN),
            min_instances: min_instances.unwrap_or(0).min(pool_size.get()),
            idle: idle
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
        })
    }

    /// A number that is not negative.
    fn count(&mut self, path: &str, value: Option<i32>) -> Option<u32> {
        let value = value?;
        let count = u32::try_from(value).ok();
        if count.is_none() {
            self.problems.invalid(
                path.to_owned(),
                format!("{value} is negative; 0 means the default"),
            );
        }
        count
    }

    fn check_variables(&mut self, path: &str, environment: &api::Environment) {
        for (name, value) in &environment.config {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let text =
                    "is not a variable: its name is empty or has `=`, or there is a NUL in it";
                self.problems
                    .invalid(format!("{path}.config[{name:?}]"), text);
            }
        }
    }

    /// The entries of a list of rules, each of which is parsed by itself.
    fn entries<T: FromStr<Err: fmt::Display>>(&mut self, path: &str, entries: &[String]) -> Vec<T> {
        let mut parsed = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match entry.parse::<T>() {
                Ok(entry) => parsed.push(entry),
                Err(error) => self
                    .problems
                    .invalid(format!("{path}[{index}]"), error.to_string()),
            }
        }
        parsed
    }

    fn memory_limit(&mut self, path: &str, resources: Option<&api::Resources>) -> Option<u64> {
        let quantity = resources?.limits.as_ref()?.memory.as_ref()?;
        match quantity::bytes(&quantity.0) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problems
                    .invalid(format!("{path}.resources.limits.memory"), error.to_string());
                None
            }
        }
    }

    fn seconds(&mut self, path: &str, seconds: Option<i64>, least: i64) -> Option<Duration> {
        let seconds = seconds?;
        if !(least..=MAX_SECONDS).contains(&seconds) {
            self.problems.invalid(
                path.to_owned(),
                format!("{seconds} is not from {least} to {MAX_SECONDS}"),
            );
        }
        Some(Duration::from_secs(seconds.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests;
