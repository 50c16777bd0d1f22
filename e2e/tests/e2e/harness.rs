//! The test bed does what the other tests take for granted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use washlet_e2e::{
    ALICE, Artifact, BOB, Cluster, ControlPlane, Registry, TestNamespace, objects,
    registry::{Platform, media_type},
    with_namespace,
};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_namespace_takes_objects_and_has_service_accounts() -> Result<()> {
    with_namespace(async |namespace| {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: one}\nstringData: {a: b}\n";
        let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {c: d}\n";
        let applied = namespace
            .apply_yaml(&format!("{secret}---\n{config}"))
            .await?;
        ensure!(applied.len() == 2);
        let listed = namespace
            .kubectl(&["get", "configmap,secret", "-o", "name"])
            .await?;
        ensure!(
            listed.contains("configmap/two") && listed.contains("secret/one"),
            "{listed}"
        );
        namespace
            .apply_pull_secret("login", "localhost:5001/alice", ALICE)
            .await?;
        let login = namespace.get("Secret", "login").await?;
        ensure!(
            login.data["type"] == "kubernetes.io/dockerconfigjson",
            "{:?}",
            login.data
        );
        // The controller manager makes it.
        namespace
            .wait_for("ServiceAccount", "default", |_| true, SOON)
            .await?;
        namespace.delete("Secret", "one").await?;
        namespace.wait_gone("Secret", "one", SOON).await
    })
    .await
}

#[tokio::test]
async fn a_namespace_goes_with_its_test() -> Result<()> {
    let namespace = TestNamespace::new().await?;
    let name = namespace.name().to_owned();
    drop(namespace);
    let api = objects::api(&Cluster::shared().await?.client().await?, "", "Namespace")?;
    let left = api.get_opt(&name).await?;
    ensure!(left.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()));
    Ok(())
}

#[tokio::test]
async fn the_api_server_goes_away_and_comes_back_with_its_data() -> Result<()> {
    let mut control_plane = ControlPlane::start().await?;
    let namespace = TestNamespace::in_cluster(control_plane.cluster()).await?;
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\n";
    namespace
        .run(async |namespace| {
            namespace.apply_yaml(config).await?;
            control_plane.stop_api_server();
            let while_stopped = namespace.get("ConfigMap", "kept").await;
            ensure!(while_stopped.is_err(), "it answers though it is stopped");
            control_plane.start_api_server().await?;
            namespace
                .wait_for("ConfigMap", "kept", |_| true, SOON)
                .await
                .map(drop)
        })
        .await
}

#[tokio::test]
async fn a_registry_by_password_refuses_strangers_and_wrong_passwords() -> Result<()> {
    let registry = Registry::shared().await?;
    let digest = registry
        .push("alice/refuses", "v1", &Artifact::wasm(b"\0asm"))
        .await?;
    let path = format!("alice/refuses/manifests/{digest}");

    let anonymous = registry.get(&path, None).await?;
    ensure!(anonymous.status() == 401, "{}", anonymous.status());
    let challenge = anonymous
        .headers()
        .get("www-authenticate")
        .context("no challenge")?;
    ensure!(challenge.to_str()?.starts_with("Basic "), "{challenge:?}");
    let wrong = washlet_e2e::User {
        password: "wrong",
        ..ALICE
    };
    ensure!(registry.get(&path, Some(wrong)).await?.status() == 401);
    ensure!(registry.get(&path, Some(BOB)).await?.status() == 200);
    ensure!(
        registry.pulls("alice/refuses")? == 1,
        "{:?}",
        registry.requests()?
    );
    Ok(())
}

#[tokio::test]
async fn a_registry_by_token_keeps_users_to_their_own_repositories() -> Result<()> {
    let registry = Registry::token().await?;
    registry
        .push("alice/app", "v1", &Artifact::wasm(b"\0asm"))
        .await?;
    registry
        .push("bob/app", "v1", &Artifact::wasm(b"\0asm"))
        .await?;

    let anonymous = registry.get("alice/app/manifests/v1", None).await?;
    ensure!(anonymous.status() == 401, "{}", anonymous.status());
    let challenge = anonymous
        .headers()
        .get("www-authenticate")
        .context("no challenge")?
        .to_str()?
        .to_owned();
    ensure!(
        challenge.starts_with("Bearer ")
            && challenge.contains("scope=\"repository:alice/app:pull\""),
        "{challenge}"
    );

    ensure!(
        registry
            .get("alice/app/manifests/v1", Some(ALICE))
            .await?
            .status()
            == 200
    );
    ensure!(
        registry
            .get("alice/app/manifests/v1", Some(BOB))
            .await?
            .status()
            == 401
    );
    ensure!(
        registry
            .get("bob/app/manifests/v1", Some(BOB))
            .await?
            .status()
            == 200
    );
    let wrong = washlet_e2e::User {
        password: "wrong",
        ..ALICE
    };
    ensure!(
        registry
            .get("alice/app/manifests/v1", Some(wrong))
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test]
async fn what_is_pushed_comes_back_as_it_was_even_what_is_broken() -> Result<()> {
    let registry = Registry::shared().await?;
    let text = Artifact::new(
        ("application/json", &serde_json::json!({})),
        ("text/plain", b"no wasm at all"),
    );
    let digest = registry.push("bob/text", "v1", &text).await?;
    let manifest = registry.get("bob/text/manifests/v1", Some(ALICE)).await?;
    ensure!(
        manifest
            .headers()
            .get("docker-content-digest")
            .context("no digest")?
            .to_str()?
            == digest
    );
    ensure!(manifest.bytes().await? == text.manifest());
    let layer = washlet_e2e::registry::digest(b"no wasm at all");
    let blob = registry
        .get(&format!("bob/text/blobs/{layer}"), Some(ALICE))
        .await?;
    ensure!(blob.bytes().await? == b"no wasm at all"[..]);

    let (wasm, linux) = (("wasip2", "wasm"), ("linux", "amd64"));
    let platform = |(os, architecture)| Platform { os, architecture };
    let parts = [
        (platform(linux), text),
        (platform(wasm), Artifact::legacy_wasm(b"\0asm")),
    ];
    registry.push_index("alice/index", "v1", &parts).await?;
    let index = registry
        .get("alice/index/manifests/v1", Some(ALICE))
        .await?;
    ensure!(
        index
            .headers()
            .get("content-type")
            .context("no type")?
            .to_str()?
            == media_type::INDEX
    );
    Ok(())
}

#[tokio::test]
async fn a_registry_goes_away_and_comes_back_with_its_data() -> Result<()> {
    let mut registry = Registry::htpasswd().await?;
    registry
        .push("alice/kept", "v1", &Artifact::wasm(b"\0asm"))
        .await?;
    let hosts =
        std::fs::read_to_string(registry.certs_d().join(registry.host()).join("hosts.toml"))?;
    ensure!(
        hosts.contains(&format!("server = \"https://{}\"", registry.host())),
        "{hosts}"
    );

    registry.stop();
    ensure!(
        registry
            .get("alice/kept/manifests/v1", Some(ALICE))
            .await
            .is_err(),
        "it answers though it is stopped"
    );
    registry.start().await?;
    ensure!(
        registry
            .get("alice/kept/manifests/v1", Some(ALICE))
            .await?
            .status()
            == 200
    );
    Ok(())
}
