//! What people may do who have the cluster's own roles.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use washlet_e2e::{TestNamespace, eventually, objects, with_namespace};

use crate::stage::START;

/// Which of these verbs `kubectl auth can-i` allows somebody, on a resource or, after a slash, a part of it.
async fn may(ns: &TestNamespace, user: &str, verbs: &[&str], resource: &str) -> Result<Vec<bool>> {
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let resource = format!("{resource}.runtime.wasmcloud.dev");
    let part = format!("--subresource={part}");
    let mut answers = Vec::new();
    for verb in verbs {
        let args = ["auth", "can-i", verb, &resource, &part, "--as", user];
        // "no" is a failure of the command.
        let said = ns.kubectl(&args).await;
        answers.push(said.is_ok_and(|said| said.trim() == "yes"));
    }
    Ok(answers)
}

#[tokio::test]
async fn people_with_the_clusters_roles_may_use_the_kinds_but_write_no_status() -> Result<()> {
    with_namespace(async |ns| {
        people_roles(ns).await?;
        for role in ["view", "edit", "admin"] {
            let subjects = json!([{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}]);
            let role_ref = json!({"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"});
            ns.apply(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": role}, "roleRef": role_ref, "subjects": subjects}))
                .await?;
        }
        eventually("the roles are aggregated", START, async || {
            let may = may(ns, "edit", &["create"], "workloads").await?;
            Ok(if may == [true] { Ok(()) } else { Err("not yet") })
        })
        .await?;
        let (read, write) = (["get", "list", "watch"], ["create", "update", "patch", "delete"]);
        for resource in ["workloads", "workloadreplicasets", "workloaddeployments", "artifacts"] {
            for user in ["view", "edit", "admin"] {
                ensure!(may(ns, user, &read, resource).await? == [true; 3], "{user} {resource}");
                let writes = may(ns, user, &write, resource).await?;
                ensure!(writes == [user != "view"; 4], "{user} {resource}: {writes:?}");
            }
            let status = &format!("{resource}/status");
            for user in ["view", "edit", "admin"] {
                let writes = may(ns, user, &["update", "patch"], status).await?;
                ensure!(writes == [false; 2], "{user} {status}");
            }
        }
        for (user, scales) in [("view", false), ("edit", true)] {
            let scale = "workloaddeployments/scale";
            ensure!(may(ns, user, &["get"], scale).await? == [true], "{user}");
            ensure!(may(ns, user, &["update", "patch"], scale).await? == [scales; 2], "{user}");
        }
        let hosts = may(ns, "admin", &["get", "patch"], "hosts").await?;
        ensure!(hosts == [true, false], "{hosts:?}");
        Ok(())
    })
    .await
}

/// Applies the roles for people as they are shipped, under names of the test's own.
async fn people_roles(ns: &TestNamespace) -> Result<()> {
    let path = washlet_e2e::repository().join("manifests/install.yaml");
    let manifest = std::fs::read_to_string(path).context("reading install.yaml")?;
    let mut found = 0;
    for document in manifest.split("\n---") {
        if !document.contains("rbac.authorization.k8s.io/aggregate-to-") {
            continue;
        }
        for mut role in objects::parse_yaml(document)? {
            let name = format!("{}-{}", role.metadata.name.unwrap_or_default(), ns.name());
            ns.remove_too(format!("clusterrole/{name}"));
            role.metadata.name = Some(name);
            objects::apply(ns.client(), "", role).await?;
            found += 1;
        }
    }
    ensure!(found == 2, "{found} roles for people");
    Ok(())
}
