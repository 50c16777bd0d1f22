//! What is rendered of some values, read as the API server reads it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::chart::Helm;

use super::render;

const NAMESPACE: &str = "washlet";

/// The document of this kind and name; all that is rendered must be YAML.
fn document(rendered: &str, kind: &str, name: &str) -> Result<Value> {
    let mut found = None;
    for text in rendered.split("\n---") {
        let document: Value = serde_saphyr::from_str(text).with_context(|| text.to_owned())?;
        if document["kind"] == kind && document["metadata"]["name"] == name {
            found = Some(document);
        }
    }
    found.with_context(|| format!("no {kind} {name}"))
}

#[test]
fn https_is_served_with_the_secret_that_is_named() -> Result<()> {
    let helm = Helm::offline()?;
    let plain = render(&helm, NAMESPACE, &json!({}))?;
    ensure!(
        !plain.contains("--tls-cert") && !plain.contains("name: https"),
        "{plain}"
    );
    let values = json!({"tls": {"secretName": "123"}, "service": {"enabled": true}});
    let rendered = render(&helm, NAMESPACE, &values)?;
    let daemonset = document(&rendered, "DaemonSet", "washlet-agent")?;
    let pod = &daemonset["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let args = container["args"].as_array().context("no arguments")?;
    for wanted in [
        "--https-listen=0.0.0.0:8443",
        "--tls-cert=/etc/washlet/tls/tls.crt",
        "--tls-key=/etc/washlet/tls/tls.key",
    ] {
        ensure!(args.contains(&json!(wanted)), "{wanted}: {args:?}");
    }
    let ports = &container["ports"];
    ensure!(
        ports[1] == json!({"name": "https", "containerPort": 8443}),
        "{ports}"
    );
    // As a whole: a file of its own (`subPath`) would never change.
    let mount = json!({"name": "tls", "mountPath": "/etc/washlet/tls", "readOnly": true});
    ensure!(container["volumeMounts"][1] == mount, "{container}");
    ensure!(pod["volumes"][1]["secret"]["secretName"] == "123", "{pod}");
    let service = document(&rendered, "Service", "washlet-http")?;
    let port = &service["spec"]["ports"][1];
    ensure!(
        *port == json!({"name": "https", "port": 443, "targetPort": "https"}),
        "{port}"
    );
    Ok(())
}

#[test]
fn texts_stay_texts_and_numbers_numbers() -> Result<()> {
    let values = json!({
        "environment": "on", "memory": "1e9", "nameOverride": "yes", "terminationGracePeriodSeconds": 1_000_000,
        "watchNamespaces": ["123"], "hostLabels": {"a": "1"}, "state": {"hostPath": "/srv: #1"}, "hostPathRoots": ["/srv/a: #1"],
        "image": {"repository": "12", "tag": "34"}, "updateStrategy": {"maxSurge": 0, "maxUnavailable": 2_000_000},
        "controller": {"replicas": 1_000_000}, "priorityClassName": "1e3",
    });
    // As a number the namespace would be another one.
    let rendered = render(&Helm::offline()?, "0123", &values)?;
    let daemonset = document(&rendered, "DaemonSet", "washlet-yes-agent")?;
    let (metadata, spec) = (&daemonset["metadata"], &daemonset["spec"]);
    let pod = &spec["template"]["spec"];
    ensure!(metadata["namespace"] == "0123", "{metadata}");
    ensure!(
        metadata["labels"]["app.kubernetes.io/name"] == "yes",
        "{metadata}"
    );
    ensure!(pod["terminationGracePeriodSeconds"] == 1_000_000, "{pod}");
    ensure!(pod["priorityClassName"] == "1e3", "{pod}");
    ensure!(pod["containers"][0]["image"] == "12:34", "{pod}");
    ensure!(pod["volumes"][0]["hostPath"]["path"] == "/srv: #1", "{pod}");
    let root = &pod["volumes"][1];
    let mount = json!({"name": root["name"], "mountPath": "/srv/a: #1"});
    ensure!(root["hostPath"]["path"] == "/srv/a: #1", "{root}");
    ensure!(pod["containers"][0]["volumeMounts"][1] == mount, "{pod}");
    let most = &spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    ensure!(*most == 2_000_000, "{most}");
    let args = pod["containers"][0]["args"]
        .as_array()
        .context("no arguments")?;
    for wanted in [
        "--environment=on",
        "--memory=1e9",
        "--host-label=a=1",
        "--namespace=123",
        "--host-path-root=/srv/a: #1",
    ] {
        ensure!(args.contains(&json!(wanted)), "{wanted}: {args:?}");
    }
    let deployment = document(&rendered, "Deployment", "washlet-yes-controller")?;
    ensure!(deployment["spec"]["replicas"] == 1_000_000, "{deployment}");
    let role = "washlet-yes-agent.0123";
    let role = document(&rendered, "Role", role)?;
    ensure!(role["metadata"]["namespace"] == "123", "{role}");
    Ok(())
}

#[test]
fn the_test_pod_is_let_in_and_families_are_those_listened_on() -> Result<()> {
    let helm = Helm::offline()?;
    let monitoring = json!({"podSelector": {"matchLabels": {"app": "prometheus"}}});
    let values = json!({"networkPolicy": {"adminFrom": [monitoring]}, "listenAddress": "::"});
    let (plain, narrow) = (
        render(&helm, NAMESPACE, &json!({}))?,
        render(&helm, NAMESPACE, &values)?,
    );
    let test = document(&narrow, "Pod", "washlet-test")?;
    for component in ["agent", "controller"] {
        let name = format!("washlet-{component}");
        let policy = document(&narrow, "NetworkPolicy", &name)?;
        let admin = policy["spec"]["ingress"]
            .as_array()
            .and_then(|rules| rules.last());
        let from = &admin.context("no rule")?["from"];
        ensure!(from[0] == monitoring, "{from}");
        let labels = from[1]["podSelector"]["matchLabels"].as_object();
        let labels = labels
            .filter(|labels| labels.len() == 3)
            .context("no labels")?;
        for (key, value) in labels {
            ensure!(
                test["metadata"]["labels"][key] == *value,
                "{key}={value}: {test}"
            );
        }
        let policy = document(&plain, "NetworkPolicy", &name)?;
        let admin = policy["spec"]["ingress"]
            .as_array()
            .and_then(|rules| rules.last());
        ensure!(
            admin.context("no rule")?["from"] == json!([{"namespaceSelector": {}}]),
            "{policy}"
        );

        let families = |rendered: &str| -> Result<Value> {
            Ok(document(rendered, "Service", &name)?["spec"]["ipFamilyPolicy"].clone())
        };
        ensure!(families(&plain)?.is_null() && families(&narrow)? == "PreferDualStack");
    }
    let budget = document(&plain, "PodDisruptionBudget", "washlet-controller")?;
    ensure!(
        budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow",
        "{budget}"
    );
    let unlimited = render(&helm, NAMESPACE, &json!({"state": {"sizeLimit": ""}}))?;
    let agent = document(&unlimited, "DaemonSet", "washlet-agent")?;
    let state = &agent["spec"]["template"]["spec"]["volumes"][0];
    ensure!(
        *state == json!({"name": "state", "emptyDir": {}}),
        "{state}"
    );
    Ok(())
}
