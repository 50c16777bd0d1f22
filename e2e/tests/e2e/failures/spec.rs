//! Specs that the schema cannot refuse and that are wrong all the same, and fields that nothing observes yet.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::with_namespace;

use super::{Failure, add, heals, manifest};
use crate::stage::Stage;

/// An edit of a good spec; condition, reason and words of the failure.
type Case = (
    &'static str,
    fn(&mut Value),
    [&'static str; 2],
    &'static [&'static str],
);

const APP: &str = "component \"app\"";

const WRONG: &[Case] = &[
    (
        "image",
        |spec| spec["components"][0]["image"] = json!("localhost:5001/Upper Case:v1"),
        ["Accepted", "InvalidImageName"],
        &[APP, "spec.components[0].image", "Upper Case"],
    ),
    (
        "file",
        |spec| spec["components"][0]["image"] = json!("file:./hello.wasm"),
        ["Accepted", "InvalidImageName"],
        &[
            APP,
            "spec.components[0].image",
            "only `washlet run` reads",
            "push it to a registry",
        ],
    ),
    (
        "allowed-host",
        |spec| {
            let hosts = json!(["api.example.com", "https://api.example.com/v1"]);
            spec["components"][0]["localResources"] = json!({"allowedHosts": hosts});
        },
        ["Accepted", "InvalidSpec"],
        &[
            APP,
            "spec.components[0].localResources.allowedHosts[1]",
            "https://api.example.com/v1",
            "path",
        ],
    ),
    (
        "memory",
        |spec| spec["components"][0]["resources"] = json!({"limits": {"memory": "0Mi"}}),
        ["Accepted", "InvalidSpec"],
        &[
            APP,
            "spec.components[0].resources.limits.memory",
            "write a size above zero",
        ],
    ),
    (
        "too-much-memory",
        |spec| spec["components"][0]["resources"] = json!({"limits": {"memory": "99999999Pi"}}),
        ["Accepted", "InvalidSpec"],
        &[
            APP,
            "spec.components[0].resources.limits.memory",
            "more than there can be",
        ],
    ),
    (
        "variable",
        |spec| {
            let config = json!({"config": {"A=B": "c"}});
            spec["components"][0]["localResources"] = json!({"environment": config});
        },
        ["Accepted", "InvalidSpec"],
        &[
            APP,
            "spec.components[0].localResources.environment.config",
            "A=B",
            "not a variable",
        ],
    ),
    (
        "version",
        |spec| spec["hostInterfaces"][0]["version"] = json!("two"),
        ["Accepted", "InvalidSpec"],
        &["spec.hostInterfaces[0].version", "`two`", "0.2.0"],
    ),
    (
        "package",
        |spec| spec["hostInterfaces"][0]["package"] = json!("ht/tp"),
        ["Accepted", "InvalidSpec"],
        &[
            "spec.hostInterfaces[0].package",
            "`ht/tp`",
            "not a WIT name",
        ],
    ),
    (
        "unknown-package",
        |spec| {
            let entry = json!({"namespace": "acme", "package": "widgets", "interfaces": ["api"]});
            add(&mut spec["hostInterfaces"], entry);
        },
        ["Linked", "ImportNotSatisfied"],
        &["spec.hostInterfaces[1]", "acme:widgets", "remove the entry"],
    ),
    (
        "unknown-version",
        |spec| spec["hostInterfaces"][0]["version"] = json!("7.0.0"),
        ["Linked", "ImportNotSatisfied"],
        &[
            "spec.hostInterfaces[0]",
            "wasi:http/incoming-handler@7.0.0",
            "wasi:http/incoming-handler@0.2",
        ],
    ),
    (
        "option-of-the-base",
        |spec| {
            let entry = json!({"namespace": "wasi", "package": "clocks",
                "interfaces": ["wall-clock"], "config": {"zone": "UTC"}});
            add(&mut spec["hostInterfaces"], entry);
        },
        ["Linked", "BindFailed"],
        &["spec.hostInterfaces[1]", "wasi:clocks", "no options"],
    ),
    (
        "option-of-logging",
        |spec| {
            let entry = json!({"namespace": "wasi", "package": "logging",
                "interfaces": ["logging"], "config": {"level": "info"}});
            add(&mut spec["hostInterfaces"], entry);
        },
        ["Linked", "BindFailed"],
        &["wasi:logging", "`level`", "remove `config`"],
    ),
    (
        "option",
        |spec| spec["hostInterfaces"][0]["config"] = json!({"hots": "a.test"}),
        ["Linked", "BindFailed"],
        &["wasi:http", "`hots`", "`host` and `path`"],
    ),
    (
        "host",
        |spec| spec["hostInterfaces"][0]["config"] = json!({"host": "a.test:8080"}),
        ["Linked", "BindFailed"],
        &["`host` of wasi:http", "a.test:8080", "leave the port out"],
    ),
    (
        "path",
        |spec| spec["hostInterfaces"][0]["config"]["path"] = json!("api"),
        ["Linked", "BindFailed"],
        &["`path` of wasi:http", "`api`", "begin with `/`"],
    ),
    (
        "no-components",
        |spec| spec["components"] = json!([]),
        ["Linked", "BindFailed"],
        &["asks for a route", "no component"],
    ),
    (
        "two-handlers",
        |spec| {
            let mut other = spec["components"][0].clone();
            other["name"] = json!("other");
            add(&mut spec["components"], other);
        },
        ["Linked", "BindFailed"],
        &["\"app\"", "\"other\"", "workloads of their own"],
    ),
    (
        "all-at-once",
        |spec| {
            spec["components"][0]["image"] = json!("./hello.wasm");
            spec["components"][0]["localResources"] = json!({"allowedHosts": ["a b"]});
            spec["hostInterfaces"][0]["version"] = json!("two");
        },
        ["Accepted", "InvalidImageName"],
        &[
            "spec.components[0].image",
            "spec.components[0].localResources.allowedHosts[0]",
            "spec.hostInterfaces[0].version",
        ],
    ),
];

#[tokio::test]
async fn what_the_schema_cannot_refuse_names_field_and_fix() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        for (name, edit, ..) in WRONG {
            ns.apply(manifest(&stage.agent, name, &image, edit)?)
                .await?;
        }
        for (name, _, [condition, reason], says) in WRONG {
            let failure = Failure {
                condition,
                reason,
                says,
            };
            failure.shown(ns, name).await?;
        }
        for (name, ..) in WRONG {
            ns.apply_yaml(&stage.workload(name, &image)).await?;
        }
        for (name, ..) in WRONG {
            heals(&stage.agent, ns, name).await?;
        }
        Ok(())
    })
    .await
}

/// Fields that nothing observes yet, with a value for each. This list shrinks as `UNOBSERVED` does.
fn unobserved() -> Vec<(&'static str, Value)> {
    let probe = || json!({"httpGet": {"path": "/", "port": 80}});
    vec![
        ("components[0].livenessProbe", probe()),
        ("components[0].readinessProbe", probe()),
        ("components[0].startupProbe", probe()),
        ("service.livenessProbe", probe()),
        ("service.readinessProbe", probe()),
        ("service.startupProbe", probe()),
        ("hostInterfaces[0].name", json!("front")),
    ]
}

#[tokio::test]
async fn a_field_that_nothing_observes_is_refused_by_name() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let fields = unobserved();
        let name = |index: usize| format!("field-{index}");
        for (index, (field, value)) in fields.iter().enumerate() {
            let set = |spec: &mut Value| {
                if field.starts_with("service.") {
                    spec["service"] = json!({"image": image});
                }
                set(spec, field, value);
            };
            ns.apply(manifest(&stage.agent, &name(index), &image, set)?)
                .await?;
        }
        for (index, (field, _)) in fields.iter().enumerate() {
            let failure = Failure {
                condition: "Accepted",
                reason: "UnsupportedSpec",
                says: &[
                    &format!("spec.{field}"),
                    "this version does not have; remove the field",
                ],
            };
            let message = failure.shown(ns, &name(index)).await?;
            ensure!(
                !field.starts_with("components") || message.contains(APP),
                "no component in: {message}"
            );
        }
        for index in 0..fields.len() {
            ns.apply_yaml(&stage.workload(&name(index), &image)).await?;
        }
        for index in 0..fields.len() {
            heals(&stage.agent, ns, &name(index)).await?;
        }
        Ok(())
    })
    .await
}

/// Sets `a.b[0].c`.
fn set(spec: &mut Value, path: &str, value: &Value) {
    let mut at = spec;
    for step in path.replace("[0]", ".0").split('.') {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[step],
        };
    }
    *at = value.clone();
}
