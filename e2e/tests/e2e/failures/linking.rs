//! Bytes that are no component, and components that do not fit the host.

use anyhow::Result;
use washlet_e2e::{Artifact, with_namespace};

use super::{Failure, heals, heals_untouched};
use crate::stage::{Stage, guest, repository_of};

/// An empty core module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[tokio::test]
async fn bytes_that_are_no_component_heal_by_a_new_push_or_an_edit() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = |name: &str| stage.registry.image(&repository_of(ns, name), "v1");
        let cases: [(&str, &[u8], [&str; 2]); 3] = [
            (
                "text",
                b"#!/bin/sh\necho hello\n",
                ["not WebAssembly", "#!/bin/sh"],
            ),
            (
                "module",
                MODULE,
                ["core module, not a component", "wasm-tools component new"],
            ),
            ("empty", b"", ["it is empty", "component"]),
        ];
        for (name, bytes, words) in cases {
            let repository = repository_of(ns, name);
            stage
                .registry
                .push(&repository, "v1", &Artifact::wasm(bytes))
                .await?;
            ns.apply_yaml(&stage.workload(name, &image(name))).await?;
            Failure {
                condition: "Linked",
                reason: "NotAComponent",
                says: &["component \"app\"", &image(name), words[0], words[1]],
            }
            .shown(ns, name)
            .await?;
        }
        for name in ["text", "module"] {
            let good = Artifact::wasm(&guest("v1")?);
            stage
                .registry
                .push(&repository_of(ns, name), "v1", &good)
                .await?;
            heals_untouched(&stage.agent, ns, name).await?;
        }
        let other = stage.push(ns, "v2", "v1").await?;
        ns.apply_yaml(&stage.workload("empty", &other)).await?;
        heals(&stage.agent, ns, "empty").await
    })
    .await
}

/// The preamble is right, and what follows is cut.
#[tokio::test]
async fn a_torn_component_says_what_wasmtime_says() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let whole = guest("v1")?;
        let half = whole.get(..whole.len() / 2).unwrap_or_default();
        let repository = repository_of(ns, "v1");
        let image = stage.registry.image(&repository, "v1");
        stage
            .registry
            .push(&repository, "v1", &Artifact::wasm(half))
            .await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        Failure {
            condition: "Linked",
            reason: "CompileFailed",
            says: &[
                "component \"app\"",
                &image,
                "Wasmtime cannot compile it",
                "out of bounds",
            ],
        }
        .shown(ns, "hello")
        .await?;

        stage
            .registry
            .push(&repository, "v1", &Artifact::wasm(&whole))
            .await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn an_interface_that_nobody_offers_is_named_with_the_nearest_offer() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let cases = [
            (
                "needs-widgets",
                ["acme:widgets/api@1.2.0", "offers nothing of acme:widgets"],
            ),
            (
                "needs-config-future",
                [
                    "wasi:config/store@0.9.0",
                    "the nearest offer is wasi:config/store@0.",
                ],
            ),
        ];
        for (name, words) in cases {
            let image = stage.push(ns, name, "v1").await?;
            ns.apply_yaml(&stage.workload(name, &image)).await?;
            Failure {
                condition: "Linked",
                reason: "ImportNotSatisfied",
                says: &[
                    "component \"app\"",
                    &image,
                    words[0],
                    words[1],
                    "build it against",
                ],
            }
            .shown(ns, name)
            .await?;
        }
        for (name, _) in cases {
            let good = Artifact::wasm(&guest("v1")?);
            stage
                .registry
                .push(&repository_of(ns, name), "v1", &good)
                .await?;
            heals_untouched(&stage.agent, ns, name).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_that_cannot_run_is_told_what_it_lacks() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&with_service(&stage, &image, "")).await?;
        let failure = Failure {
            condition: "Linked",
            reason: "BindFailed",
            says: &[
                "component \"service\"",
                &image,
                "does not export wasi:cli/run",
                "wasi:http/incoming-handler",
            ],
        };
        failure.shown(ns, "hello").await?;
        ns.delete("Workload", "hello").await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        heals(&stage.agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn a_job_beside_a_service_is_refused() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "run-only", "v1").await?;
        let job = format!(
            "  components:\n  - {{ name: app, image: '{image}', imagePullSecret: {{ name: login }} }}\n"
        );
        ns.apply_yaml(&with_service(&stage, &image, &job)).await?;
        let failure = Failure {
            condition: "Linked",
            reason: "UnsupportedSpec",
            says: &[
                "component \"app\"",
                "wasi:cli/run",
                "make it a workload of its own",
            ],
        };
        failure.shown(ns, "hello").await.map(drop)
    })
    .await
}

/// A workload with a service, and these other fields.
fn with_service(stage: &Stage, image: &str, more: &str) -> String {
    format!(
        "apiVersion: runtime.wasmcloud.dev/v1alpha1
kind: Workload
metadata:
  name: hello
spec:
  hostId: {}
  service: {{ image: '{image}', imagePullSecret: {{ name: login }} }}
{more}",
        stage.agent.node()
    )
}
