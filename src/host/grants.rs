//! What components that are linked into one are granted.
//!
//! Linked into one, they share each import from the host, and the host cannot tell which of them calls. So a grant of one
//! becomes the whole's only where no other part could use it for more than its own: either one part alone imports what leads
//! to it, or all that do are granted the same. A part of which that is not true stays apart: it imports what leads to its
//! grants under names of its own. Two grants never become one.

#[cfg(test)]
mod tests;

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
