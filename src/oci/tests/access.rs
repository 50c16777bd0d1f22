//! Who may have what: logins, fallbacks, and what one tenant's pull gives to another (nothing).

use super::*;
use crate::spec::Digest;

#[tokio::test]
async fn every_kind_of_login_works() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.user("u", "p:with:colons");
    let plain = || image(&registry, "app:1");
    let token = |credential| {
        let mut image = plain();
        let origin = "secret ns/token".to_owned();
        image.credentials.push(RegistryCredential {
            scope: None,
            credential,
            origin,
        });
        image
    };
    let cases = [
        (
            Demand::Basic,
            with_login(plain(), "a", "u", "p:with:colons"),
        ),
        (
            Demand::Token,
            with_login(plain(), "a", "u", "p:with:colons"),
        ),
        (
            Demand::Token,
            token(Credential::Identity(Secret::new("refresh"))),
        ),
        (
            Demand::Token,
            token(Credential::Bearer(Secret::new("good"))),
        ),
        (Demand::PublicToken, plain()),
    ];
    for (demand, image) in cases {
        registry.demand(demand);
        let kit = Kit::new(&[&registry]);
        let fetched = kit
            .pull(&image)
            .await
            .unwrap_or_else(|e| panic!("{demand:?}: {e}"));
        assert_eq!(content(&fetched), COMPONENT);
        let tokens = registry
            .log()
            .iter()
            .filter(|s| s.target.starts_with("/token"))
            .count();
        assert!(tokens <= 1, "a token serves manifest and blob");
    }
}

#[tokio::test]
async fn credentials_are_tried_until_one_works() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.user("u", "right");
    for demand in [Demand::Basic, Demand::Token] {
        registry.demand(demand);
        let kit = Kit::new(&[&registry]);
        let image = with_login(image(&registry, "app:1"), "bad", "u", "wrong");
        kit.pull(&with_login(image, "good", "u", "right"))
            .await
            .expect("the second one");
    }
}

#[tokio::test]
async fn bad_credentials_are_named_and_nothing_is_tried_without_them() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    // Strangers would get it.
    registry.demand(Demand::PublicToken);
    let kit = Kit::new(&[&registry]);
    let image = with_login(image(&registry, "app:1"), "one", "u", "HUSH");
    let image = with_login(image, "two", "v", "HUSH");
    let error = kit.pull(&image).await.expect_err("two wrong passwords");
    assert_eq!(error.reason(), Reason::Unauthorized);
    let text = error.to_string();
    assert!(
        text.contains("secret ns/one: 401, secret ns/two: 401"),
        "{text}"
    );
    assert!(
        !text.contains("HUSH") && !format!("{error:?}").contains("HUSH"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_password_does_not_come_back_in_a_message() {
    let registry = Registry::start().await;
    registry.demand(Demand::Basic);
    registry.user("u", "HUSH");
    let echo = r#"{"errors":[{"code":"DENIED","message":"HUSH is not enough"}]}"#;
    registry.twist("manifests", Twist::Status(403, Vec::new(), echo.to_owned()));
    let kit = Kit::new(&[&registry]);
    let error = kit
        .pull(&with_login(image(&registry, "app:1"), "a", "u", "HUSH"))
        .await
        .expect_err("refused");
    assert!(
        error.to_string().contains("403") && !error.to_string().contains("HUSH"),
        "{error}"
    );
}

#[tokio::test]
async fn the_message_says_which_secret_is_missing() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    let kit = Kit::new(&[&registry]);
    let none = image(&registry, "app:1");
    let error = kit.pull(&none).await.expect_err("a login is needed");
    assert_eq!(error.reason(), Reason::Unauthorized);
    assert!(
        error.to_string().contains("names no pull secret"),
        "{error}"
    );

    let mut elsewhere = with_login(none.clone(), "ghcr", "u", "p");
    elsewhere.credentials[0].scope = Some("ghcr.io".to_owned());
    let error = kit.pull(&elsewhere).await.expect_err("no match");
    assert!(
        error.to_string().contains("secret ns/ghcr is for ghcr.io"),
        "{error}"
    );

    let mut missing = none.clone();
    missing
        .unusable_secrets
        .push("secret ns/lost: not found".to_owned());
    let error = kit.pull(&missing).await.expect_err("no secret");
    assert_eq!(error.reason(), Reason::ReferenceNotFound);
    assert!(
        error.to_string().contains("secret ns/lost: not found"),
        "{error}"
    );

    // A registry that hides what is private from strangers.
    registry.demand(Demand::Nothing);
    registry.twist("manifests", status(404));
    assert_eq!(
        kit.pull(&missing).await.expect_err("hidden").reason(),
        Reason::ReferenceNotFound
    );
    assert_eq!(
        kit.pull(&none).await.expect_err("hidden").reason(),
        Reason::ImageNotFound
    );
    // A broken secret is no hindrance where none is needed.
    registry.untwist();
    kit.pull(&missing).await.expect("a public image");
}

#[tokio::test]
async fn a_private_image_on_disk_is_not_another_tenants() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    registry.user("a", "secret-a");
    registry.user("b", "secret-b");
    let kit = Kit::new(&[&registry]);
    let plain = image(&registry, "app:1");
    let a = with_login(plain.clone(), "a", "a", "secret-a");
    let b = with_login(plain.clone(), "b", "b", "secret-b");
    let never = |image: &Image| with_policy(image.clone(), PullPolicy::Never);
    kit.pull(&a).await.expect("pulled");
    registry.log();
    kit.pull(&a).await.expect("from disk");
    assert_eq!(registry.log().len(), 0);

    // A stranger, and a wrong password, get nothing, whatever their policy.
    let wrong = with_login(plain.clone(), "w", "b", "wrong");
    for image in [&plain, &wrong] {
        assert_eq!(
            kit.pull(image).await.expect_err("not theirs").reason(),
            Reason::Unauthorized
        );
        let error = kit.pull(&never(image)).await.expect_err("not theirs");
        assert_eq!(error.reason(), Reason::ErrImageNeverPull);
        assert!(
            error.to_string().contains("no credential of the workload"),
            "{error}"
        );
    }
    // B has the right, and proves it once, without a second download.
    kit.pull(&never(&b)).await.expect_err("not proved yet");
    registry.log();
    kit.pull(&b).await.expect("proved");
    assert_eq!(
        (registry.count("/blobs/"), registry.count("HEAD")),
        (0, 2),
        "a challenge, and the proof"
    );
    registry.log();
    kit.pull(&b).await.expect("from disk");
    kit.pull(&never(&b)).await.expect("from disk");
    kit.pull(&never(&a)).await.expect("from disk");
    // The same credential from another secret is the same credential.
    kit.pull(&with_login(plain.clone(), "copy", "a", "secret-a"))
        .await
        .expect("from disk");
    assert_eq!(registry.log().len(), 0);
    // A rotated password is proved once.
    registry.user("a", "rotated");
    let rotated = with_login(plain, "a", "a", "rotated");
    kit.pull(&rotated).await.expect("proved");
    assert_eq!(registry.count("/blobs/"), 0);
}

#[tokio::test]
async fn naming_a_digest_does_not_open_it() {
    let (registry, evil) = (Registry::start().await, Registry::start().await);
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    registry.user("a", "p");
    let kit = Kit::new(&[&registry, &evil]);
    let owner = with_login(image(&registry, "app:1"), "a", "a", "p");
    kit.pull(&owner).await.expect("pulled by its owner");

    // The attacker's registry lists the private layer in a manifest, but does not have its bytes.
    evil.image("mine", "1", COMPONENT);
    evil.twist("/blobs/", status(404));
    let attacker = image(&evil, "mine:1");
    for policy in [PullPolicy::Always, PullPolicy::IfNotPresent] {
        let error = kit
            .pull(&with_policy(attacker.clone(), policy))
            .await
            .expect_err("no bytes, no component");
        assert_eq!(error.reason(), Reason::ImageNotFound, "{error}");
    }
    // Who does have the bytes may use them, and then they are nobody's secret.
    evil.untwist();
    kit.pull(&attacker).await.expect("sent in full");
    assert_eq!(
        content(&kit.pull(&owner).await.expect("still there")),
        COMPONENT
    );
}

#[tokio::test]
async fn a_repository_that_becomes_private_closes() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.user("a", "p");
    let kit = Kit::new(&[&registry]);
    let stranger = image(&registry, "app:1");
    let always = with_policy(stranger.clone(), PullPolicy::Always);
    kit.pull(&stranger).await.expect("public");
    registry.demand(Demand::Token);
    // What was given to everyone stays on disk for everyone, as in the kubelet; new content does not.
    kit.pull(&stranger).await.expect("still here");
    assert_eq!(
        kit.pull(&always).await.expect_err("asked").reason(),
        Reason::Unauthorized
    );
    registry.image("app", "1", b"private now");
    let owner = with_login(always, "a", "a", "p");
    kit.pull(&owner).await.expect("the owner");
    assert_eq!(
        kit.pull(&stranger)
            .await
            .expect_err("not public any more")
            .reason(),
        Reason::Unauthorized
    );
}

#[tokio::test]
async fn content_that_is_gone_from_the_registry_is_resolved_anew() {
    let registry = Registry::start().await;
    let old = registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    registry.user("a", "p");
    registry.user("b", "p");
    let kit = Kit::new(&[&registry]);
    kit.pull(&with_login(image(&registry, "app:1"), "a", "a", "p"))
        .await
        .expect("pulled");
    registry.image("app", "1", b"new");
    let b = with_login(image(&registry, "app:1"), "b", "b", "p");
    // The old manifest is there: B gets what the node has resolved.
    assert_eq!(
        kit.pull(&b).await.expect("proved").digest,
        Digest::of(COMPONENT)
    );
    registry.user("c", "p");
    registry.twist(format!("manifests/{old}"), status(404));
    let c = with_login(image(&registry, "app:1"), "c", "c", "p");
    assert_eq!(
        kit.pull(&c).await.expect("resolved").digest,
        Digest::of(b"new")
    );
}
