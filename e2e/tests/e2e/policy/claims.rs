//! What an agent may say even of what is its own: nothing that leads traffic, places workloads, or holds other objects up.

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use washlet_e2e::{Identity, TestNamespace, chart, eventually, objects, with_namespace};

use super::{IN_FORCE, Thief, nodes, object, place, refused};

/// Waits until a policy is in force: until then it lets a token through that names no node.
async fn in_force(ns: &TestNamespace, node: &str, kind: &str, rest: Value) -> Result<()> {
    let nobody = Thief::of(ns, node, Identity::Unbound).await?;
    eventually("the policy is in force", IN_FORCE, async || {
        let written = match kind {
            "Workload" => nobody.reports("own", node).await,
            _ => nobody.applies(kind, node, rest.clone()).await,
        };
        Ok(refused(written, &["must be bound to its node"]))
    })
    .await
}

/// The status that a thief writes of the Workload `own`, by server-side apply.
async fn writes(thief: &Thief<'_>, status: &Value) -> kube::Result<()> {
    let mut status = status.clone();
    status["hostId"] = json!(thief.node);
    let body = object("Workload", "own", json!({ "status": status }));
    let params = PatchParams::apply("washlet-agent").force();
    thief
        .api("Workload")
        .patch_status("own", &params, &Patch::Apply(&body))
        .await
        .map(drop)
}

/// The same by a merge, which can also take away what others have written.
async fn merges(thief: &Thief<'_>, status: Value) -> kube::Result<()> {
    let body = json!({ "status": status });
    thief
        .api("Workload")
        .patch_status("own", &PatchParams::default(), &Patch::Merge(&body))
        .await
        .map(drop)
}

fn says(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Test", "message": ""})
}

#[tokio::test]
async fn the_controllers_part_of_a_status_is_not_the_agents_to_write() -> Result<()> {
    with_namespace(async |ns| {
        let [a, ..] = nodes(ns);
        place(ns, "own", json!({ "hostId": a })).await?;
        in_force(ns, &a, "Workload", Value::Null).await?;
        let thief = Thief::of(ns, &a, Identity::Pod).await?;
        let words = ["The controller alone writes", "servicePort"];
        let endpoints = json!([{"address": "10.0.0.1", "port": 20001}]);
        let controllers = [
            json!({"servicePort": 6443}),
            json!({"servicePort": 20000}),
            json!({"endpoints": endpoints}),
            json!({"environment": "production"}),
            json!({"conditions": [says("Scheduled", "True")]}),
            json!({"conditions": [says("Routed", "False")]}),
            json!({"conditions": [says("Ready", "True"), says("ServicePublished", "True")]}),
        ];
        // None of it where there is nothing yet.
        for status in &controllers {
            refused(writes(&thief, status).await, &words).with_context(|| status.to_string())?;
        }
        // Its own part it writes, before and after the controller has written the other.
        let own = json!({"conditions": [says("Accepted", "True"), says("Ready", "True")]});
        writes(&thief, &own).await.context("its own part")?;
        let theirs = json!({
            "servicePort": 20007, "endpoints": endpoints, "environment": "eu",
            "conditions": [says("Scheduled", "True"), says("Routed", "False"), says("ServicePublished", "True")],
        });
        let body = object("Workload", "own", json!({ "status": theirs }));
        let params = PatchParams::apply("washlet-controller").force();
        ns.api("Workload")?
            .patch_status("own", &params, &Patch::Apply(&body))
            .await
            .context("as the controller")?;
        let fewer = json!({"conditions": [says("Ready", "False")]});
        writes(&thief, &fewer).await.context("beside the other part")?;
        for status in &controllers[..6] {
            let status = match status["conditions"][0]["type"].as_str() {
                Some(kind) => {
                    let other = if kind == "Routed" { "True" } else { "False" };
                    json!({"conditions": [says(kind, other)]})
                }
                None if status["endpoints"].is_array() => json!({"endpoints": [{"address": "10.9.9.9", "port": 20001}]}),
                None => status.clone(),
            };
            refused(writes(&thief, &status).await, &words).with_context(|| status.to_string())?;
        }
        for part in ["servicePort", "endpoints", "environment", "conditions"] {
            refused(merges(&thief, json!({ part: null })).await, &words).context(part)?;
        }
        let after = ns.get("Workload", "own").await?;
        ensure!(after.data["status"]["servicePort"] == 20007, "{:?}", after.data);
        let routed = objects::condition(&after, "Routed").context("Routed")?;
        ensure!(routed.status == "False", "{routed:?}");
        Ok(())
    })
    .await
}

/// Metadata that an agent's own object may not have, and what is said of it.
fn held(node: &str, other: &str) -> Vec<(Value, &'static str)> {
    let owner = |version: &str, kind: &str, name: &str| json!({"apiVersion": version, "kind": kind, "name": name, "uid": "1-2-3"});
    let mut blocking = owner("v1", "Node", node);
    blocking["blockOwnerDeletion"] = json!(true);
    let owned = "no owner but that Node";
    vec![
        (
            json!({"finalizers": ["example.com/never"]}),
            "No agent sets a finalizer",
        ),
        (
            json!({"ownerReferences": [owner("v1", "Node", other)]}),
            owned,
        ),
        (
            json!({"ownerReferences": [owner("v1", "ConfigMap", node)]}),
            owned,
        ),
        (
            json!({"ownerReferences": [owner("example.com/v1", "Node", node)]}),
            owned,
        ),
        (json!({"ownerReferences": [blocking]}), owned),
    ]
}

#[tokio::test]
async fn a_host_says_of_itself_what_the_chart_tells_it_to() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, _] = nodes(ns);
        let host = |metadata: Value, environment: Value| {
            let mut host = json!({"hostId": a, "metadata": metadata});
            host["metadata"]["name"] = json!(a);
            if environment.is_string() {
                host["environment"] = environment;
            }
            host
        };
        let plain = || host(json!({}), Value::Null);
        in_force(ns, &a, "Host", plain()).await?;
        let thief = Thief::of(ns, &a, Identity::Pod).await?;
        let tell = async |metadata: Value, environment: Value| {
            thief.applies("Host", &a, host(metadata, environment)).await
        };
        // The shipped chart gives neither labels nor an environment: none when the Host is made, and none later.
        for made in [false, true] {
            if made {
                tell(json!({}), Value::Null).await.context("a plain one")?;
            }
            for label in [
                "tenant",
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
                "node-restriction.kubernetes.io/tenant",
            ] {
                let labelled = tell(json!({"labels": {label: "x"}}), Value::Null).await;
                refused(labelled, &["hostLabels"]).context(label)?;
            }
            refused(tell(json!({}), json!("production")).await, &["environment of a Host"])?;
            for (metadata, why) in held(&a, &b) {
                refused(tell(metadata.clone(), Value::Null).await, &[why])
                    .with_context(|| metadata.to_string())?;
            }
        }
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": a, "uid": ns.get("Node", &a).await?.metadata.uid}]);
        tell(json!({"ownerReferences": owner}), Value::Null).await.context("owned by its Node")?;
        // And not any more: what is left is a null, and no list.
        for _ in 0..2 {
            let nothing = json!({"labels": {}, "ownerReferences": [], "finalizers": []});
            tell(nothing, Value::Null).await.context("with nothing")?;
        }

        // What somebody else wrote may stay, and may not be changed.
        let theirs = host(json!({"labels": {"rack": "r1"}, "finalizers": ["example.com/kept"]}), json!("eu"));
        let params = PatchParams::apply("somebody").force();
        ns.api("Host")?
            .patch(&a, &params, &Patch::Apply(&object("Host", &a, theirs)))
            .await?;
        tell(json!({}), Value::Null).await.context("beside what others wrote")?;
        tell(json!({"labels": {"rack": "r1"}}), json!("eu")).await.context("the same")?;
        refused(tell(json!({"labels": {"rack": "r2"}}), json!("eu")).await, &["hostLabels"])?;
        refused(tell(json!({}), json!("us")).await, &["environment of a Host"])?;
        let freed = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
        let freed = Patch::Json::<()>(serde_json::from_value(freed)?);
        ns.api("Host")?.patch(&a, &PatchParams::default(), &freed).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_has_the_labels_and_the_environment_of_the_values() -> Result<()> {
    with_namespace(async |ns| {
        let [a, ..] = nodes(ns);
        in_force(ns, &a, "Host", json!({ "hostId": a })).await?;
        let shipped = Thief::of(ns, &a, Identity::Pod).await?;
        // In place of the shipped policies.
        let told = "--set=environment=eu,hostLabels.rack=r1,hostLabels.example\\.com/disk=ssd";
        let rendered = chart::rendered(ns, &[told.to_owned()]).await?;
        let hosts = rendered
            .split("\n---")
            .find(|document| document.contains("kind: ValidatingAdmissionPolicy\n") && document.contains("agent-hosts"))
            .context("no policy of hosts")?;
        let mut policy = objects::parse_yaml(hosts)?.pop().context("an empty document")?;
        policy.metadata.name = Some(format!("washlet-agent-hosts-{}", ns.name()));
        objects::apply(ns.client(), "", policy).await?;

        let host = |labels: Value, environment: &str| {
            json!({"hostId": a, "environment": environment, "metadata": {"name": a, "labels": labels}})
        };
        eventually("the policy is in force", IN_FORCE, async || {
            let given = host(json!({"rack": "r1", "example.com/disk": "ssd"}), "eu");
            Ok(shipped.applies("Host", &a, given).await)
        })
        .await?;
        for labels in [json!({"rack": "r2"}), json!({"rack": "r1", "tenant": "x"})] {
            refused(shipped.applies("Host", &a, host(labels, "eu")).await, &["hostLabels"])?;
        }
        for _ in 0..2 {
            let plain = shipped.applies("Host", &a, host(json!({}), "eu")).await;
            plain.context("without its labels")?;
        }
        let elsewhere = shipped.applies("Host", &a, host(json!({}), "us")).await;
        refused(elsewhere, &["environment of a Host", "'eu'"])
    })
    .await
}

#[tokio::test]
async fn a_lease_is_short_and_holds_nothing_up() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, _] = nodes(ns);
        let lease = |seconds: Value, mut metadata: Value| {
            metadata["name"] = json!(a);
            json!({"metadata": metadata, "spec": {"holderIdentity": "agent", "leaseDurationSeconds": seconds}})
        };
        in_force(ns, &a, "Lease", lease(json!(40), json!({}))).await?;
        let thief = Thief::of(ns, &a, Identity::Pod).await?;
        for made in [false, true] {
            if made {
                let plain = thief.applies("Lease", &a, lease(json!(40), json!({}))).await;
                plain.context("as an agent's is")?;
            }
            for seconds in [41, i32::MAX] {
                let long = thief.applies("Lease", &a, lease(json!(seconds), json!({}))).await;
                refused(long, &["40 s at most"])?;
            }
            for (metadata, why) in held(&a, &b) {
                let written = thief.applies("Lease", &a, lease(json!(40), metadata.clone())).await;
                refused(written, &[why]).with_context(|| metadata.to_string())?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_names_the_node_that_reports_it() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, _] = nodes(ns);
        let of_a = Thief::of(ns, &a, Identity::Pod).await?;
        let of_b = Thief::of(ns, &b, Identity::Pod).await?;
        let event = |name: &str, instance: &str| {
            object("Event", name, json!({
                "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "washlet", "reportingInstance": instance,
                "action": "Run", "reason": "Test", "type": "Normal",
                "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "namespace": ns.name()},
            }))
        };
        let creates = async |thief: &Thief<'_>, name: &str, instance: &str| {
            let event = serde_json::from_value(event(name, instance)).map_err(kube::Error::SerdeError)?;
            thief.api("Event").create(&PostParams::default(), &event).await
        };
        let nobody = Thief::of(ns, &a, Identity::Unbound).await?;
        let mut tries = 0;
        eventually("the policy is in force", IN_FORCE, async || {
            tries += 1;
            let written = creates(&nobody, &format!("try-{tries}"), &a).await;
            Ok(refused(written, &["must be bound to its node"]))
        })
        .await?;
        let words = ["writes Events", a.as_str()];
        refused(creates(&of_a, "lie", &b).await, &words)?;
        creates(&of_a, "of-a", &a).await.context("its own")?;
        creates(&of_b, "of-b", &b).await.context("its own")?;
        let merges = async |thief: &Thief<'_>, name: &str, change: Value| {
            let params = PatchParams::default();
            thief.api("Event").patch(name, &params, &Patch::Merge(&change)).await
        };
        let again = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
        merges(&of_a, "of-a", again.clone()).await.context("a repetition of its own")?;
        refused(merges(&of_a, "of-b", again).await, &words)?;
        Ok(())
    })
    .await
}
