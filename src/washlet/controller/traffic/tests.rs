use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::json;

use super::*;
use crate::washlet::controller::write::Action;

fn service(families: &[&str], ports: &[(&str, i32)]) -> Service {
    let mut service = Service::default();
    service.metadata.uid = Some("u1".to_owned());
    service.spec = Some(ServiceSpec {
        ip_families: Some(families.iter().map(|&f| f.to_owned()).collect()),
        ports: Some(
            ports
                .iter()
                .map(|&(name, port)| ServicePort {
                    name: (!name.is_empty()).then(|| name.to_owned()),
                    port,
                    ..ServicePort::default()
                })
                .collect(),
        ),
        ..ServiceSpec::default()
    });
    service
}

fn backend(host: &str, addresses: &[&str]) -> Backend {
    Backend {
        host: host.into(),
        zone: None,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ready: true,
        serving: true,
        terminating: false,
    }
}

fn applied(writes: &[Write]) -> Vec<&serde_json::Value> {
    let body = |write: &'_ Write| match &write.action {
        Action::Apply(body) => Some(body.clone()),
        _ => None,
    };
    assert!(writes.iter().all(|w| body(w).is_some()), "{writes:?}");
    writes
        .iter()
        .filter_map(|w| match &w.action {
            Action::Apply(body) => Some(body),
            _ => None,
        })
        .collect()
}

use super::super::write::Write;

#[test]
fn a_port_is_kept_and_never_shared() {
    let mut ports = Ports::default();
    let ids: Vec<Id> = (0..2000)
        .map(|n| Id::new("ns", &format!("svc-{n}")))
        .collect();
    let given: Vec<u16> = ids.iter().map(|id| ports.of(id).unwrap()).collect();
    let different: std::collections::HashSet<_> = given.iter().collect();
    assert_eq!(different.len(), 2000);
    assert!(given.iter().all(|port| Ports::RANGE.contains(port)));
    assert_eq!(ports.of(&ids[7]), Some(given[7]), "asked again");
    ports.release(&ids[7]);
    assert_eq!(ports.of(&ids[7]), Some(given[7]), "gone and back");
    ports.restore(&Id::new("ns", "thief"), given[0]);
    assert_eq!(ports.known(&Id::new("ns", "thief")), None);
    ports.restore(&Id::new("ns", "privileged"), 80);
    assert_eq!(ports.known(&Id::new("ns", "privileged")), None);
}

#[test]
fn no_port_is_left_when_all_are_taken() {
    let mut ports = Ports::default();
    for n in 0..Ports::RANGE.len() {
        assert!(ports.of(&Id::new("ns", &n.to_string())).is_some());
    }
    let one_more = Id::new("ns", "one-more");
    assert_eq!(ports.of(&one_more), None);
    let error = check(&one_more, Some(&service(&["IPv4"], &[("", 80)])), None).unwrap_err();
    assert_eq!(error.reason, "NoPortLeft");
}

#[test]
fn a_service_that_cannot_lead_anywhere_says_why() {
    let id = Id::new("ns", "web");
    let mut with_selector = service(&["IPv4"], &[("", 80)]);
    with_selector.spec.as_mut().unwrap().selector =
        Some([("app".to_owned(), "x".to_owned())].into());
    let mut external = service(&[], &[]);
    external.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned());
    for (service, reason) in [
        (None, "ServiceNotFound"),
        (Some(&with_selector), "ServiceHasSelector"),
        (Some(&external), "ServiceIsExternal"),
    ] {
        let error = check(&id, service, Some(20_000)).unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(error.message.contains("ns/web"), "{}", error.message);
    }
    assert_eq!(
        check(&id, Some(&service(&["IPv4"], &[("", 80)])), Some(20_001)),
        Ok(20_001)
    );
}

#[test]
fn every_port_of_the_service_leads_to_the_one_port_in_each_family() {
    let (id, service) = (
        Id::new("ns", "web"),
        service(&["IPv4", "IPv6"], &[("http", 80), ("metrics", 9000)]),
    );
    let backends = [
        backend("a", &["10.0.0.1", "fd00::1"]),
        backend("b", &["10.0.0.2"]),
    ];
    let published = Published {
        service: &service,
        port: 20_123,
        backends: &backends,
    };
    let writes = publish(&id, Some(&published), &[]);
    let [four, six] = applied(&writes)[..] else {
        panic!("one slice a family: {writes:?}");
    };
    assert_eq!(four["metadata"]["name"], "web-washlet-ipv4");
    assert_eq!(
        four["metadata"]["labels"]["kubernetes.io/service-name"],
        "web"
    );
    assert_eq!(
        four["ports"],
        json!([
            { "name": "http", "port": 20_123, "protocol": "TCP" },
            { "name": "metrics", "port": 20_123, "protocol": "TCP" },
        ])
    );
    assert_eq!(four["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(six["endpoints"].as_array().unwrap().len(), 1);
    assert_eq!(six["endpoints"][0]["addresses"], json!(["fd00::1"]));
    assert_eq!(six["endpoints"][0]["nodeName"], "a");
    assert_eq!(
        six["endpoints"][0]["conditions"],
        json!({ "ready": true, "serving": true, "terminating": false })
    );
}

#[test]
fn what_is_published_of_a_host_can_be_left_as_it_is() {
    let (id, service) = (Id::new("ns", "web"), service(&["IPv4"], &[("", 80)]));
    let backends = [backend("a", &["10.0.0.1"])];
    let published = Published {
        service: &service,
        port: 20_123,
        backends: &backends,
    };
    let writes = publish(&id, Some(&published), &[]);
    let there: k8s_openapi::api::discovery::v1::EndpointSlice =
        serde_json::from_value(applied(&writes)[0].clone()).unwrap();
    let mut lost = Backend {
        ready: false,
        serving: false,
        ..backend("a", &["10.0.0.1"])
    };
    leave(&mut lost, &[&there]);
    assert_eq!(lost, backends[0]);
    let mut unknown = backend("b", &["10.0.0.2"]);
    leave(&mut unknown, &[&there]);
    assert!(!unknown.ready && !unknown.serving);
}

#[test]
fn unready_addresses_are_published_where_the_service_asks_for_them() {
    let (id, mut service) = (Id::new("ns", "web"), service(&["IPv4"], &[("", 80)]));
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    let backends = [Backend {
        ready: false,
        serving: false,
        ..backend("a", &["10.0.0.1"])
    }];
    let published = Published {
        service: &service,
        port: 20_123,
        backends: &backends,
    };
    let writes = publish(&id, Some(&published), &[]);
    assert_eq!(
        applied(&writes)[0]["endpoints"][0]["conditions"],
        json!({ "ready": true, "serving": false, "terminating": false })
    );
}

#[test]
fn what_is_right_is_not_written_and_what_is_left_over_goes() {
    let (id, service) = (Id::new("ns", "web"), service(&["IPv4"], &[("", 80)]));
    let backends = [backend("a", &["10.0.0.1"])];
    let published = Published {
        service: &service,
        port: 20_123,
        backends: &backends,
    };
    let writes = publish(&id, Some(&published), &[]);
    let mut there: k8s_openapi::api::discovery::v1::EndpointSlice =
        serde_json::from_value(applied(&writes)[0].clone()).unwrap();
    there.metadata.uid = Some("u2".to_owned());
    assert!(publish(&id, Some(&published), &[&there]).is_empty());

    let changed = [Backend {
        ready: false,
        terminating: true,
        ..backend("a", &["10.0.0.1"])
    }];
    let published = Published {
        backends: &changed,
        ..published
    };
    assert_eq!(publish(&id, Some(&published), &[&there]).len(), 1);

    let writes = publish(&id, None, &[&there]);
    assert!(
        matches!(&writes[..], [Write { action: Action::Delete { uid }, .. }] if uid == "u2"),
        "{writes:?}"
    );
}
