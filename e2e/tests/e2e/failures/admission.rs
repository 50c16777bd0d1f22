//! What the API server refuses by itself, in words that help, and what it explains when asked.

use anyhow::{Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, with_namespace};

use super::add;
use crate::stage::START;

/// What is refused, by an edit of a good spec, and words of the refusal.
type Case = (&'static str, fn(&mut Value), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "two components of one name",
        |spec| {
            let again = spec["components"][0].clone();
            add(&mut spec["components"], again);
        },
        &["spec.components[1]", "Duplicate value"],
    ),
    (
        "a component without an image",
        |spec| spec["components"][0] = json!({"name": "app"}),
        &["spec.components[0].image", "Required value"],
    ),
    (
        "a component with an empty image",
        |spec| spec["components"][0]["image"] = json!(""),
        &["spec.components[0].image", "at least 1 chars long"],
    ),
    (
        "a component without a name",
        |spec| spec["components"][0]["name"] = json!(""),
        &["spec.components[0].name", "at least 1 chars long"],
    ),
    (
        "a pull policy that is none",
        |spec| spec["components"][0]["imagePullPolicy"] = json!("Sometimes"),
        &["imagePullPolicy", "Unsupported value", "\"IfNotPresent\""],
    ),
    (
        "memory that is no quantity",
        |spec| spec["components"][0]["resources"] = json!({"limits": {"memory": "lots"}}),
        &["spec.components[0].resources.limits.memory", "should match"],
    ),
    (
        "no time for a request",
        |spec| spec["components"][0]["requestTimeoutSeconds"] = json!(0),
        &["requestTimeoutSeconds", "greater than or equal to 1"],
    ),
    (
        "a negative grace",
        |spec| spec["terminationGracePeriodSeconds"] = json!(-1),
        &[
            "terminationGracePeriodSeconds",
            "greater than or equal to 0",
        ],
    ),
    (
        "two entries of a package without a name",
        |spec| {
            let mut again = spec["hostInterfaces"][0].clone();
            again["version"] = json!("0.2.0");
            add(&mut spec["hostInterfaces"], again);
        },
        &[
            "spec.hostInterfaces",
            "only one entry of a namespace:package may have no name",
        ],
    ),
    (
        "two entries that are the same",
        |spec| {
            spec["hostInterfaces"][0]["name"] = json!("one");
            let again = spec["hostInterfaces"][0].clone();
            add(&mut spec["hostInterfaces"], again);
        },
        &[
            "spec.hostInterfaces",
            "same namespace, package, name and version; merge them",
        ],
    ),
    (
        "an entry without interfaces",
        |spec| spec["hostInterfaces"][0]["interfaces"] = json!([]),
        &["spec.hostInterfaces[0].interfaces", "at least 1 items"],
    ),
    (
        "a mount of a volume that is not there",
        |spec| {
            let mounts = json!([{"name": "data", "mountPath": "/data"}]);
            spec["components"][0]["localResources"] = json!({"volumeMounts": mounts});
        },
        &["every volumeMount of a component must name an entry of spec.volumes"],
    ),
    (
        "two volumes of one name",
        |spec| spec["volumes"] = json!([{"name": "data"}, {"name": "data"}]),
        &["spec.volumes[1]", "Duplicate value"],
    ),
    (
        "a loopback port that is none",
        |spec| {
            let ports = json!(["http"]);
            spec["components"][0]["localResources"] = json!({"allowedHostLoopbackPorts": ports});
        },
        &["allowedHostLoopbackPorts[0]", "should match"],
    ),
    (
        "configuration that is no text",
        |spec| spec["hostInterfaces"][0]["config"] = json!({"host": 7}),
        &[
            "spec.hostInterfaces[0].config.host",
            "must be of type string",
        ],
    ),
];

#[tokio::test]
async fn the_api_server_refuses_what_the_schema_can_say() -> Result<()> {
    with_namespace(async |ns| {
        refusal(ns, |_| ()).await?.map_or(Ok(()), |words| {
            Err(anyhow::anyhow!("a good one is refused: {words}"))
        })?;
        for (what, edit, wanted) in CASES {
            let Some(words) = refusal(ns, edit).await? else {
                anyhow::bail!("{what}: accepted");
            };
            for part in *wanted {
                ensure!(words.contains(part), "{what}: `{part}` is not in: {words}");
            }
        }
        Ok(())
    })
    .await
}

/// What the API server says against a spec; nothing is stored.
async fn refusal(namespace: &TestNamespace, edit: impl Fn(&mut Value)) -> Result<Option<String>> {
    let text = crate::stage::workload("node", "hello", "localhost:5001/hello:v1");
    let mut object: Value = serde_saphyr::from_str(&text)?;
    edit(&mut object["spec"]);
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object = serde_json::from_value(object)?;
    match namespace.api("Workload")?.create(&trial, &object).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Ok(Some(status.message))
        }
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn kubectl_explains_every_step_of_a_manifest() -> Result<()> {
    with_namespace(async |ns| {
        let cases: [(&str, &[&str]); 8] = [
            ("ww", &["KIND:", "Workload", "kubectl get ww"]),
            ("ww.spec.components", &["image <string> -required-"]),
            (
                "ww.spec.components.image",
                &["REPOSITORY[:TAG]", "`:latest`", "ghcr.io/"],
            ),
            (
                "ww.spec.components.imagePullSecret",
                &["Secret of this namespace", "registry"],
            ),
            (
                "ww.spec.components.imagePullPolicy",
                &["ENUM:", "IfNotPresent", "Never", "Default:"],
            ),
            (
                "ww.spec.hostInterfaces.config",
                &["wasi:http", "`host`", "`path`"],
            ),
            (
                "ww.spec.components.localResources.allowedHosts",
                &["HOST:PORT", "denied", "Example:"],
            ),
            ("ww.status.conditions", &["ImagesPulled", "Ready"]),
        ];
        for (path, words) in cases {
            // What a new kind means arrives a little later than the kind itself.
            let said = eventually(path, START, async || {
                Ok(ns.kubectl(&["explain", path]).await)
            })
            .await?;
            // kubectl breaks lines where they are full.
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            for word in words {
                ensure!(said.contains(word), "{path}: `{word}` is not in: {said}");
            }
        }
        Ok(())
    })
    .await
}
