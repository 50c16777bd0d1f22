//! The kinds beside Workload and Host, on a real API server: what it takes, what it refuses, and how they are scaled.

use anyhow::{Context as _, Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, eventually, objects, with_namespace};

use crate::stage::HEAL;

/// As for wasmCloud, with all that its kinds have.
const MANIFEST: &str = r#"
apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: Artifact
metadata:
  name: hello-image
spec:
  image: ghcr.io/acme/hello:v1
  imagePullSecret:
    name: login
---
apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: WorkloadDeployment
metadata:
  name: hello
spec:
  replicas: 2
  deployPolicy: Recreate
  artifacts:
  - name: app
    artifactFrom:
      name: hello-image
  kubernetes:
    service:
      name: hello
  template:
    labels:
      app.kubernetes.io/name: hello
    annotations:
      acme.example/note: "anything goes: ü"
    spec:
      hostSelector:
        hostgroup: default
      environment: eu
      components:
      - name: app
        image: artifact://app
        poolSize: 2
        localResources:
          environment:
            config:
              LOG_LEVEL: info
          allowedHosts: ["https://api.example.com"]
      hostInterfaces:
      - namespace: wasi
        package: http
        interfaces: [incoming-handler]
        config:
          host: hello.localhost
---
apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: WorkloadReplicaSet
metadata:
  name: fixed
spec:
  replicas: 1
  template:
    spec:
      service:
        image: ghcr.io/acme/worker:v1
        maxRestarts: 3
      volumes:
      - name: data
        ephemeral: {}
"#;

#[tokio::test]
async fn manifests_for_wasmcloud_apply_unchanged() -> Result<()> {
    with_namespace(async |ns| {
        let written = objects::parse_yaml(MANIFEST)?;
        let applied = ns.apply_yaml(MANIFEST).await?;
        ensure!(applied.len() == 3, "{}", applied.len());
        for (written, applied) in written.iter().zip(&applied) {
            let (wanted, is) = (&written.data["spec"], &applied.data["spec"]);
            ensure!(wanted == is, "{wanted} became {is}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_left_out_has_a_default() -> Result<()> {
    with_namespace(async |ns| {
        let deployment = ns
            .apply(object(
                "WorkloadDeployment",
                json!({ "template": { "spec": {} } }),
            ))
            .await?;
        ensure!(
            deployment.data["spec"]["replicas"] == 1,
            "{}",
            deployment.data
        );
        ensure!(
            deployment.data["spec"]["deployPolicy"] == "RollingUpdate",
            "{}",
            deployment.data
        );
        let set = ns
            .apply(object(
                "WorkloadReplicaSet",
                json!({ "template": { "spec": {} } }),
            ))
            .await?;
        ensure!(set.data["spec"]["replicas"] == 1, "{}", set.data);
        // Tools take an object without conditions for a healthy one.
        for object in [deployment, set] {
            let ready = objects::condition(&object, "Ready").context("a condition")?;
            ensure!(
                (ready.status.as_str(), ready.reason.as_str()) == ("Unknown", "Pending"),
                "{ready:?}"
            );
        }
        Ok(())
    })
    .await
}

fn object(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": kind, "metadata": { "name": "hello" }, "spec": spec })
}

/// A kind, a spec that it refuses, and words of the refusal.
type Case = (&'static str, Value, &'static [&'static str]);

fn bad() -> Vec<Case> {
    let with = |field: &str, value: Value| {
        let mut spec = json!({ "template": { "spec": {} } });
        spec[field] = value;
        spec
    };
    let both = |surge: Value, unavailable: Value| {
        let mut spec = with("maxSurge", surge);
        spec["maxUnavailable"] = unavailable;
        spec
    };
    let image = |image: &str| {
        let components = json!([{ "name": "a", "image": image }]);
        json!({ "template": { "spec": { "components": components } }, "artifacts": [{ "name": "app", "artifactFrom": { "name": "x" } }] })
    };
    const NOTHING: &[&str] = &["maxUnavailable may not be 0 when maxSurge is 0"];
    let mut cases: Vec<Case> = vec![
        (
            "WorkloadDeployment",
            json!({}),
            &["spec.template", "Required value"],
        ),
        (
            "WorkloadDeployment",
            json!({ "template": {} }),
            &["spec.template.spec", "Required value"],
        ),
        (
            "WorkloadDeployment",
            with("deployPolicy", json!("Rolling")),
            &["spec.deployPolicy", "\"RollingUpdate\"", "\"Recreate\""],
        ),
        (
            "WorkloadDeployment",
            with("maxSurge", json!("lots")),
            &["spec.maxSurge", "should match"],
        ),
        (
            "WorkloadDeployment",
            with("maxSurge", json!(-1)),
            &["spec.maxSurge", "greater than or equal to 0"],
        ),
        (
            "WorkloadDeployment",
            with("maxUnavailable", json!("101%")),
            &["spec.maxUnavailable", "should match"],
        ),
        ("WorkloadDeployment", both(json!(0), json!(0)), NOTHING),
        ("WorkloadDeployment", both(json!("0%"), json!(0)), NOTHING),
        ("WorkloadDeployment", both(json!(0), json!("00%")), NOTHING),
        (
            "WorkloadDeployment",
            with("progressDeadlineSeconds", json!(0)),
            &["spec.progressDeadlineSeconds", "greater than or equal to 1"],
        ),
        (
            "WorkloadDeployment",
            with("revisionHistoryLimit", json!(-1)),
            &["spec.revisionHistoryLimit", "greater than or equal to 0"],
        ),
        (
            "WorkloadDeployment",
            with("paused", json!("yes")),
            &["spec.paused", "must be of type boolean"],
        ),
        (
            "WorkloadDeployment",
            image("artifact://ap"),
            &["every artifact:// image of a component must name an entry of spec.artifacts"],
        ),
        (
            "WorkloadDeployment",
            json!({ "template": { "spec": { "service": { "image": "artifact://none" } } } }),
            &["the artifact:// image of the service must name an entry of spec.artifacts"],
        ),
        (
            "WorkloadDeployment",
            with(
                "artifacts",
                json!([{ "name": "a", "artifactFrom": {} }, { "name": "a", "artifactFrom": {} }]),
            ),
            &["spec.artifacts[1]", "Duplicate value"],
        ),
        ("Artifact", json!({}), &["spec.image", "Required value"]),
        (
            "Artifact",
            json!({ "image": "" }),
            &["spec.image", "at least 1 chars long"],
        ),
    ];
    for kind in ["WorkloadDeployment", "WorkloadReplicaSet"] {
        cases.extend(bad_templates(kind));
    }
    cases
}

/// What both kinds that have a template refuse.
fn bad_templates(kind: &'static str) -> Vec<Case> {
    let with = |field: &str, value: Value| {
        let mut spec = json!({ "template": { "spec": {} } });
        spec[field] = value;
        spec
    };
    let label = json!({ "template": { "labels": { "app": "no spaces" }, "spec": {} } });
    let mount = json!({ "template": { "spec": { "components": [{
            "name": "a", "image": "b", "localResources": { "volumeMounts": [{ "name": "data", "mountPath": "/data" }] },
        }] } } });
    vec![
        (
            kind,
            with("replicas", json!(-1)),
            &["spec.replicas", "greater than or equal to 0"],
        ),
        (
            kind,
            with("minReadySeconds", json!(-1)),
            &["spec.minReadySeconds"],
        ),
        (kind, label, &["spec.template.labels.app", "should match"]),
        (
            kind,
            mount,
            &[
                "spec.template.spec",
                "every volumeMount of a component must name an entry of spec.volumes",
            ],
        ),
    ]
}

#[tokio::test]
async fn the_api_server_refuses_what_the_schema_can_say() -> Result<()> {
    with_namespace(async |ns| {
        for (kind, spec, wanted) in bad() {
            let words = refusal(ns, kind, &spec).await?;
            let words = words.with_context(|| format!("accepted: {kind} {spec}"))?;
            for part in wanted {
                ensure!(words.contains(part), "{kind} {spec}: `{part}` is not in: {words}");
            }
        }
        // Neither is zero by itself, and with Recreate nothing is asked of them.
        for good in [
            json!({ "maxSurge": 0, "template": { "spec": {} } }),
            json!({ "maxSurge": "150%", "maxUnavailable": "100%", "template": { "spec": {} } }),
            json!({ "maxSurge": 0, "maxUnavailable": 0, "deployPolicy": "Recreate", "template": { "spec": {} } }),
        ] {
            let words = refusal(ns, "WorkloadDeployment", &good).await?;
            ensure!(words.is_none(), "{good}: {words:?}");
        }
        Ok(())
    })
    .await
}

/// What the API server says against a spec; nothing is stored.
async fn refusal(namespace: &TestNamespace, kind: &str, spec: &Value) -> Result<Option<String>> {
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object = serde_json::from_value(object(kind, spec.clone()))?;
    match namespace.api(kind)?.create(&trial, &object).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Ok(Some(status.message))
        }
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn kubectl_scales_shows_and_explains_them() -> Result<()> {
    with_namespace(async |ns| {
        ns.apply_yaml(MANIFEST).await?;
        let cases = [("WorkloadDeployment", "wd/hello"), ("WorkloadReplicaSet", "wrs/fixed")];
        for (kind, name) in cases {
            ns.kubectl(&["scale", name, "--replicas=7"]).await?;
            let object = ns.get(kind, name.split('/').nth(1).unwrap_or_default()).await?;
            ensure!(object.data["spec"]["replicas"] == 7, "{}", object.data);
            // What the controller says is what autoscalers read.
            let status = json!({ "status": { "currentReplicas": 3, "selector": "a=b", "conditions": [
                { "type": "Ready", "status": "False", "reason": "WorkloadsNotReady", "message": "why" },
            ] } });
            ns.kubectl(&["patch", name, "--subresource=status", "--type=merge", "-p", &status.to_string()]).await?;
            let scale = ns.kubectl(&["get", name, "--subresource=scale", "-o", "json"]).await?;
            let scale: Value = serde_json::from_str(&scale)?;
            ensure!(scale["status"] == json!({ "replicas": 3, "selector": "a=b" }), "{scale}");
        }
        let shown = ns.kubectl(&["get", "wd,wrs,artifacts", "-o", "wide"]).await?;
        for word in ["REPLICAS", "REASON", "WorkloadsNotReady", "AVAILABLE", "REVISION", "artifact://app", "why", "ghcr.io/acme/hello:v1"] {
            ensure!(shown.contains(word), "`{word}` is not in:\n{shown}");
        }
        let all = ns.kubectl(&["get", "all"]).await?;
        ensure!(all.contains("workloaddeployment.runtime.wasmcloud.dev/hello"), "{all}");
        for (path, words) in [
            ("wd.spec.maxSurge", ["rounded up", "Default:"]),
            ("wd.spec.artifacts", ["artifact://NAME", "revision"]),
            ("wrs.spec.template", ["annotations", "labels"]),
            ("artifact.spec.image", ["Example:", "REPOSITORY"]),
        ] {
            // What a new kind means arrives a little later than the kind itself.
            let said = eventually(path, HEAL, async || Ok(ns.kubectl(&["explain", path]).await)).await?;
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            for word in words {
                ensure!(said.contains(word), "{path}: `{word}` is not in: {said}");
            }
        }
        Ok(())
    })
    .await
}
