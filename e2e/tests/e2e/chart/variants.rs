//! A server that enforces `restricted` takes what is rendered, whatever the values.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{TestNamespace, chart::Helm, eventually, run_dir, with_namespace};

use super::render;
use crate::stage::START;

/// Values that pass `restricted`; `other` is a namespace that exists.
fn restricted(other: &str) -> Vec<(&'static str, Value)> {
    let certificate = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
    vec![
        ("defaults", json!({})),
        ("namespaced", json!({"watchNamespaces": [other]})),
        (
            "namespaced, with a policy all the same",
            json!({"watchNamespaces": [other], "admissionPolicy": {"create": true}, "crds": {"install": true}}),
        ),
        ("some secrets", json!({"secrets": {"namespaces": [other]}})),
        (
            "some secrets of a watched namespace",
            json!({"watchNamespaces": [other], "secrets": {"namespaces": [other]}}),
        ),
        (
            "registries",
            json!({"registries": {
                "docker.io": {"mirrors": ["https://mirror.test/v2", "http://other.test:5000"]},
                "registry.test:5000": {"ca": certificate}, "plain.test": {"plainHttp": true}}}),
        ),
        (
            "hosts",
            json!({"environment": "eu", "hostLabels": {"example.com/rack": "r1"}, "memory": "512Mi", "listenAddress": "::"}),
        ),
        (
            "placement",
            json!({"priorityClass": {"create": false}, "priorityClassName": "system-node-critical",
                "tolerations": [{"operator": "Exists"}], "updateStrategy": {"maxSurge": "10%"},
                "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.test"}], "imagePullSecrets": [{"name": "login"}],
                "controller": {"replicas": 1, "tolerations": [{"operator": "Exists"}], "topologySpreadConstraints":
                    [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]}}),
        ),
        (
            "traffic",
            json!({"service": {"enabled": true, "type": "LoadBalancer"}, "networkPolicy": {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "adminFrom": [{"podSelector": {}}],
                "egress": [{"ports": [{"port": 443}]}]}}),
        ),
        (
            "https",
            json!({"tls": {"secretName": "certificate"}, "ports": {"https": 9443}, "service": {"enabled": true}}),
        ),
        (
            "little",
            json!({"networkPolicy": {"enabled": false}, "rbac": {"aggregateRoles": false}, "admissionPolicy": {"create": false},
                "crds": {"install": false}, "controller": {"podDisruptionBudget": {"enabled": false}}}),
        ),
        (
            "dashboard",
            json!({"metrics": {"dashboard": {"enabled": true}}}),
        ),
    ]
}

/// Values that no namespace with `restricted` takes.
fn privileged() -> Vec<(&'static str, Value)> {
    vec![
        ("hostNetwork", json!({"hostNetwork": true})),
        ("hostPath", json!({"state": {"hostPath": "/srv/washlet"}})),
    ]
}

/// A server-side dry run, in which a warning is a failure.
async fn dry_run(namespace: &TestNamespace, values: &Value) -> Result<()> {
    let (name, values) = (namespace.name().to_owned(), values.clone());
    let rendered = tokio::task::spawn_blocking(move || render(&Helm::offline()?, &name, &values))
        .await
        .context("helm")??;
    let file = run_dir::subdir("rendered")?.join("rendered.yaml");
    fs::write(&file, rendered).context("writing what was rendered")?;
    let file = file.to_string_lossy();
    let dry = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
    ];
    let args = [&dry[..], &["--warnings-as-errors", "-f", &file]].concat();
    // Without a namespace of its own: what is rendered names several.
    namespace.cluster().kubectl(&args).await.map(drop)
}

async fn restrict(namespace: &TestNamespace) -> Result<()> {
    let label = |mode: &str| format!("pod-security.kubernetes.io/{mode}=restricted");
    let labels = [label("enforce"), label("warn")];
    let args = [
        "label",
        "namespace",
        namespace.name(),
        &labels[0],
        &labels[1],
    ];
    namespace.kubectl(&args).await.map(drop)
}

#[tokio::test]
async fn the_api_server_takes_every_variant() -> Result<()> {
    with_namespace(async |ns| {
        let other = TestNamespace::in_cluster(ns.cluster()).await?;
        restrict(ns).await?;
        for (name, values) in restricted(other.name()) {
            dry_run(ns, &values)
                .await
                .with_context(|| name.to_owned())?;
        }
        for (name, values) in privileged() {
            let warned = dry_run(ns, &values).await;
            let warned = warned
                .err()
                .with_context(|| format!("{name} passes `restricted`"))?;
            ensure!(
                format!("{warned:#}").contains("violate PodSecurity"),
                "{warned:#}"
            );
            dry_run(&other, &values)
                .await
                .with_context(|| name.to_owned())?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_monitor_needs_its_kind() -> Result<()> {
    with_namespace(async |ns| {
        restrict(ns).await?;
        let on = json!({"metrics": {"serviceMonitor": {"enabled": true}}});
        let refused = dry_run(ns, &on).await.err().context("there is no such kind")?;
        ensure!(format!("{refused:#}").contains("ServiceMonitor"), "{refused:#}");

        let name = "servicemonitors.monitoring.coreos.com";
        ns.remove_too(format!("crd/{name}"));
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        ns.apply(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        }))
        .await?;
        eventually("the API server takes a ServiceMonitor", START, async || {
            Ok(dry_run(ns, &on).await)
        })
        .await
    })
    .await
}
