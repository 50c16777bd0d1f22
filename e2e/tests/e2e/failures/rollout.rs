//! A new generation that is broken never takes the running one down, and says of which generation it speaks.

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use washlet_e2e::{Artifact, TestNamespace, objects, with_namespace};

use super::{answers, heals, manifest, warned, while_answering};
use crate::stage::{HEAL, START, Stage, repository_of, says};

/// A generation that fails behind one that answers.
pub(super) struct Behind<'a> {
    /// The first condition that it has not passed.
    pub condition: &'a str,
    pub reason: &'a str,
    /// `Reconciling` if it is tried again by itself, else `Stalled`.
    pub progress: &'a str,
    /// Parts of the messages.
    pub says: &'a [&'a str],
}

impl Behind<'_> {
    /// Waits until a workload shows it, with generation 1 still Ready.
    pub(super) async fn shown(&self, namespace: &TestNamespace, name: &str) -> Result<()> {
        let progress = (self.progress, "True");
        namespace
            .wait_for_condition(("Workload", name), progress, Some(self.reason), START)
            .await?;
        let object = namespace.get("Workload", name).await?;
        self.check(&object)
            .with_context(|| format!("{}", object.data["status"]))?;
        warned(namespace, &object, self.reason, self.says).await
    }

    fn check(&self, object: &DynamicObject) -> Result<()> {
        let newest = object.metadata.generation;
        let condition = |kind| objects::condition(object, kind);
        ensure!(object.data["status"]["observedGeneration"].as_i64() == newest);
        let ready = condition("Ready").context("no Ready")?;
        ensure!(
            ready.status == "True" && ready.observed_generation == Some(1),
            "{ready:?}"
        );
        ensure!(ready.message.contains("Generation 1 answers"), "{ready:?}");
        let progress = condition(self.progress).context("neither Reconciling nor Stalled")?;
        ensure!(
            progress.reason == self.reason && progress.observed_generation == newest,
            "{progress:?}"
        );
        says(&ready.message, self.says)?;
        says(&progress.message, self.says)?;
        // Ready is about the generation that answers.
        if self.condition != "Ready" {
            let failed = condition(self.condition).context("no such condition")?;
            let expected = ("False", self.reason, newest);
            let found = (&*failed.status, &*failed.reason, failed.observed_generation);
            ensure!(found == expected, "{failed:?}");
            says(&failed.message, self.says)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_missing_tag_leaves_the_old_generation_answering() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let missing = stage.registry.image(&repository_of(ns, "v2"), "v1");
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        heals(&stage.agent, ns, "hello").await?;
        let before = ns.get("Workload", "hello").await?;
        let behind = Behind {
            condition: "ImagesPulled",
            reason: "ImageNotFound",
            progress: "Reconciling",
            says: &["component \"app\"", &missing, "check name and tag"],
        };
        while_answering(&stage.agent, "hello.test", async {
            ns.apply_yaml(&stage.workload("hello", &missing)).await?;
            behind.shown(ns, "hello").await?;

            // Editing back, and nothing was started anew.
            ns.apply_yaml(&stage.workload("hello", &image)).await?;
            ready_generation(ns, "hello", 3).await?;
            let again = ns.get("Workload", "hello").await?;
            for part in ["components", "timings"] {
                let (was, is) = (&before.data["status"][part], &again.data["status"][part]);
                ensure!(was == is, "{part} was {was} and is {is}");
            }

            // Breaking it again, and pushing what was missing: rolled without an edit.
            ns.apply_yaml(&stage.workload("hello", &missing)).await?;
            ns.wait_for_condition(
                ("Workload", "hello"),
                ("ImagesPulled", "False"),
                Some("ImageNotFound"),
                START,
            )
            .await?;
            stage.push(ns, "v2", "v1").await?;
            ready_generation(ns, "hello", 4).await
        })
        .await?;
        let body = answers(&stage.agent, "hello.test", 200, HEAL).await?;
        ensure!(body.contains("v2"), "{body}");
        Ok(())
    })
    .await
}

/// Asks for what is not there yet.
fn probed(spec: &mut Value) {
    spec["components"][0]["livenessProbe"] = json!({"httpGet": {"path": "/", "port": 80}});
}

#[tokio::test]
async fn no_kind_of_failure_takes_the_old_generation_down() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let repository = repository_of(ns, "text");
        let text = Artifact::wasm(b"no wasm at all");
        let digest = stage.registry.push(&repository, "v1", &text).await?;
        let no_wasm = stage.registry.image(&repository, "v1");
        let pinned = format!("{}/{repository}@{digest}", stage.registry.host());
        let widgets = stage.push(ns, "needs-widgets", "v1").await?;
        let wanted = [widgets.as_str(), "acme:widgets/api@1.2.0"];
        let (bytes, digests) = ([no_wasm.as_str()], [digest.as_str()]);
        let path = |spec: &mut Value, value: Value| {
            spec["components"][0]["localResources"] = json!({"environment": value});
        };
        type Edit<'a> = Box<dyn Fn(&mut Value) + 'a>;
        let cases: Vec<(&str, Behind<'_>, Edit<'_>)> = vec![
            (
                "bytes",
                Behind {
                    condition: "Linked",
                    reason: "NotAComponent",
                    progress: "Stalled",
                    says: &bytes,
                },
                Box::new(|spec| spec["components"][0]["image"] = json!(no_wasm)),
            ),
            (
                "digest",
                Behind {
                    condition: "Linked",
                    reason: "NotAComponent",
                    progress: "Stalled",
                    says: &digests,
                },
                Box::new(|spec| spec["components"][0]["image"] = json!(pinned)),
            ),
            (
                "imports",
                Behind {
                    condition: "Linked",
                    reason: "ImportNotSatisfied",
                    progress: "Stalled",
                    says: &wanted,
                },
                Box::new(|spec| spec["components"][0]["image"] = json!(widgets)),
            ),
            (
                "field",
                Behind {
                    condition: "Accepted",
                    reason: "UnsupportedSpec",
                    progress: "Stalled",
                    says: &["spec.components[0].livenessProbe"],
                },
                Box::new(probed),
            ),
            (
                "config",
                Behind {
                    condition: "ConfigResolved",
                    reason: "ReferenceNotFound",
                    progress: "Reconciling",
                    says: &["settings does not exist"],
                },
                Box::new(|spec| path(spec, json!({"configFrom": [{"name": "settings"}]}))),
            ),
            (
                "secret",
                Behind {
                    condition: "ImagesPulled",
                    reason: "ReferenceNotFound",
                    progress: "Reconciling",
                    says: &["nowhere: not found"],
                },
                // Another image, since what runs needs no secret to go on running.
                Box::new(|spec| {
                    spec["components"][0]["imagePullSecret"] = json!({"name": "nowhere"});
                    spec["components"][0]["image"] = json!(no_wasm);
                }),
            ),
        ];
        for (name, ..) in &cases {
            ns.apply_yaml(&stage.workload(name, &image)).await?;
            heals(&stage.agent, ns, name).await?;
        }
        for (name, behind, edit) in &cases {
            while_answering(&stage.agent, &format!("{name}.test"), async {
                ns.apply(manifest(&stage.agent, name, &image, edit)?)
                    .await?;
                behind
                    .shown(ns, name)
                    .await
                    .with_context(|| (*name).to_owned())?;
                ns.apply_yaml(&stage.workload(name, &image)).await?;
                ready_generation(ns, name, 3).await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// Waits until this generation answers, with nothing left of a failure.
pub(super) async fn ready_generation(
    namespace: &TestNamespace,
    name: &str,
    generation: i64,
) -> Result<()> {
    let is_ready = |object: &DynamicObject| {
        let ready = objects::condition(object, "Ready");
        let left = ["Reconciling", "Stalled"].map(|kind| objects::condition(object, kind));
        ready.is_some_and(|c| c.status == "True" && c.observed_generation == Some(generation))
            && left.iter().all(Option::is_none)
    };
    namespace
        .wait_for("Workload", name, is_ready, HEAL)
        .await
        .map(drop)
}
