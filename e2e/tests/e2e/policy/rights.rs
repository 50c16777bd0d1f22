//! Agents with fewer rights than the default: some namespaces' Secrets, some namespaces.

use anyhow::{Result, ensure};
use washlet_e2e::{
    ALICE, Agent, AgentOptions, Artifact, Controller, ControllerOptions, Registry, TestNamespace,
    chart, with_namespace,
};

use crate::stage::{START, guest, ready, repository_of, workload};

#[tokio::test]
async fn an_unlisted_namespace_is_forbidden_and_a_listed_one_served() -> Result<()> {
    with_namespace(async |ns| {
        let listed = TestNamespace::in_cluster(ns.cluster()).await?;
        let set = format!("secrets.namespaces={{{}}}", listed.name());
        let rights = rights(ns, &["--set", &set]).await?;
        let agent = agent_under(ns, &[ns, &listed], rights).await?;
        let registry = Registry::shared().await?;
        let image = push(ns, registry).await?;
        for namespace in [ns, &listed] {
            namespace
                .apply_pull_secret("login", &registry.host(), ALICE)
                .await?;
            let name = if namespace.name() == ns.name() {
                "unlisted"
            } else {
                "listed"
            };
            namespace
                .apply_yaml(&workload(agent.node(), name, &image))
                .await?;
        }
        ready(&listed, "listed").await?;
        let wanted = ("ConfigResolved", "False");
        let shown = ns
            .wait_for_condition(("Workload", "unlisted"), wanted, Some("Forbidden"), START)
            .await?;
        let secret = format!("get Secret {}/login", ns.name());
        ensure!(shown.message.contains(&secret), "{}", shown.message);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_works_with_the_rights_of_namespaced_mode() -> Result<()> {
    with_namespace(async |ns| {
        let watched = TestNamespace::in_cluster(ns.cluster()).await?;
        let set = format!("watchNamespaces={{{}}}", watched.name());
        let rights = rights(ns, &["--set", &set]).await?;
        ensure!(
            !rights.contains("kind: Cluster") && !rights.contains("ValidatingAdmissionPolicy"),
            "{rights}"
        );
        let mut agent = agent_under(ns, &[&watched], rights).await?;
        agent.wait_ready(START).await?;
        let registry = Registry::shared().await?;
        let image = push(ns, registry).await?;
        watched
            .apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        watched
            .apply_yaml(&workload(agent.node(), "hello", &image))
            .await?;
        ready(&watched, "hello").await?;
        let (status, _) = agent.get("hello.test", "/").await?;
        ensure!(status == 200, "{status}");
        // What it has to do without: its Node, which would own its Host.
        let host = ns.get("Host", agent.node()).await?;
        ensure!(
            host.metadata.owner_references.is_none(),
            "{:?}",
            host.metadata
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_controller_places_workloads_with_the_rights_of_namespaced_mode() -> Result<()> {
    with_namespace(async |ns| {
        let watched = TestNamespace::in_cluster(ns.cluster()).await?;
        let set = format!("watchNamespaces={{{}}}", watched.name());
        let rights = rights(ns, &["--set", &set]).await?;
        ensure!(!rights.contains("kind: Cluster"), "{rights}");
        let mut agent = agent_under(ns, &[&watched], rights.clone()).await?;
        let options = ControllerOptions {
            namespaces: Some(vec![watched.name().to_owned()]),
            rights: Some(rights),
        };
        let mut controller = Controller::start_with(ns, options).await?;
        let account = format!("system:serviceaccount:{}:washlet-controller", ns.name());
        for (resource, allowed) in [
            ("nodes", false),
            ("hosts.runtime.wasmcloud.dev", true),
            ("secrets", false),
        ] {
            let args = ["auth", "can-i", "list", resource, "--as", &account];
            // "no" is a failure of the command.
            let may = ns.kubectl(&args).await.is_ok();
            ensure!(may == allowed, "list {resource}: {may}");
        }
        agent.wait_ready(START).await?;
        controller.wait_leading(START).await?;

        let registry = Registry::shared().await?;
        let image = push(ns, registry).await?;
        watched
            .apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let anywhere = crate::controller::workload("free", &image, |_| {});
        watched.apply(anywhere).await?;
        ready(&watched, "free").await?;
        let placed = watched.get("Workload", "free").await?;
        ensure!(
            crate::controller::host_of(&placed) == Some(agent.node()),
            "{:?}",
            placed.data["status"]
        );
        let (status, _) = agent.get("free.test", "/").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

/// The agents' and controllers' rights as the chart has them with these arguments.
async fn rights(namespace: &TestNamespace, args: &[&str]) -> Result<String> {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let rendered = chart::rendered(namespace, &args).await?;
    let of_the_release = |document: &&str| {
        document.contains("name: washlet-")
            && [
                "ServiceAccount",
                "Role",
                "ClusterRole",
                "ValidatingAdmission",
            ]
            .iter()
            .any(|kind| document.contains(&format!("\nkind: {kind}")))
    };
    Ok(rendered
        .split("\n---")
        .filter(of_the_release)
        .collect::<Vec<_>>()
        .join("\n---"))
}

async fn agent_under(
    namespace: &TestNamespace,
    watched: &[&TestNamespace],
    rights: String,
) -> Result<Agent> {
    let options = AgentOptions {
        namespaces: Some(watched.iter().map(|ns| ns.name().to_owned()).collect()),
        certs_d: vec![Registry::shared().await?.certs_d()],
        rights: Some(rights),
        ..AgentOptions::default()
    };
    Agent::start(namespace, options).await
}

async fn push(namespace: &TestNamespace, registry: &Registry) -> Result<String> {
    let repository = repository_of(namespace, "v1");
    registry
        .push(&repository, "v1", &Artifact::wasm(&guest("v1")?))
        .await?;
    Ok(registry.image(&repository, "v1"))
}
