//! Each way in which a registry can fail a pull, and what the user is told.

use serde_json::json;

use super::*;
use crate::{
    fault::{Class, Fault, Stage},
    spec::Digest,
};

/// The fault of pulling `app:1` under a twist.
async fn fault(part: &str, twist: Twist) -> Fault {
    fault_within(part, twist, Duration::from_secs(30)).await
}

async fn fault_within(part: &str, twist: Twist, patience: Duration) -> Fault {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.twist(part, twist);
    let kit = Kit::with(&[&registry], |config| {
        (config.header_timeout, config.stall_timeout) = (patience, patience);
    });
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("a fault");
    let fault = Fault::from(error);
    assert_eq!(fault.stage, Stage::Fetch);
    assert!(
        fault.message.contains(&registry.address.to_string()),
        "names the registry: {fault}"
    );
    // Nothing of it is kept, and it heals by itself.
    assert!(kit.files("blobs/sha256").is_empty());
    registry.untwist();
    assert_eq!(
        content(&kit.pull(&image(&registry, "app:1")).await.expect("healed")),
        COMPONENT
    );
    fault
}

#[tokio::test]
async fn statuses_have_reasons() {
    let retry = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    let told = r#"{"errors":[{"code":"DENIED","message":"not today"}]}"#;
    let wait = |seconds| Class::Wait(Duration::from_secs(seconds));
    let cases = [
        (401, vec![], Reason::Unauthorized, Class::Retry, "401"),
        (403, vec![], Reason::Unauthorized, Class::Retry, "not today"),
        (
            404,
            vec![],
            Reason::ImageNotFound,
            Class::Retry,
            "check name and tag",
        ),
        (429, retry("7"), Reason::RegistryUnavailable, wait(7), "429"),
        (429, vec![], Reason::RegistryUnavailable, wait(60), "429"),
        (
            500,
            vec![],
            Reason::RegistryUnavailable,
            Class::Retry,
            "500",
        ),
        (503, retry("3"), Reason::RegistryUnavailable, wait(3), "503"),
        (418, vec![], Reason::ErrImagePull, Class::Retry, "418"),
    ];
    for (code, headers, reason, class, part) in cases {
        for path in ["manifests", "/blobs/"] {
            let twist = Twist::Status(code, headers.clone(), told.to_owned());
            let fault = fault(path, twist).await;
            assert_eq!(
                (fault.reason, fault.class),
                (reason, class),
                "{path}: {fault}"
            );
            assert!(fault.message.contains(part), "{fault}");
        }
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_kept() {
    let longer = [COMPONENT, b"!"].concat();
    let other = vec![b'x'; COMPONENT.len()];
    for twist in [
        Twist::Body(longer),
        Twist::Body(other),
        Twist::Body(b"short".to_vec()),
        Twist::Cut(5),
    ] {
        let fault = fault("/blobs/", twist.clone()).await;
        assert_eq!(
            (fault.reason, fault.class),
            (Reason::DigestMismatch, Class::Retry),
            "{twist:?}: {fault}"
        );
        assert!(
            fault.message.contains(Digest::of(COMPONENT).as_str()),
            "{fault}"
        );
    }
    // A manifest that is not the one whose digest the registry claims.
    let fault = fault("manifests", Twist::Body(b"{}".to_vec())).await;
    assert_eq!(fault.reason, Reason::DigestMismatch, "{fault}");
}

#[tokio::test]
async fn wrong_bytes_get_one_clean_retry() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.twist("/blobs/", Twist::Body(b"other".to_vec()));
    let kit = Kit::new(&[&registry]);
    kit.pull(&image(&registry, "app:1"))
        .await
        .expect_err("a mismatch");
    assert_eq!(registry.count("/blobs/"), 2);
}

#[tokio::test]
async fn a_pinned_manifest_has_to_be_that_manifest() {
    let registry = Registry::start().await;
    let digest = registry.image("app", "1", COMPONENT);
    registry.image("app", "other", b"other");
    let path = format!("/v2/app/manifests/{digest}");
    registry.put(
        path,
        br#"{"schemaVersion":2,"layers":[]}"#.to_vec(),
        "application/json",
    );
    let kit = Kit::new(&[&registry]);
    let error = kit
        .pull(&image(&registry, &format!("app:1@{digest}")))
        .await
        .expect_err("a lie");
    assert_eq!(error.reason(), Reason::DigestMismatch, "{error}");
    assert_eq!(registry.count("manifests/1"), 0, "the tag is not asked for");
}

#[tokio::test]
async fn silence_is_unavailability() {
    for (part, twist) in [
        ("manifests", Twist::Mute),
        ("/blobs/", Twist::Mute),
        ("/blobs/", Twist::Stall(4)),
    ] {
        let fault = fault_within(part, twist, Duration::from_millis(500)).await;
        assert_eq!(
            (fault.reason, fault.class),
            (Reason::RegistryUnavailable, Class::Retry),
            "{fault}"
        );
        assert!(fault.message.contains("sent nothing for 0.5 s"), "{fault}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_named_with_the_cause() {
    let registry = Registry::start().await;
    let kit = Kit::new(&[&registry]);
    let image = image(&registry, "app:1");
    drop(registry);
    // The listener closes when its task has been dropped.
    while tokio::net::TcpStream::connect(image.reference.registry())
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    let error = kit.pull(&image).await.expect_err("nobody there");
    assert_eq!(
        (error.reason(), error.class()),
        (Reason::RegistryUnavailable, Class::Retry)
    );
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn artifacts_without_one_component_say_what_they_hold() {
    let registry = Registry::start().await;
    let kit = Kit::new(&[&registry]);
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    registry.layers("app", "tar", &[(tar, b"x")]);
    registry.layers(
        "app",
        "two",
        &[("application/wasm", b"x"), ("application/wasm", b"y")],
    );
    let entry = |architecture: &str| json!({ "digest": Digest::of(b"").as_str(), "size": 1, "platform": { "os": "linux", "architecture": architecture } });
    registry.manifest(
        "app",
        "index",
        &json!({ "schemaVersion": 2, "manifests": [entry("amd64"), entry("arm64")] }),
    );
    for (tag, part) in [
        ("tar", tar),
        ("two", "2 WebAssembly layer"),
        ("index", "linux/arm64"),
    ] {
        let error = kit
            .pull(&image(&registry, &format!("app:{tag}")))
            .await
            .expect_err(tag);
        assert_eq!(
            (error.reason(), error.class()),
            (Reason::UnsupportedMediaType, Class::Retry),
            "{error}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
    registry.layers(
        "app",
        "legacy",
        &[("application/vnd.wasm.content.layer.v1+wasm", COMPONENT)],
    );
    kit.pull(&image(&registry, "app:legacy"))
        .await
        .expect("a component");
}

#[tokio::test]
async fn sizes_are_limited() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::with(&[&registry], |config| config.max_size = 8);
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("too large");
    assert_eq!(error.reason(), Reason::ErrImagePull);
    assert!(error.to_string().contains("limit of 8 bytes"), "{error}");
    assert_eq!(registry.count("/blobs/"), 0);
    registry.twist("manifests", Twist::Body(vec![b' '; 5 << 20]));
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("too large");
    assert!(error.to_string().contains("a manifest of"), "{error}");
}

#[tokio::test]
async fn blob_storage_gets_no_token() {
    let (storage, registry) = (Registry::start().await, Registry::start().await);
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    registry.user("u", "p");
    storage.put(
        "/signed".to_owned(),
        COMPONENT.to_vec(),
        "application/octet-stream",
    );
    let location = format!("http://localhost:{}/signed", storage.address.port());
    registry.twist(
        "/blobs/",
        Twist::Status(307, vec![("location", location)], String::new()),
    );
    let kit = Kit::new(&[&registry]);
    kit.pull(&with_login(image(&registry, "app:1"), "a", "u", "p"))
        .await
        .expect("a component");
    assert_eq!(storage.log()[0].authorization, None);
}
