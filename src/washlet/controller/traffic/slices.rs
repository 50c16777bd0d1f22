//! The EndpointSlices of one Service.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::Value;

use super::{
    super::{
        world::Id,
        write::{Action, Key, Kind, Write},
    },
    MANAGED_BY,
};

/// Most endpoints of a slice; the API server takes a thousand.
const PER_SLICE: usize = 500;

/// A host that has workloads of the Service, or had until a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Backend {
    pub host: Arc<str>,
    pub zone: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// It should get new connections.
    pub ready: bool,
    /// It answers.
    pub serving: bool,
    /// It is about to go.
    pub terminating: bool,
}

/// What is to be published for a Service.
pub(in super::super) struct Published<'a> {
    pub service: &'a Service,
    pub port: u16,
    pub backends: &'a [Backend],
}

/// Says of a host what is published of it already; of one that is not published, nothing.
pub(in super::super) fn leave(backend: &mut Backend, existing: &[&EndpointSlice]) {
    let mut endpoints = existing.iter().flat_map(|slice| &slice.endpoints);
    let of_host = |endpoint: &&Endpoint| endpoint.node_name.as_deref() == Some(&*backend.host);
    let is = endpoints.find(of_host).and_then(|e| e.conditions.clone());
    let is = is.unwrap_or_default();
    backend.ready = is.ready == Some(true);
    backend.serving = is.serving == Some(true);
    backend.terminating = is.terminating == Some(true);
}

/// The writes that make the slices of a Service what they should be; none for what is right already. Without anything to
/// publish, all that is there goes.
pub(in super::super) fn publish(
    id: &Id,
    published: Option<&Published<'_>>,
    existing: &[&EndpointSlice],
) -> Vec<Write> {
    let wanted: Vec<EndpointSlice> = published.map(|p| slices(id, p)).unwrap_or_default();
    let named = |name: Option<&str>| {
        existing
            .iter()
            .copied()
            .find(|s| s.metadata.name.as_deref() == name)
    };
    let mut writes: Vec<Write> = Vec::new();
    for slice in &wanted {
        let is = named(slice.metadata.name.as_deref());
        if !is.is_some_and(|is| same(is, slice)) {
            // These types always have a JSON form.
            let mut body = serde_json::to_value(slice).unwrap_or_default();
            set_type(&mut body);
            writes.push(write(slice, Action::Apply(body)));
        }
    }
    for left in existing {
        let wanted = wanted
            .iter()
            .any(|slice| slice.metadata.name == left.metadata.name);
        if let (false, Some(uid)) = (wanted, left.metadata.uid.clone()) {
            writes.push(write(left, Action::Delete { uid }));
        }
    }
    writes
}

fn write(slice: &EndpointSlice, action: Action) -> Write {
    Write {
        key: Key {
            kind: Kind::EndpointSlice,
            namespace: slice.metadata.namespace.clone().unwrap_or_default(),
            name: slice.metadata.name.clone().unwrap_or_default(),
        },
        action,
    }
}

fn set_type(body: &mut Value) {
    if let Some(fields) = body.as_object_mut() {
        fields.insert("apiVersion".to_owned(), "discovery.k8s.io/v1".into());
        fields.insert("kind".to_owned(), "EndpointSlice".into());
    }
}

fn slices(id: &Id, published: &Published<'_>) -> Vec<EndpointSlice> {
    let spec = published.service.spec.as_ref();
    let unready_too = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let families = spec
        .and_then(|s| s.ip_families.as_deref())
        .unwrap_or_default();
    let mut slices = Vec::new();
    for family in families {
        let endpoints: Vec<Endpoint> = published
            .backends
            .iter()
            .filter_map(|backend| endpoint(backend, family, unready_too))
            .collect();
        // A slice without endpoints says that there are none now, which is different from nobody having said anything.
        let chunks: Vec<&[Endpoint]> = if endpoints.is_empty() {
            vec![&[]]
        } else {
            endpoints.chunks(PER_SLICE).collect()
        };
        for (index, chunk) in chunks.into_iter().enumerate() {
            slices.push(EndpointSlice {
                metadata: metadata(id, published.service, &family.to_ascii_lowercase(), index),
                address_type: family.clone(),
                endpoints: chunk.to_vec(),
                ports: Some(ports(published)),
            });
        }
    }
    slices
}

fn metadata(id: &Id, service: &Service, family: &str, index: usize) -> ObjectMeta {
    let suffix = if index == 0 {
        String::new()
    } else {
        format!("-{index}")
    };
    let labels = [
        ("kubernetes.io/service-name", id.name.to_string()),
        (
            "endpointslice.kubernetes.io/managed-by",
            MANAGED_BY.to_owned(),
        ),
    ];
    ObjectMeta {
        name: Some(format!("{}-washlet-{family}{suffix}", id.name)),
        namespace: Some(id.namespace.to_string()),
        labels: Some(
            labels
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<BTreeMap<_, _>>(),
        ),
        // So that they go with the Service.
        owner_references: service.metadata.uid.clone().map(|uid| {
            vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: id.name.to_string(),
                uid,
                controller: Some(true),
                ..OwnerReference::default()
            }]
        }),
        ..ObjectMeta::default()
    }
}

fn endpoint(backend: &Backend, family: &str, unready_too: bool) -> Option<Endpoint> {
    let of_family = |ip: &&IpAddr| {
        matches!(
            (ip, family),
            (IpAddr::V4(_), "IPv4") | (IpAddr::V6(_), "IPv6")
        )
    };
    let address = backend.addresses.iter().find(of_family)?;
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready || unready_too),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        node_name: Some(backend.host.to_string()),
        zone: backend.zone.clone(),
        ..Endpoint::default()
    })
}

/// Every port of the Service leads to the one port of its workloads, by the name that it has in the Service.
fn ports(published: &Published<'_>) -> Vec<EndpointPort> {
    let spec = published.service.spec.as_ref();
    let of_service = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|p| p == "TCP");
    of_service
        .iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .map(|port| EndpointPort {
            // Kubernetes names the only port of a Service by the empty text.
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(i32::from(published.port)),
            protocol: Some("TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn same(is: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let has = |of: &ObjectMeta, key: &str| of.labels.as_ref().and_then(|l| l.get(key).cloned());
    let labels = wanted.metadata.labels.iter().flatten();
    is.address_type == wanted.address_type
        && is.endpoints == wanted.endpoints
        && is.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
        && labels
            .into_iter()
            .all(|(key, value)| has(&is.metadata, key).as_ref() == Some(value))
        && is
            .metadata
            .owner_references
            .iter()
            .flatten()
            .map(|o| &o.uid)
            .eq(wanted
                .metadata
                .owner_references
                .iter()
                .flatten()
                .map(|o| &o.uid))
}
