//! What the registry has, or has not, or whether there is one.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use washlet_e2e::{
    ALICE, Agent, AgentOptions, Artifact, Registry, eventually, registry::media_type, run_dir,
    with_namespace,
};

use super::{Failure, heals, heals_untouched, manifest};
use crate::stage::{START, Stage, fails, guest, repository_of, start_agent, workload};

#[tokio::test]
async fn a_missing_image_is_waited_for() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        // A tag that is missing in a repository that is there, and a whole repository that is missing.
        stage.push(ns, "v1", "other").await?;
        let tag = stage.registry.image(&repository_of(ns, "v1"), "v1");
        let repository = stage.registry.image(&repository_of(ns, "v2"), "v1");
        ns.apply_yaml(&stage.workload("tag", &tag)).await?;
        ns.apply_yaml(&stage.workload("repository", &repository))
            .await?;
        let secret = format!("secret {}/login: 404", ns.name());
        for (name, image) in [("tag", &tag), ("repository", &repository)] {
            Failure {
                condition: "ImagesPulled",
                reason: "ImageNotFound",
                says: &["component \"app\"", image, &secret, "check name and tag"],
            }
            .shown(ns, name)
            .await?;
        }

        stage.push(ns, "v1", "v1").await?;
        stage.push(ns, "v2", "v1").await?;
        heals_untouched(&stage.agent, ns, "tag").await?;
        heals_untouched(&stage.agent, ns, "repository").await
    })
    .await
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for() -> Result<()> {
    with_namespace(async |ns| {
        let mut registry = Registry::htpasswd().await?;
        let repository = repository_of(ns, "v1");
        let artifact = Artifact::wasm(&guest("v1")?);
        registry.push(&repository, "v1", &artifact).await?;
        let image = registry.image(&repository, "v1");
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let agent = start_agent(ns, &registry).await?;

        registry.stop();
        ns.apply_yaml(&workload(agent.node(), "hello", &image))
            .await?;
        Failure {
            condition: "ImagesPulled",
            reason: "RegistryUnavailable",
            says: &[
                "component \"app\"",
                &image,
                &registry.host(),
                "cannot be reached",
                "refused",
            ],
        }
        .shown(ns, "hello")
        .await?;

        registry.start().await?;
        heals_untouched(&agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn a_registry_with_a_strange_certificate_is_not_trusted_until_told_to() -> Result<()> {
    with_namespace(async |ns| {
        let registry = Registry::shared().await?;
        let repository = repository_of(ns, "v1");
        let artifact = Artifact::wasm(&guest("v1")?);
        registry.push(&repository, "v1", &artifact).await?;
        let image = registry.image(&repository, "v1");
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let certs = run_dir::subdir("certs")?;
        let options = AgentOptions {
            args: vec![format!("--registry-certs-dir={}", certs.display())],
            ..AgentOptions::default()
        };
        let mut agent = Agent::start(ns, options).await?;
        agent.wait_ready(START).await?;

        ns.apply_yaml(&workload(agent.node(), "hello", &image))
            .await?;
        let file = format!("{}/hosts.toml", registry.host());
        Failure {
            condition: "ImagesPulled",
            reason: "RegistryUnavailable",
            says: &[
                "component \"app\"",
                &image,
                "certificate",
                "set `ca`",
                &file,
            ],
        }
        .shown(ns, "hello")
        .await?;

        let (from, to) = (
            registry.certs_d().join(registry.host()),
            certs.join(registry.host()),
        );
        fs::create_dir(&to).context("making a folder")?;
        for file in ["ca.crt", "hosts.toml"] {
            fs::copy(from.join(file), to.join(file)).context("copying")?;
        }
        heals_untouched(&agent, ns, "hello").await
    })
    .await
}

#[tokio::test]
async fn an_artifact_without_one_component_names_what_it_has() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let text = Artifact::new(
            ("application/vnd.oci.empty.v1+json", &json!({})),
            ("text/plain", b"no wasm at all"),
        );
        let mut two = Artifact::wasm(&guest("v1")?);
        two.layers.extend(Artifact::wasm(&guest("v2")?).layers);
        let cases = [("text", text, "text/plain"), ("two", two, media_type::WASM)];
        let image = |name: &str| stage.registry.image(&repository_of(ns, name), "v1");
        for (name, artifact, word) in &cases {
            let repository = repository_of(ns, name);
            stage.registry.push(&repository, "v1", artifact).await?;
            let image = image(name);
            ns.apply_yaml(&stage.workload(name, &image)).await?;
            Failure {
                condition: "ImagesPulled",
                reason: "UnsupportedMediaType",
                says: &[
                    "component \"app\"",
                    &image,
                    word,
                    "one layer of type `application/wasm`",
                ],
            }
            .shown(ns, name)
            .await?;
        }
        for (name, ..) in &cases {
            let good = Artifact::wasm(&guest("v1")?);
            let repository = repository_of(ns, name);
            stage.registry.push(&repository, "v1", &good).await?;
            heals_untouched(&stage.agent, ns, name).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_that_must_not_be_pulled_is_not() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        let never = |spec: &mut serde_json::Value| {
            spec["components"][0]["imagePullPolicy"] = json!("Never");
        };
        ns.apply(manifest(&stage.agent, "hello", &image, never)?)
            .await?;
        Failure {
            condition: "ImagesPulled",
            reason: "ErrImageNeverPull",
            says: &[
                "component \"app\"",
                &image,
                "not on this node",
                "imagePullPolicy",
            ],
        }
        .shown(ns, "hello")
        .await?;
        ensure!(stage.registry.pulls(&repository_of(ns, "v1"))? == 0);

        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        heals(&stage.agent, ns, "hello").await
    })
    .await
}

/// Tried again and again, but neither status nor Events tell it more than once.
#[tokio::test]
async fn a_failure_that_lasts_is_told_once() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let repository = repository_of(ns, "v1");
        let image = stage.registry.image(&repository, "v1");
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        fails(ns, "hello", "ImageNotFound").await?;
        let before = ns.get("Workload", "hello").await?;
        let tries = || -> Result<usize> {
            let requests = stage.registry.requests()?;
            Ok(requests
                .iter()
                .filter(|r| r.path.contains(&repository))
                .count())
        };
        let first = tries()?;
        eventually("three more tries", START, async || {
            let now = tries()?;
            Ok(if now >= first + 3 { Ok(()) } else { Err(now) })
        })
        .await?;
        let after = ns.get("Workload", "hello").await?;
        ensure!(
            before.metadata.resource_version == after.metadata.resource_version,
            "{} became {}",
            before.data["status"],
            after.data["status"]
        );
        let events = ns.events_for(&after.metadata.uid.context("a uid")?).await?;
        ensure!(events.len() == 1, "{events:?}");
        Ok(())
    })
    .await
}
