//! Clusters that own what a snapshot borrows.

use super::*;

/// What a snapshot borrows from.
#[derive(Debug, Default)]
pub struct World {
    pub hosts: Vec<OwnedHost>,
    pub workloads: Vec<OwnedWorkload>,
}

#[derive(Debug, Clone)]
pub struct OwnedHost {
    pub id: String,
    pub node_labels: Labels,
    pub own_labels: Labels,
    pub environment: Option<String>,
    pub condition: Condition<'static>,
    pub interfaces: Arc<[InterfaceId]>,
    pub memory: Option<u64>,
    pub images: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct OwnedWorkload {
    pub uid: String,
    pub created: i64,
    pub assigned: Option<String>,
    pub pinned: bool,
    pub selector: Labels,
    pub environment: Option<String>,
    pub needs: Vec<(&'static str, &'static str, Vec<String>, Option<Version>)>,
    pub memory: u64,
    pub owner: Option<String>,
    pub app: Option<String>,
    pub digests: Vec<String>,
}

impl World {
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            hosts: self.hosts.iter().map(OwnedHost::lend).collect(),
            workloads: self.workloads.iter().map(OwnedWorkload::lend).collect(),
        }
    }

    /// The hosts of the decisions, and texts of those that have none, by the workloads' UIDs.
    pub fn run(&self, moves: usize) -> BTreeMap<String, String> {
        let plan = schedule(&self.snapshot(), moves);
        let told = plan.decisions.iter().map(|decision| {
            let place = match &decision.verdict {
                Verdict::Host(host) => self.hosts[*host].id.clone(),
                Verdict::Nowhere(why) => why.to_string(),
            };
            (self.workloads[decision.workload].uid.clone(), place)
        });
        told.collect()
    }

    /// What becomes of the only workload that needs a place.
    pub fn place(&self) -> String {
        let told = self.run(usize::MAX);
        assert_eq!(told.len(), 1, "{told:?}");
        told.into_values().next().unwrap()
    }
}

impl OwnedHost {
    fn lend(&self) -> Host<'_> {
        Host {
            id: &self.id,
            node_labels: Some(&self.node_labels),
            own_labels: Some(&self.own_labels),
            environment: self.environment.as_deref(),
            condition: self.condition,
            interfaces: self.interfaces.clone(),
            memory: self.memory,
            images: &self.images,
        }
    }
}

impl OwnedWorkload {
    fn lend(&self) -> Workload<'_> {
        let app = self.app.as_deref().map(|app| Group::App {
            namespace: "ns",
            app,
        });
        let needs = self
            .needs
            .iter()
            .map(|(namespace, package, interfaces, version)| Need {
                namespace,
                package,
                interfaces,
                version: version.clone(),
            });
        Workload {
            uid: &self.uid,
            created: self.created,
            assigned: self.assigned.as_deref(),
            pinned: self.pinned,
            selector: &self.selector,
            environment: self.environment.as_deref(),
            needs: needs.collect(),
            memory: self.memory,
            group: self.owner.as_deref().map(Group::Owner).or(app),
            digests: self.digests.iter().map(String::as_str).collect(),
        }
    }
}

pub const GIB: u64 = 1 << 30;

pub fn host(id: &str) -> OwnedHost {
    let interfaces = [
        "wasi:http/types@0.2.12",
        "wasi:http/incoming-handler@0.2.12",
        "wasi:config/store@0.2.0-rc.1",
    ];
    OwnedHost {
        id: id.to_owned(),
        node_labels: labels(&[("kubernetes.io/hostname", id)]),
        own_labels: Labels::new(),
        environment: None,
        condition: Condition::Ready,
        interfaces: interfaces.iter().map(|i| i.parse().unwrap()).collect(),
        memory: Some(GIB),
        images: Vec::new(),
    }
}

pub fn workload(uid: &str) -> OwnedWorkload {
    OwnedWorkload {
        uid: uid.to_owned(),
        ..OwnedWorkload::default()
    }
}

pub fn on(host: &str, workload: OwnedWorkload) -> OwnedWorkload {
    OwnedWorkload {
        assigned: Some(host.to_owned()),
        ..workload
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    pairs.iter().map(owned).collect()
}

pub fn need(
    package: &'static str,
    interfaces: &[&str],
    version: Option<&str>,
) -> (&'static str, &'static str, Vec<String>, Option<Version>) {
    let interfaces = interfaces.iter().map(|i| (*i).to_owned()).collect();
    let version = version.map(|v| Version::parse(v).unwrap());
    ("wasi", package, interfaces, version)
}
