use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::fault::{Class, Reason, Stage};

/// A Workload's spec, what is in its namespace, and all that is wrong with it.
#[derive(Deserialize)]
struct Case {
    name: String,
    spec: Value,
    #[serde(default)]
    objects: Vec<Value>,
    problems: Vec<String>,
}

fn workload(spec: Value) -> api::Workload {
    let metadata = json!({ "name": "hello", "namespace": "shop", "uid": "uid-1", "generation": 3 });
    let mut object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": metadata, "spec": spec,
    });
    api::admit(&mut object);
    serde_json::from_value(object).unwrap()
}

/// Reads the objects of a namespace. `forbidden` in place of data makes one that the agent may not read.
fn resolved(objects: &[Value]) -> Resolved {
    let mut resolved = Resolved::default();
    for object in objects {
        let (kind, found): (_, fn(Value) -> Referenced) = match object["kind"].as_str().unwrap() {
            "Secret" => (ReferenceKind::Secret, |o| {
                serde_json::from_value::<k8s::Secret>(o).unwrap().into()
            }),
            "ConfigMap" => (ReferenceKind::ConfigMap, |o| {
                serde_json::from_value::<k8s::ConfigMap>(o).unwrap().into()
            }),
            _ => (ReferenceKind::ServiceAccount, |o| {
                serde_json::from_value::<k8s::ServiceAccount>(o)
                    .unwrap()
                    .into()
            }),
        };
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let outcome = match object.get("forbidden") {
            Some(text) => Outcome::Forbidden(text.as_str().unwrap().to_owned()),
            None => Outcome::Found(found(object.clone())),
        };
        resolved.outcomes.insert(
            ReferenceKey {
                kind,
                namespace: "shop".to_owned(),
                name,
            },
            outcome,
        );
    }
    resolved
}

mod k8s {
    pub use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
}

fn testdata(file: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/washlet/testdata")
            .join(file),
    )
    .unwrap()
}

#[test]
fn problems_name_field_and_remedy() {
    let cases: Vec<Case> = serde_saphyr::from_str(&testdata("convert-problems.yaml")).unwrap();
    assert!(cases.len() > 20);
    let mut differ = Vec::new();
    for case in cases {
        let error = convert(&workload(case.spec), &resolved(&case.objects)).expect_err(&case.name);
        let problems: Vec<String> = error
            .problems()
            .iter()
            .map(|p| format!("{} {p}", p.reason))
            .collect();
        let same = problems.len() == case.problems.len()
            && problems
                .iter()
                .zip(&case.problems)
                .all(|(p, e)| is_like(p, e));
        if !same {
            differ.push(json!({ "name": case.name, "problems": problems }));
        }
    }
    assert!(
        differ.is_empty(),
        "not as convert-problems.yaml says:\n{}",
        serde_saphyr::to_string(&differ).unwrap()
    );
}

/// Whether a text is an expected one, in which `…` stands for anything.
fn is_like(text: &str, expected: &str) -> bool {
    match expected.split_once('…') {
        Some((start, end)) => text.starts_with(start) && text.ends_with(end),
        None => text == expected,
    }
}

/// `UPDATE=1 cargo test` rewrites the expectation.
#[test]
fn a_whole_manifest() {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&testdata("convert.yaml")).unwrap();
    let workload: api::Workload = serde_json::from_value(documents.remove(0)).unwrap();
    let resolved = resolved(&documents);
    let named: BTreeSet<String> = references(&workload, &resolved)
        .iter()
        .map(ToString::to_string)
        .collect();
    let desired = convert(&workload, &resolved).unwrap();
    assert!(
        !format!("{desired:?} {resolved:?}").contains("s3cret"),
        "a secret is shown"
    );
    let text =
        serde_saphyr::to_string(&json!({ "references": named, "desired": summary(&desired) }))
            .unwrap();
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/washlet/testdata/convert.expected.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text);
}

/// A desired state in words.
fn summary(workload: &spec::Workload) -> Value {
    let component = |c: &spec::Component| {
        let spec::Source::Image(image) = &c.source else {
            panic!("not an image: {:?}", c.source)
        };
        json!({
            "name": *c.name,
            "image": image.reference.to_string(),
            "policy": format!("{:?}", image.policy),
            "credentials": image.credentials.iter().map(|c| (&c.origin, &c.scope)).collect::<Vec<_>>(),
            "unusable": image.unusable_secrets.iter().map(|u| u.split_once(':').unwrap().0).collect::<Vec<_>>(),
            "config": c.config,
            "environment": c.environment,
            "allowed_hosts": c.allowed_hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "allowed_names": c.allowed_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "loopback_ports": c.loopback_ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "memory_limit": c.memory_limit,
            "reuse": c.reuse.map(|r| format!("{r:?}")),
            "max_instances": c.max_instances,
            "fuel": c.fuel,
            "request_timeout": c.request_timeout,
            "mounts": c.mounts.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>(),
        })
    };
    let interface = |i: &spec::Interface| {
        json!({
            "package": format!("{}:{}", i.namespace, i.package),
            "interfaces": i.interfaces,
            "version": i.version.as_ref().map(ToString::to_string),
            "config": i.config,
        })
    };
    json!({
        "id": *workload.id,
        "name": format!("{}/{}", workload.namespace, workload.name),
        "generation": workload.generation,
        "created": workload.created,
        "owner": *workload.owner,
        "components": workload.components.iter().map(component).collect::<Vec<_>>(),
        "interfaces": workload.interfaces.iter().map(interface).collect::<Vec<_>>(),
        "volumes": workload.volumes.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>(),
        "memory_limit": workload.memory_limit,
        "grace": workload.grace,
    })
}

#[test]
fn a_service_account_names_more_references() {
    let workload = workload(json!({ "serviceAccountName": "puller" }));
    let texts = |resolved: &Resolved| {
        references(&workload, resolved)
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        texts(&Resolved::default()),
        ["ServiceAccount shop/puller".to_owned()].into()
    );
    let account = json!({
        "kind": "ServiceAccount", "metadata": { "name": "puller" }, "imagePullSecrets": [{ "name": "a" }, { "name": "" }],
    });
    let expected = [
        "Secret shop/a".to_owned(),
        "ServiceAccount shop/puller".to_owned(),
    ];
    assert_eq!(texts(&resolved(&[account])), expected.into());
}

/// Sets each unobserved field alone, and finds it refused by name; its empty value is accepted.
#[test]
fn unobserved_fields_are_refused() {
    for unobserved in UNOBSERVED {
        let field = unobserved.field;
        for (value, refused) in [(sample(field), true), (empty(field), false)] {
            let spec = with_field(field, value);
            let error = convert(&workload(spec.clone()), &Resolved::default()).err();
            let path = format!("spec.{}", field.replace("[]", "[0]"));
            let named = error.iter().flat_map(|e| e.problems()).any(|p| {
                p.reason == Reason::UnsupportedSpec
                    && p.field == path
                    && p.message.contains(unobserved.feature)
            });
            assert_eq!(named, refused, "{spec}: {error:?}");
        }
    }
}

/// A value of a field that asks for something.
fn sample(field: &str) -> Value {
    match field.rsplit('.').next().unwrap() {
        "service" => json!({ "name": "x" }),
        "volumes" => json!([{ "name": "x" }]),
        "volumeMounts" => json!([{ "name": "x", "mountPath": "/x" }]),
        "resources" => json!({ "limits": { "memory": "1Mi" } }),
        "name" => json!("main"),
        probe if probe.ends_with("Probe") => json!({ "httpGet": { "path": "/" } }),
        _ => json!(1),
    }
}

/// A value that is the same as none.
fn empty(field: &str) -> Value {
    match field.rsplit('.').next().unwrap() {
        "volumes" | "volumeMounts" => json!([]),
        "resources" => json!({ "limits": {} }),
        "name" => json!(""),
        probe if probe.ends_with("Probe") => Value::Null,
        list if list.starts_with("allowed") => json!([]),
        _ => json!(0),
    }
}

/// A spec that is complete but for one field.
fn with_field(field: &str, value: Value) -> Value {
    let mut spec = json!({
        "components": [{ "name": "a", "image": "x" }],
        "hostInterfaces": [{ "namespace": "wasi", "package": "http", "interfaces": ["handler"] }],
    });
    let pointer = format!("/{}", field.replace("[]", "/0").replace('.', "/"));
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut at = &mut spec;
    for step in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[0],
            other => &mut other[step],
        };
    }
    at[name] = value;
    if let Some(service) = spec.get_mut("service") {
        service["image"] = json!("x");
    }
    spec
}

#[test]
fn files_are_for_run_only() {
    let workload = workload(json!({ "components": [{ "name": "a", "image": "file:./a.wasm" }] }));
    let error = convert(&workload, &Resolved::default())
        .unwrap_err()
        .fault();
    assert_eq!(error.reason, Reason::InvalidImageName);
    assert!(
        error.message.contains("only `washlet run` reads"),
        "{error}"
    );
    let resolved = Resolved {
        base_dir: Some("/srv".into()),
        ..Resolved::default()
    };
    let desired = convert(&workload, &resolved).unwrap();
    assert_eq!(
        desired.components[0].source,
        spec::Source::File("/srv/./a.wasm".into())
    );
}

#[test]
fn memory_may_be_a_number() {
    let limits = json!({ "limits": { "memory": 65536 } });
    let workload =
        workload(json!({ "components": [{ "name": "a", "image": "x", "resources": limits }] }));
    let desired = convert(&workload, &Resolved::default()).unwrap();
    assert_eq!(desired.components[0].memory_limit, Some(65536));
}

#[test]
fn versions_may_leave_out_their_end() {
    for (text, expected) in [
        ("0.2.0", Some("0.2.0")),
        ("0.2", Some("0.2.0")),
        ("v1", Some("1.0.0")),
        ("0.2.0-draft", Some("0.2.0-draft")),
        ("0.2-draft.2", Some("0.2.0-draft.2")),
        ("latest", None),
        ("1.2.3.4", None),
    ] {
        assert_eq!(
            interface::version(text),
            expected.map(|v| v.parse().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn the_earliest_stage_is_the_fault() {
    let both = json!({
        "components": [{ "name": "a", "image": "UPPER/case:" }, { "name": "", "image": "x" }],
        "hostInterfaces": [{
            "namespace": "wasi", "package": "http", "interfaces": ["handler"], "configFrom": [{ "name": "gone" }],
        }],
    });
    let error = convert(&workload(both), &Resolved::default()).unwrap_err();
    assert_eq!(error.problems().len(), 3);
    let fault = error.fault();
    assert_eq!((fault.stage, fault.class), (Stage::Accept, Class::Terminal));
    assert!(
        fault.message.contains("spec.components[0].image")
            && fault.message.contains("spec.components[1].name")
    );
    assert!(!fault.message.contains("gone"));
    assert_eq!(fault.component, None);
}

#[test]
fn what_the_controller_and_people_ask_is_no_part_of_the_spec() {
    let spec = json!({
        "components": [{ "name": "app", "image": "r.io/app@sha256:0000000000000000000000000000000000000000000000000000000000000000" }],
        "kubernetes": { "service": { "name": "hello" } },
    });
    let convert = |object: &api::Workload| convert(object, &Resolved::default()).unwrap();
    let mut object = workload(spec);
    let first = convert(&object);
    assert_eq!(
        (first.service_port, &first.routes_withheld, first.stamp),
        (None, &None, 0)
    );

    let status = json!({ "servicePort": 20007, "conditions": [
        { "type": "Routed", "status": "False", "reason": "RouteConflict", "message": "a/b has it" },
    ]});
    let before = Asked::of(&object);
    object.status = serde_json::from_value(status).unwrap();
    assert_ne!(Asked::of(&object), before);
    let second = convert(&object);
    assert_eq!(second.service_port, Some(20007));
    assert_eq!(second.routes_withheld.as_deref(), Some("a/b has it"));
    // It goes on running meanwhile.
    assert!(first.starts_like(&second) && first.runs_like(&second));

    let mut restarted = |at: &str| {
        let annotation = (
            "kubectl.kubernetes.io/restartedAt".to_owned(),
            at.to_owned(),
        );
        object.metadata.annotations = Some([annotation].into());
        convert(&object)
    };
    let (once, twice) = (
        restarted("2026-01-01T00:00:00Z"),
        restarted("2026-01-02T00:00:00Z"),
    );
    assert!(!once.runs_like(&second) && !twice.runs_like(&once));

    // Ports of others are not opened, whoever wrote them.
    for (port, opened) in [
        (0, None),
        (-1, None),
        (6443, None),
        (19_999, None),
        (20_000, Some(20_000)),
        (29_999, Some(29_999)),
        (30_000, None),
        (20_000 + 65_536, None),
    ] {
        object.status.as_mut().unwrap().service_port = Some(port);
        assert_eq!(convert(&object).service_port, opened, "{port}");
    }

    // Without a Service the port is nobody's.
    object.spec.kubernetes = None;
    assert_eq!(convert(&object).service_port, None);
}

#[test]
fn a_service_is_one_more_component() {
    let spec = json!({
        "components": [{ "name": "service", "image": "a:v1" }],
        "service": { "image": "b:v1" },
        "restartPolicy": "OnFailure",
    });
    let desired = convert(&workload(spec), &Resolved::default()).unwrap();
    let named: Vec<_> = desired
        .components
        .iter()
        .map(|c| (&*c.name, c.role))
        .collect();
    let service = spec::Role::Service { max_restarts: None };
    assert_eq!(
        named,
        [("service", spec::Role::Component), ("service-", service)]
    );
    let policy = desired.commands.restart_policy;
    assert_eq!(policy, Some(spec::RestartPolicy::OnFailure));
}

#[test]
fn what_the_status_says_of_an_end_is_known_again() {
    let spec = json!({ "components": [{ "name": "app", "image": "a:v1" }] });
    let finished = |generation: i64, restarted: Option<&str>, terminated: Value| {
        let mut object = workload(spec.clone());
        let status = json!({
            "observedGeneration": generation,
            "components": [{ "name": "app", "state": { "terminated": terminated } }],
        });
        object.status = serde_json::from_value(status).unwrap();
        let annotations = restarted.map(|at| {
            let key = "kubectl.kubernetes.io/restartedAt".to_owned();
            [(key, at.to_owned())].into()
        });
        object.metadata.annotations = annotations;
        let desired = convert(&object, &Resolved::default()).unwrap();
        desired.commands.finished.into_iter().next()
    };
    let terminated = |reason: &str, exit_code: i32| json!({ "reason": reason, "exitCode": exit_code, "finishedAt": "2026-01-01T00:00:20Z" });
    let restarted = |at: &str| {
        let mut terminated = terminated("Completed", 0);
        terminated["restartedAt"] = at.into();
        terminated
    };
    let done = || terminated("Completed", 0);
    let found = finished(3, None, done()).unwrap();
    assert_eq!(&*found.component, "app");
    assert_eq!(found.ended.exit, spec::Exit::Completed);
    let failed = finished(3, None, terminated("Error", 7)).unwrap();
    assert_eq!(failed.ended.exit, spec::Exit::Error(7));
    // Whatever it says, and however soon it ended.
    for at in ["2026-01-01T00:00:20Z", "2099-01-01T00:00:00Z", "now"] {
        assert!(finished(3, Some(at), restarted(at)).is_some(), "{at}");
    }
    let not = [
        finished(2, None, done()),
        finished(3, None, terminated("Stopped", 0)),
        finished(3, None, json!({ "reason": "Completed", "exitCode": 0 })),
        finished(3, Some("2026-01-01T00:00:10Z"), done()),
        finished(3, Some("now"), restarted("then")),
        finished(3, None, restarted("now")),
    ];
    assert_eq!(not, [None, None, None, None, None, None]);
}
