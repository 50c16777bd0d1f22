//! What components that are linked into one are granted.
//!
//! Linked into one, they share each import from the host, and the host cannot tell which of them calls. So a grant of one
//! becomes the whole's only where no other part could use it for more than its own: either one part alone imports what leads
//! to it, or all that do are granted the same. A part of which that is not true stays apart: it imports what leads to its
//! grants under names of its own. Two grants never become one.

use std::num::NonZeroU64;

use crate::{
    engine::OwnImport,
    fault::{Fault, Reason, Stage},
    plugin::{Apart, MAX_APART},
    spec,
    wit::InterfaceId,
};

/// A component that becomes part of another.
pub(super) struct Part<'a> {
    pub component: &'a spec::Component,
    /// What it imports from the host, rather than from another part.
    pub imports: Vec<InterfaceId>,
}

/// What parts become.
#[derive(Debug, PartialEq)]
pub(super) struct Whole {
    /// As a component of the workload.
    pub component: spec::Component,
    /// Parts that are granted something else, each by its index.
    pub apart: Vec<usize>,
}

/// Something that a component is given beyond its imports, and that it reaches through some of them.
struct Grant {
    leads_to_it: fn(&InterfaceId) -> bool,
    same: fn(&spec::Component, &spec::Component) -> bool,
    take: fn(&mut spec::Component, &spec::Component),
}

const GRANTS: [Grant; 6] = [
    Grant {
        leads_to_it: |import| import.namespace == "wasi" && import.package == "config",
        same: |a, b| a.config == b.config,
        take: |whole, part| whole.config.clone_from(&part.config),
    },
    Grant {
        leads_to_it: |import| {
            import.namespace == "wasi"
                && import.package == "cli"
                && import.interface == "environment"
        },
        same: |a, b| a.environment == b.environment,
        take: |whole, part| whole.environment.clone_from(&part.environment),
    },
    Grant {
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
        leads_to_it: is_of_sockets,
        same: |a, b| a.allowed_names == b.allowed_names,
        take: |whole, part| whole.allowed_names.clone_from(&part.allowed_names),
    },
    Grant {
        leads_to_it: is_of_sockets,
        same: |a, b| a.loopback_ports == b.loopback_ports,
        take: |whole, part| whole.loopback_ports.clone_from(&part.loopback_ports),
    },
    Grant {
        leads_to_it: |import| import.namespace == "wasi" && import.package == "filesystem",
        same: |a, b| a.mounts == b.mounts,
        take: |whole, part| whole.mounts.clone_from(&part.mounts),
    },
];

/// The interfaces through which a part that stays apart comes to all of its grants. With what else they import, components
/// use only what they came to through these. All of `wasi:config` is one, too.
const DOORS: [(&str, &str); 8] = [
    ("cli", "environment"),
    ("filesystem", "preopens"),
    ("http", "client"),
    ("http", "outgoing-handler"),
    ("sockets", "ip-name-lookup"),
    ("sockets", "tcp-create-socket"),
    // Of WASI 0.3, whose sockets are made by their types.
    ("sockets", "types"),
    ("sockets", "udp-create-socket"),
];

fn is_of_sockets(import: &InterfaceId) -> bool {
    import.namespace == "wasi" && import.package == "sockets"
}

/// The whole that these parts become: it has the first one's name and time, and memory for all of them, since a limit is on
/// all memories of an instance together; and so with fuel. `default_memory` is for those without a limit.
///
/// # Errors
/// A fault, if one alone has fuel, or if too many would have to stay apart.
pub(super) fn merge(parts: &[Part<'_>], default_memory: u64) -> Result<Option<Whole>, Fault> {
    let Some(root) = parts.first() else {
        return Ok(None);
    };
    if parts.len() == 1 {
        return Ok(Some(Whole {
            component: root.component.clone(),
            apart: Vec::new(),
        }));
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
    let apart = share(parts, &mut whole);
    if apart.len() > MAX_APART {
        return Err(too_many(root, apart.len()));
    }
    Ok(Some(Whole {
        component: whole,
        apart,
    }))
}

/// Gives the whole the grants of its parts, from the first to the last, and returns those that have others than the parts
/// before them.
fn share(parts: &[Part<'_>], whole: &mut spec::Component) -> Vec<usize> {
    let mut taken = [false; GRANTS.len()];
    let mut apart = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let uses = |grant: &Grant| {
            part.imports
                .iter()
                .any(|import| (grant.leads_to_it)(import))
        };
        let used = GRANTS.iter().zip(&mut taken);
        let mut used: Vec<_> = used.filter(|(grant, _)| uses(grant)).collect();
        let same = |grant: &Grant| (grant.same)(whole, part.component);
        if used.iter().any(|(grant, taken)| **taken && !same(grant)) {
            apart.push(index);
            continue;
        }
        for (grant, taken) in used.iter_mut().filter(|(_, taken)| !**taken) {
            (grant.take)(whole, part.component);
            **taken = true;
        }
    }
    apart
}

/// Most versions of one interface that a part which stays apart may import: each has functions of its own.
const MAX_VERSIONS: usize = 4;

/// A part that stays apart, and which of its imports are its own. None if it has no way to its grants.
///
/// # Errors
/// A fault, if it imports one of them too often.
pub(super) fn own(index: usize, part: &Part<'_>) -> Result<Option<Apart>, Fault> {
    let doors = part.imports.iter().filter(|import| {
        let door = (import.package.as_str(), import.interface.as_str());
        import.namespace == "wasi" && (import.package == "config" || DOORS.contains(&door))
    });
    let mut imports: Vec<OwnImport> = Vec::new();
    for import in doors {
        let before = imports.iter().filter(|own| own.import.same_name(import));
        let nth = before.count();
        if nth == MAX_VERSIONS {
            return Err(too_often(part, import));
        }
        imports.push(OwnImport {
            part: index,
            import: import.clone(),
            nth,
        });
    }
    Ok((!imports.is_empty()).then(|| Apart {
        component: part.component.name.clone(),
        imports,
    }))
}

fn too_often(part: &Part<'_>, import: &InterfaceId) -> Fault {
    let name = &part.component.name;
    let message = format!(
        "component \"{name}\" imports {}:{}/{} in more than {MAX_VERSIONS} versions, and is granted something else than the \
         components that it is linked with; build it against one version",
        import.namespace, import.package, import.interface
    );
    Fault::new(Stage::Link, Reason::UnsupportedSpec, message).of_component(name.clone())
}

fn too_many(root: &Part<'_>, many: usize) -> Fault {
    let message = format!(
        "component \"{}\" is linked into one with {many} others that are all granted something else in their localResources, \
         and the host can tell {MAX_APART} apart; give some of them the same, or put them into workloads of their own",
        root.component.name
    );
    Fault::new(Stage::Link, Reason::UnsupportedSpec, message)
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

    fn part<'a>(component: &'a spec::Component, imports: &[&str]) -> Part<'a> {
        Part {
            component,
            imports: imports.iter().map(|i| i.parse().unwrap()).collect(),
        }
    }

    fn parted(parts: &[(&spec::Component, &[&str])]) -> Result<Whole, Fault> {
        let parts: Vec<Part<'_>> = parts.iter().map(|(c, imports)| part(c, imports)).collect();
        merge(&parts, 100).map(Option::unwrap)
    }

    /// The whole of parts that all share their grants.
    fn merged(parts: &[(&spec::Component, &[&str])]) -> Result<spec::Component, Fault> {
        let whole = parted(parts)?;
        assert_eq!(whole.apart, [0; 0]);
        Ok(whole.component)
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
    fn a_part_with_other_grants_stays_apart_with_all_of_them() {
        let (front, back) = (granted("front"), granted("back"));
        let cases = [
            (ENVIRONMENT, ENVIRONMENT),
            (CONFIG, "wasi:config/runtime@0.2.0-draft"),
            (OUTGOING, OUTGOING),
            (OUTGOING, CLIENT),
            (OUTGOING, "wasi:sockets/tcp-create-socket@0.2.0"),
        ];
        for (of_front, of_back) in cases {
            let middle = granted("middle");
            let parts: [(&spec::Component, &[&str]); 3] = [
                (&front, &[of_front]),
                (&middle, &[TYPES]),
                (&back, &[of_back]),
            ];
            let whole = parted(&parts).unwrap();
            assert_eq!(whole.apart, [2], "{of_front} {of_back}");
            // Nothing of it is the whole's.
            let of_front = merged(&parts[..2]).unwrap();
            let memory_limit = whole.component.memory_limit;
            let of_front = spec::Component {
                memory_limit,
                ..of_front
            };
            assert_eq!(whole.component, of_front);
        }
        // What it does not use may differ, and a third part may share with the first again.
        let again = spec::Component {
            name: "again".into(),
            ..front.clone()
        };
        let all = &[ENVIRONMENT, CONFIG][..];
        let parts: [(&spec::Component, &[&str]); 4] = [
            (&front, all),
            (&back, &[CONFIG]),
            (&again, all),
            (&back, &[OUTGOING]),
        ];
        let whole = parted(&parts).unwrap();
        assert_eq!(whole.apart, [1]);
        assert_eq!(whole.component.allowed_hosts, back.allowed_hosts);
        assert_eq!(whole.component.config, front.config);
    }

    #[test]
    fn what_stays_apart_imports_the_doors_by_itself() {
        let back = granted("back");
        let imports = [
            ENVIRONMENT,
            TYPES,
            OUTGOING,
            "wasi:filesystem/types@0.2.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:sockets/tcp-create-socket@0.2.0",
            "other:config/store@0.2.0",
            "wasi:config/anything@0.2.0",
            "wasi:cli/environment@0.2.6",
        ];
        let apart = own(3, &part(&back, &imports)).unwrap().unwrap();
        assert_eq!(&*apart.component, "back");
        let names = apart.imports.iter().map(|own| own.name().to_string());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "wasi-part3:cli/environment@0.2.0",
                "wasi-part3:http/outgoing-handler@0.2.3",
                "wasi-part3:sockets/tcp-create-socket@0.2.0",
                "wasi-part3:config/anything@0.2.0",
                "wasi-part3-n1:cli/environment@0.2.6",
            ]
        );
        // Who has no way to its grants takes no place among those who have.
        let without = part(&back, &["wasi:filesystem/types@0.2.0", TYPES]);
        assert!(own(1, &without).unwrap().is_none());
        let versions = [0, 1, 2, 3, 4].map(|patch| format!("wasi:cli/environment@0.2.{patch}"));
        let fault = own(1, &part(&back, &versions.each_ref().map(String::as_str))).unwrap_err();
        assert!(
            fault
                .message
                .contains("\"back\" imports wasi:cli/environment"),
            "{fault}"
        );
        // Whatever leads to a grant is a door, or of no use without one.
        for id in crate::plugin::wasi::offers() {
            let leads = GRANTS.iter().any(|grant| (grant.leads_to_it)(&id));
            let alone = ["types", "network", "instance-network", "tcp", "udp"];
            let door = own(1, &part(&back, &[&id.to_string()])).unwrap().is_some();
            assert!(
                !leads || door || alone.contains(&id.interface.as_str()),
                "{id}"
            );
        }
    }

    #[test]
    fn so_many_parts_stay_apart_and_no_more() {
        let root = granted("root");
        let others: Vec<spec::Component> = (0..=MAX_APART)
            .map(|n| granted(&format!("part-{n}")))
            .collect();
        let mut parts: Vec<(&spec::Component, &[&str])> = vec![(&root, &[ENVIRONMENT])];
        parts.extend(others.iter().map(|part| (part, &[ENVIRONMENT][..])));
        let fault = parted(&parts).unwrap_err();
        assert_eq!(
            (fault.stage, fault.reason),
            (Stage::Link, Reason::UnsupportedSpec)
        );
        for text in ["\"root\"", "17 others", "localResources"] {
            assert!(fault.message.contains(text), "{text}: {fault}");
        }
        assert!(!fault.message.contains("of root"), "no value: {fault}");
        parts.pop();
        assert_eq!(parted(&parts).unwrap().apart.len(), MAX_APART);
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
