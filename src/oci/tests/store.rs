//! The store under damage: torn files, left-overs, a second process.

use super::*;
use crate::spec::Digest;

#[tokio::test]
async fn damaged_blobs_are_fetched_again() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[&registry]);
    let image = image(&registry, "app:1");
    kit.pull(&image).await.expect("pulled");
    let blob = kit.files("blobs/sha256").remove(0);
    // Of the wrong size: seen at once.
    std::fs::write(&blob, b"torn").expect("damage");
    assert_eq!(
        content(&kit.pull(&image).await.expect("fetched again")),
        COMPONENT
    );
    // Of the right size: seen when somebody could not use it.
    let damaged = vec![b'x'; COMPONENT.len()];
    std::fs::write(&blob, &damaged).expect("damage");
    assert_eq!(content(&kit.pull(&image).await.expect("believed")), damaged);
    let again = kit
        .puller
        .pull(&image, Freshness::Revalidate)
        .await
        .expect("fetched again");
    assert_eq!(content(&again), COMPONENT);
    // Sound content is not fetched again.
    registry.log();
    kit.puller
        .pull(&image, Freshness::Revalidate)
        .await
        .expect("looked at");
    assert_eq!(registry.count("/blobs/"), 0);
    let never = with_policy(image, PullPolicy::Never);
    std::fs::write(&blob, &damaged).expect("damage");
    let error = kit
        .puller
        .pull(&never, Freshness::Revalidate)
        .await
        .expect_err("useless");
    assert_eq!(error.reason(), Reason::ErrImageNeverPull);
}

#[tokio::test]
async fn what_was_used_last_is_listed_first() {
    let registry = Registry::start().await;
    let kit = Kit::new(&[&registry]);
    let other = [COMPONENT, b"\0"].concat();
    registry.image("old", "1", COMPONENT);
    registry.image("new", "1", &other);
    let (old, new) = (image(&registry, "old:1"), image(&registry, "new:1"));
    let first = kit.pull(&old).await.expect("pulled");
    let second = kit.pull(&new).await.expect("pulled");
    let pair = |f: &Fetched| [f.manifest.clone().expect("of an image"), f.digest.clone()];
    let both = [pair(&second), pair(&first)].concat();
    assert_eq!(kit.puller.newest(50).await, both);
    assert_eq!(kit.puller.newest(3).await, both[..3]);
    kit.pull(&old).await.expect("here already");
    assert_eq!(kit.puller.newest(2).await, pair(&first));
    // What is gone is not listed.
    for blob in kit.files("blobs/sha256") {
        std::fs::remove_file(blob).expect("removed");
    }
    assert_eq!(kit.puller.newest(50).await, []);
}

#[tokio::test]
async fn torn_records_count_as_absent() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[&registry]);
    let image = image(&registry, "app:1");
    for dir in ["refs", "origins"] {
        kit.pull(&image).await.expect("pulled");
        let record = kit.files(dir).remove(0);
        let whole = std::fs::read(&record).expect("a record");
        for damaged in [&whole[..whole.len() / 2], &whole[1..], b"", b"{}\n{}"] {
            std::fs::write(&record, damaged).expect("damage");
            let never = with_policy(image.clone(), PullPolicy::Never);
            assert_eq!(
                kit.pull(&never).await.expect_err(dir).reason(),
                Reason::ErrImageNeverPull
            );
            kit.pull(&image).await.expect("asked again");
            kit.pull(&never).await.expect("mended");
        }
    }
}

#[tokio::test]
async fn left_overs_go_but_not_those_of_a_living_process() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.twist("/blobs/", Twist::Late(Duration::from_millis(300)));
    let kit = Kit::new(&[&registry]);
    let dead = kit.dir.path().join("store/tmp/dead");
    std::fs::create_dir(&dead).expect("a directory");
    std::fs::write(dead.join("lock"), b"").expect("a file");
    std::fs::write(dead.join("half"), b"half a blob").expect("a file");
    let image = image(&registry, "app:1");
    let pull = kit.pull(&image);
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Kit::with(&[], |config| {
            config.store_dir = kit.dir.path().join("store")
        })
    };
    let (pulled, second) = tokio::join!(pull, second);
    pulled.expect("not disturbed");
    assert!(!dead.exists());
    drop(second);
    assert_eq!(kit.files("tmp").len(), 1);
}

#[tokio::test]
async fn a_lost_salt_costs_one_request() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Basic);
    registry.user("u", "p");
    let kit = Kit::new(&[&registry]);
    let image = with_login(image(&registry, "app:1"), "a", "u", "p");
    kit.pull(&image).await.expect("pulled");
    let store = kit.dir.path().join("store");
    std::fs::write(store.join("salt"), b"torn").expect("damage");
    registry.log();
    let next = Kit::with(&[&registry], |config| config.store_dir = store.clone());
    next.pull(&image).await.expect("proved again");
    assert_eq!(
        (registry.count("manifests"), registry.count("/blobs/")),
        (2, 0)
    );
    // No file of the store holds a password, or an unsalted hash of it.
    let hush = [b"p".as_slice(), b"u:p"].map(Digest::of);
    for file in kit.files("refs") {
        let text = std::fs::read_to_string(file).expect("a record");
        assert!(hush.iter().all(|h| !text.contains(h.hex())), "{text}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("a file");
    let error = Puller::new(PullerConfig::new(&file))
        .err()
        .expect("not a directory");
    assert!(error.to_string().contains("file"), "{error}");
    let full = super::super::StoreError {
        action: "write",
        path: file,
        source: std::io::ErrorKind::StorageFull.into(),
    };
    assert!(full.is_full());
}
