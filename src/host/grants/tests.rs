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
    let whole = merged(&[(&front, &[TYPES, ENVIRONMENT]), (&back, &[TYPES, OUTGOING])]).unwrap();
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
