//! What components that are linked into one are granted.
//!
//! Linked into one, they share each import from the host, and the host cannot tell which of them calls. So a grant of one
//! becomes the whole's only where no other part could use it for more than its own: either one part alone imports what leads
//! to it, or all that do are granted the same. Else [`merge`] refuses; two grants never become one.

use std::{num::NonZeroU64, sync::Arc};

use crate::{
    fault::{Fault, Reason, Stage},
    spec,
    wit::InterfaceId,
};

/// A component that becomes part of another.
pub(super) struct Part<'a> {
    pub component: &'a spec::Component,
    /// What it imports from the host, rather than from another part.
    pub imports: Vec<InterfaceId>,
}

/// Something that a component is given beyond its imports, and that it reaches through some of them.
struct Grant {
    /// As a user writes it.
    field: &'static str,
    leads_to_it: fn(&InterfaceId) -> bool,
    same: fn(&spec::Component, &spec::Component) -> bool,
    take: fn(&mut spec::Component, &spec::Component),
}

const GRANTS: [Grant; 6] = [
    Grant {
        field: "localResources.config",
        leads_to_it: |import| import.namespace == "wasi" && import.package == "config",
        same: |a, b| a.config == b.config,
        take: |whole, part| whole.config.clone_from(&part.config),
    },
    Grant {
        field: "localResources.environment",
        leads_to_it: |import| {
            import.namespace == "wasi"
                && import.package == "cli"
                && import.interface == "environment"
        },
        same: |a, b| a.environment == b.environment,
        take: |whole, part| whole.environment.clone_from(&part.environment),
    },
    Grant {
        field: "localResources.allowedHosts",
        // The types alone reach nobody.
        leads_to_it: |import| {
            import.namespace == "wasi" && import.package == "http" && import.interface != "types"
                || is_of_sockets(import)
        },
        same: |a, b| {
            let within = |a: &[_], b: &[_]| a.iter().all(|rule| b.contains(rule));
            within(&a.allowed_hosts, &b.allowed_hosts) && within(&b.allowed_hosts, &a.allowed_hosts)
        },
        take: |whole, part| whole.allowed_hosts.clone_from(&part.allowed_hosts),
    },
    Grant {
        field: "localResources.allowedIpNameLookups",
        leads_to_it: is_of_sockets,
        same: |a, b| a.allowed_names == b.allowed_names,
        take: |whole, part| whole.allowed_names.clone_from(&part.allowed_names),
    },
    Grant {
        field: "localResources.allowedHostLoopbackPorts",
        leads_to_it: is_of_sockets,
        same: |a, b| a.loopback_ports == b.loopback_ports,
        take: |whole, part| whole.loopback_ports.clone_from(&part.loopback_ports),
    },
    Grant {
        field: "localResources.volumeMounts",
        leads_to_it: |import| import.namespace == "wasi" && import.package == "filesystem",
        same: |a, b| a.mounts == b.mounts,
        take: |whole, part| whole.mounts.clone_from(&part.mounts),
    },
];

fn is_of_sockets(import: &InterfaceId) -> bool {
    import.namespace == "wasi" && import.package == "sockets"
}

/// The whole that these parts become, as a component of the workload: it has the first one's name and time, and memory for
/// all of them, since a limit is on all memories of an instance together; and so with fuel. `default_memory` is for those
/// without a limit.
///
/// # Errors
/// A fault that names two parts and the grant in which they differ, or of which one alone has fuel.
pub(super) fn merge(
    parts: &[Part<'_>],
    default_memory: u64,
) -> Result<Option<spec::Component>, Fault> {
    let Some(root) = parts.first() else {
        return Ok(None);
    };
    if parts.len() == 1 {
        return Ok(Some(root.component.clone()));
    }
    // Written out, so that whoever adds a grant has to say here what becomes of it.
    let spec::Component {
        name,
        source,
        config: _,
        environment: _,
        allowed_hosts: _,
        allowed_names: _,
        loopback_ports: _,
        mounts: _,
        memory_limit: _,
        fuel: _,
        request_timeout,
        reuse,
        max_instances,
        role,
    } = root.component;
    let mut whole = spec::Component {
        name: name.clone(),
        source: source.clone(),
        config: Default::default(),
        environment: Default::default(),
        allowed_hosts: Vec::new(),
        memory_limit: Some(
            parts
                .iter()
                .map(|part| part.component.memory_limit.unwrap_or(default_memory))
                .fold(0, u64::saturating_add),
        ),
        fuel: fuel(parts)?,
        request_timeout: *request_timeout,
        allowed_names: Vec::new(),
        loopback_ports: Vec::new(),
        mounts: Vec::new(),
        // State that outlives a request is for every part to allow.
        reuse: reuse.filter(|_| parts.iter().all(|part| part.component.reuse.is_some())),
        max_instances: *max_instances,
        role: *role,
    };
    for grant in &GRANTS {
        let mut users = parts
            .iter()
            .filter_map(|part| Some((part, part.imports.iter().find(|i| (grant.leads_to_it)(i))?)));
        let Some((first, import)) = users.next() else {
            continue;
        };
        if let Some((other, _)) =
            users.find(|(other, _)| !(grant.same)(first.component, other.component))
        {
            return Err(conflict(grant.field, import, first, other));
        }
        (grant.take)(&mut whole, first.component);
    }
    Ok(Some(whole))
}

/// The fuel of the whole, which is counted as one: that of all parts together, if they have any.
fn fuel(parts: &[Part<'_>]) -> Result<Option<NonZeroU64>, Fault> {
    let without = parts.iter().find(|part| part.component.fuel.is_none());
    let with = parts.iter().find(|part| part.component.fuel.is_some());
    if let (Some(without), Some(with)) = (without, with) {
        let message = format!(
            "components \"{}\" and \"{}\" are linked into one, whose fuel is counted as one, but only \"{}\" has \
             localResources.fuel; give it to both, or to none",
            with.component.name, without.component.name, with.component.name
        );
        return Err(Fault::new(Stage::Link, Reason::UnsupportedSpec, message));
    }
    let all = parts.iter().filter_map(|part| part.component.fuel);
    Ok(all.reduce(|sum, more| sum.saturating_add(more.get())))
}

fn conflict(field: &str, import: &InterfaceId, one: &Part<'_>, other: &Part<'_>) -> Fault {
    let name = |part: &Part<'_>| Arc::clone(&part.component.name);
    let message = format!(
        "components \"{}\" and \"{}\" are linked into one and both use {}:{}/{}, but their {field} differ, and the host could \
         not tell which of them calls; give both the same, or put them into workloads of their own",
        name(one),
        name(other),
        import.namespace,
        import.package,
        import.interface,
    );
    Fault::new(Stage::Link, Reason::UnsupportedSpec, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plugin::testing;

    const ENVIRONMENT: &str = "wasi:cli/environment@0.2.0";
    const CONFIG: &str = "wasi:config/store@0.2.0-rc.1";
    const OUTGOING: &str = "wasi:http/outgoing-handler@0.2.3";
    const CLIENT: &str = "wasi:http/client@0.3.0";
    const TYPES: &str = "wasi:http/types@0.2.3";

    fn granted(name: &str) -> spec::Component {
        let value = || BTreeMap::from([("key".to_owned(), format!("of {name}"))]);
        spec::Component {
            name: name.into(),
            config: value(),
            environment: value(),
            allowed_hosts: vec![format!("{name}.test").parse().unwrap()],
            memory_limit: None,
            ..testing::workload("test").components[0].clone()
        }
    }

    fn merged(parts: &[(&spec::Component, &[&str])]) -> Result<spec::Component, Fault> {
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|(component, imports)| Part {
                component,
                imports: imports.iter().map(|i| i.parse().unwrap()).collect(),
            })
            .collect();
        merge(&parts, 100).map(Option::unwrap)
    }

    #[test]
    fn a_grant_is_that_of_the_only_part_that_can_use_it() {
        let (front, back) = (granted("front"), granted("back"));
        let whole =
            merged(&[(&front, &[TYPES, ENVIRONMENT]), (&back, &[TYPES, OUTGOING])]).unwrap();
        assert_eq!(&*whole.name, "front");
        assert_eq!(whole.environment, front.environment);
        assert_eq!(whole.allowed_hosts, back.allowed_hosts);
        assert!(whole.config.is_empty(), "nobody reads it");
        let whole = merged(&[(&front, &[]), (&back, &[CONFIG])]).unwrap();
        assert_eq!(whole.config, back.config);
        assert!(whole.allowed_hosts.is_empty() && whole.environment.is_empty());
    }

    #[test]
    fn equal_grants_are_the_wholes() {
        let mut front = granted("front");
        front.allowed_hosts = ["a.test", "b.test"].map(|h| h.parse().unwrap()).into();
        let mut back = spec::Component {
            name: "back".into(),
            ..front.clone()
        };
        back.allowed_hosts.reverse();
        let all = &[ENVIRONMENT, CONFIG, OUTGOING][..];
        let whole = merged(&[(&front, all), (&back, all)]).unwrap();
        assert_eq!(whole.environment, front.environment);
        assert_eq!(whole.config, front.config);
        assert_eq!(whole.allowed_hosts, front.allowed_hosts);
    }

    #[test]
    fn grants_that_differ_are_never_merged() {
        let (front, back) = (granted("front"), granted("back"));
        let cases = [
            (ENVIRONMENT, ENVIRONMENT, "localResources.environment"),
            (
                CONFIG,
                "wasi:config/runtime@0.2.0-draft",
                "localResources.config",
            ),
            (OUTGOING, OUTGOING, "localResources.allowedHosts"),
            (OUTGOING, CLIENT, "localResources.allowedHosts"),
        ];
        for (of_front, of_back, field) in cases {
            let middle = granted("middle");
            let parts: [(&spec::Component, &[&str]); 3] = [
                (&front, &[of_front]),
                (&middle, &[TYPES]),
                (&back, &[of_back]),
            ];
            let fault = merged(&parts).unwrap_err();
            assert_eq!(
                (fault.stage, fault.reason),
                (Stage::Link, Reason::UnsupportedSpec)
            );
            for text in ["\"front\" and \"back\"", field] {
                assert!(fault.message.contains(text), "{text}: {fault}");
            }
            assert!(!fault.message.contains("of front"), "no value: {fault}");
        }
    }

    #[test]
    fn fuel_is_for_all_parts_or_for_none() {
        let (mut front, mut back) = (granted("front"), granted("back"));
        front.fuel = NonZeroU64::new(30);
        let fault = merged(&[(&front, &[]), (&back, &[])]).unwrap_err();
        assert_eq!(fault.reason, Reason::UnsupportedSpec);
        for text in [
            "\"front\" and \"back\"",
            "only \"front\" has localResources.fuel",
        ] {
            assert!(fault.message.contains(text), "{text}: {fault}");
        }
        back.fuel = NonZeroU64::new(12);
        let whole = merged(&[(&front, &[]), (&back, &[])]).unwrap();
        assert_eq!(whole.fuel, NonZeroU64::new(42));
        back.fuel = Some(NonZeroU64::MAX);
        let whole = merged(&[(&front, &[]), (&back, &[])]).unwrap();
        assert_eq!(whole.fuel, Some(NonZeroU64::MAX));
    }

    #[test]
    fn memory_is_the_sum_and_the_rest_the_roots() {
        let (mut front, mut back) = (granted("front"), granted("back"));
        front.memory_limit = Some(30);
        let whole = merged(&[(&front, &[]), (&back, &[])]).unwrap();
        assert_eq!(whole.memory_limit, Some(130));
        assert_eq!(whole.request_timeout, front.request_timeout);
        back.memory_limit = Some(u64::MAX);
        let whole = merged(&[(&front, &[]), (&back, &[])]).unwrap();
        assert_eq!(whole.memory_limit, Some(u64::MAX));
        assert_eq!(merged(&[(&front, &[])]).unwrap(), front);
    }
}
