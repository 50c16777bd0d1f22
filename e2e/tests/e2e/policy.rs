//! What the rights that the project ships keep people, agents, and thieves of their tokens from.

mod claims;
mod people;
mod rights;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use washlet_e2e::{Identity, TestNamespace, agent, eventually, with_namespace};

/// A new admission policy is in force within a second or two.
const IN_FORCE: Duration = Duration::from_secs(30);

const GROUP: &str = "runtime.wasmcloud.dev/v1alpha1";

/// A token in a thief's hands.
struct Thief<'a> {
    client: Client,
    namespace: &'a TestNamespace,
    node: String,
}

// === impl Thief ===

impl<'a> Thief<'a> {
    async fn of(namespace: &'a TestNamespace, node: &str, identity: Identity) -> Result<Self> {
        let client = agent::client(namespace, node, identity).await?;
        Ok(Self {
            client,
            namespace,
            node: node.to_owned(),
        })
    }

    /// As an agent reports.
    async fn reports(&self, workload: &str, host: &str) -> kube::Result<DynamicObject> {
        let body = object("Workload", workload, json!({"status": {"hostId": host}}));
        let params = PatchParams::apply("washlet-agent").force();
        self.api("Workload")
            .patch_status(workload, &params, &Patch::Apply(&body))
            .await
    }

    async fn applies(&self, kind: &str, name: &str, rest: Value) -> kube::Result<DynamicObject> {
        let params = PatchParams::apply("washlet-agent").force();
        self.api(kind)
            .patch(name, &params, &Patch::Apply(&object(kind, name, rest)))
            .await
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            group(kind).split('/').next().unwrap_or_default(),
            group(kind).split('/').next_back().unwrap_or_default(),
            kind,
        ));
        Api::namespaced_with(self.client.clone(), self.namespace.name(), &resource)
    }
}

fn group(kind: &str) -> &'static str {
    match kind {
        "Lease" => "coordination.k8s.io/v1",
        "Event" => "events.k8s.io/v1",
        _ => GROUP,
    }
}

fn object(kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": group(kind), "kind": kind, "metadata": {"name": name}});
    if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
        object.extend(rest);
    }
    object
}

/// Fails unless this was forbidden, for a reason that has these words.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>, words: &[&str]) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) => {
            ensure!(status.code == 403, "{status:?}");
            for word in words {
                ensure!(
                    status.message.contains(word),
                    "{word} is not in: {}",
                    status.message
                );
            }
            Ok(())
        }
        other => anyhow::bail!("not refused with {words:?}: {other:?}"),
    }
}

/// A Workload that nobody runs.
async fn place(namespace: &TestNamespace, name: &str, spec: Value) -> Result<()> {
    let mut spec = spec;
    spec["components"] = json!([{"name": "app", "image": "localhost/none:v1"}]);
    namespace
        .apply(object("Workload", name, json!({"spec": spec})))
        .await
        .map(drop)
}

/// As the controller does.
async fn assign(namespace: &TestNamespace, name: &str, host: &str) -> Result<()> {
    let body = object("Workload", name, json!({"status": {"hostId": host}}));
    let params = PatchParams::apply("washlet-controller").force();
    namespace
        .api("Workload")?
        .patch_status(name, &params, &Patch::Apply(&body))
        .await
        .map(drop)
        .context("assigning a Workload")
}

/// Waits until the API server has looked at a policy's expressions, and fails if it finds fault with one.
async fn type_checks(namespace: &TestNamespace, policy: &str) -> Result<()> {
    let name = format!("washlet-agent-{policy}-{}", namespace.name());
    let kind = "validatingadmissionpolicy";
    let checked = eventually("the policy's types are checked", IN_FORCE, async || {
        let path = "-o=jsonpath={.status.typeChecking}";
        let checked = namespace.kubectl(&["get", kind, &name, path]).await?;
        Ok(if checked.is_empty() {
            Err(())
        } else {
            Ok(checked)
        })
    })
    .await?;
    ensure!(checked == "{}", "{policy}: {checked}");
    Ok(())
}

/// Three nodes, called after the namespace, each with its Workload.
fn nodes(namespace: &TestNamespace) -> [String; 3] {
    ["a", "b", "c"].map(|node| format!("{}-{node}", namespace.name()))
}

#[tokio::test]
async fn a_stolen_token_writes_no_workload_of_another_node() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, c] = nodes(ns);
        for node in [&a, &b, &c] {
            place(ns, &format!("on-{node}"), json!({"hostId": node})).await?;
        }
        place(ns, "free", json!({})).await?;
        let nobody = Thief::of(ns, &a, Identity::Unbound).await?;
        eventually("the policy is in force", IN_FORCE, async || {
            let written = nobody.reports(&format!("on-{a}"), &a).await;
            Ok(refused(written, &["must be bound to its node"]))
        })
        .await?;

        // Of a subresource the API server knows no type.
        for policy in ["hosts", "leases", "events"] {
            type_checks(ns, policy).await?;
        }

        // As a pod's, as a kubelet's, and once more as a pod's.
        let thieves = [
            (&a, Thief::of(ns, &a, Identity::Pod).await?),
            (&b, Thief::of(ns, &b, Identity::Node).await?),
            (&c, Thief::of(ns, &c, Identity::Pod).await?),
        ];
        for (node, thief) in &thieves {
            let own = format!("on-{node}");
            thief.reports(&own, node).await.context("its own")?;
            thief.reports(&own, node).await.context("its own, again")?;
            for other in [&a, &b, &c].into_iter().filter(|other| other != node) {
                let words = ["is on host", other.as_str(), "agent of node", node.as_str()];
                let theirs = format!("on-{other}");
                refused(thief.reports(&theirs, other).await, &words)?;
                refused(thief.reports(&theirs, node).await, &words)?;
                refused(thief.reports(&own, other).await, &["may not move", other])?;
            }
            refused(thief.reports("free", node).await, &["is on no host", node])?;
        }

        // What the controller gives to a is a's, and not to be given away.
        let [(_, of_a), (_, of_b), _] = &thieves;
        assign(ns, "free", &a).await?;
        of_a.reports("free", &a).await.context("assigned to it")?;
        refused(of_b.reports("free", &b).await, &["is on host", &a])?;
        refused(of_a.reports("free", &b).await, &["may not move"])?;
        // A pin wins over what was reported before.
        place(ns, "free", json!({"hostId": b})).await?;
        refused(of_a.reports("free", &a).await, &["is on host", &b])?;
        of_b.reports("free", &b).await.context("pinned to it")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stolen_token_changes_nothing_that_people_write() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, _] = nodes(ns);
        place(ns, "own", json!({"hostId": a})).await?;
        let thief = Thief::of(ns, &a, Identity::Pod).await?;
        let spec = |host: &str| {
            let components = json!([{"name": "app", "image": "localhost/none:v2"}]);
            json!({"spec": {"hostId": host, "components": components}})
        };
        let workloads = "cannot patch resource \"workloads\"";
        refused(
            thief.applies("Workload", "own", spec(&b)).await,
            &[workloads],
        )?;
        refused(
            thief.applies("Workload", "new", spec(&a)).await,
            &[workloads],
        )?;
        let new = serde_json::from_value(object("Workload", "new", spec(&a)))?;
        let created = thief
            .api("Workload")
            .create(&PostParams::default(), &new)
            .await;
        refused(created, &["cannot create"])?;
        let deleted = thief
            .api("Workload")
            .delete("own", &DeleteParams::default())
            .await;
        refused(deleted, &["cannot delete"])?;
        let secrets =
            Api::<k8s_openapi::api::core::v1::Secret>::namespaced(thief.client.clone(), ns.name());
        refused(
            secrets.list(&kube::api::ListParams::default()).await,
            &["cannot list"],
        )
    })
    .await
}

#[tokio::test]
async fn a_stolen_token_writes_no_host_or_lease_of_another_node() -> Result<()> {
    with_namespace(async |ns| {
        let [a, b, _] = nodes(ns);
        let host = |id: &str| json!({"hostId": id});
        let lease = || json!({"spec": {"holderIdentity": "thief"}});
        let nobody = Thief::of(ns, &a, Identity::Unbound).await?;
        for (kind, rest) in [("Host", host(&a)), ("Lease", lease())] {
            eventually("the policy is in force", IN_FORCE, async || {
                let written = nobody.applies(kind, &a, rest.clone()).await;
                Ok(refused(written, &["must be bound to its node"]))
            })
            .await?;
        }

        let of_a = Thief::of(ns, &a, Identity::Pod).await?;
        let of_b = Thief::of(ns, &b, Identity::Node).await?;
        for (thief, own) in [(&of_a, &a), (&of_b, &b)] {
            thief.applies("Host", own, host(own)).await?;
            thief.applies("Lease", own, lease()).await?;
            let body = object(
                "Host",
                own,
                json!({"hostId": own, "status": {"version": "1"}}),
            );
            let params = PatchParams::apply("washlet-agent").force();
            let status = Patch::Apply(&body);
            thief
                .api("Host")
                .patch_status(own, &params, &status)
                .await?;
        }
        // Both are there now, and neither may touch the other's, nor make one that nobody has, nor lead.
        let body = object("Host", &b, json!({"hostId": b, "status": {"version": "2"}}));
        let params = PatchParams::apply("washlet-agent").force();
        let status = of_a
            .api("Host")
            .patch_status(&b, &params, &Patch::Apply(&body))
            .await;
        refused(status, &["agent of node", &a, &b])?;
        for other in [b.as_str(), "washlet-controller"] {
            let written = of_a.applies("Lease", other, lease()).await;
            refused(written, &["writes the Lease", &a, other])?;
            let written = of_a.applies("Host", other, host(other)).await;
            refused(written, &["writes the Host", &a, other])?;
        }
        refused(of_a.applies("Host", &a, host(&b)).await, &["as its hostId"])
    })
    .await
}
