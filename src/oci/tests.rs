//! Pulls from a registry that misbehaves, over real connections.

mod access;
mod faults;
mod registry;
mod store;
mod tls;

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{PullError, Puller, PullerConfig};
use crate::{
    content::{Content, Fetched, Freshness},
    fault::Reason,
    spec::{Credential, Image, PullPolicy, RegistryCredential, Secret},
};
use registry::{Demand, Registry, Twist};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 a component";

/// A puller with its own directories, that may ask a registry by plain HTTP.
struct Kit {
    puller: Arc<Puller>,
    dir: tempfile::TempDir,
}

impl Kit {
    fn new(registries: &[&Registry]) -> Self {
        Self::with(registries, |_| {})
    }

    fn with(registries: &[&Registry], change: impl FnOnce(&mut PullerConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for registry in registries {
            let text = format!("server = \"http://{}\"", registry.address);
            write_hosts(&dir, &registry.address.to_string(), &text);
        }
        let mut config = PullerConfig::new(dir.path().join("store"));
        config.certs_dir = Some(dir.path().join("certs"));
        change(&mut config);
        let puller = Arc::new(Puller::new(config).expect("a store"));
        Self { puller, dir }
    }

    async fn pull(&self, image: &Image) -> Result<Fetched, PullError> {
        self.puller.pull(image, Freshness::Policy).await
    }

    fn files(&self, dir: &str) -> Vec<PathBuf> {
        let dir = std::fs::read_dir(self.dir.path().join("store").join(dir)).expect("a directory");
        dir.map(|entry| entry.expect("an entry").path()).collect()
    }
}

fn write_hosts(dir: &tempfile::TempDir, registry: &str, text: &str) {
    let certs = dir.path().join("certs").join(registry);
    std::fs::create_dir_all(&certs).expect("a directory");
    std::fs::write(certs.join("hosts.toml"), text).expect("a file");
}

fn image(registry: &Registry, name: &str) -> Image {
    Image {
        reference: format!("{}/{name}", registry.address)
            .parse()
            .expect("a reference"),
        policy: PullPolicy::IfNotPresent,
        credentials: Vec::new(),
        unusable_secrets: Vec::new(),
    }
}

fn with_policy(mut image: Image, policy: PullPolicy) -> Image {
    image.policy = policy;
    image
}

fn with_login(mut image: Image, secret: &str, user: &str, password: &str) -> Image {
    let credential = Credential::Basic {
        username: user.to_owned(),
        password: Secret::new(password),
    };
    image.credentials.push(RegistryCredential {
        scope: Some(image.reference.registry().to_owned()),
        credential,
        origin: format!("secret ns/{secret}"),
    });
    image
}

fn content(fetched: &Fetched) -> Vec<u8> {
    match &fetched.content {
        Content::File(path) => std::fs::read(path).expect("the blob"),
        Content::Memory(bytes) => bytes.to_vec(),
    }
}

fn status(code: u16) -> Twist {
    Twist::Status(code, Vec::new(), String::new())
}

#[tokio::test]
async fn a_public_image_is_pulled_once() {
    let registry = Registry::start().await;
    let digest = registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[&registry]);
    let fetched = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect("a component");
    assert_eq!(content(&fetched), COMPONENT);
    assert_eq!(fetched.manifest, Some(digest));
    assert_eq!(registry.log().len(), 2, "a manifest and a blob");
    // From now on the disk answers, also for a puller that starts anew.
    kit.pull(&image(&registry, "app:1"))
        .await
        .expect("from disk");
    kit.pull(&with_policy(image(&registry, "app:1"), PullPolicy::Never))
        .await
        .expect("from disk");
    let again = Kit::with(&[&registry], |config| {
        config.store_dir = kit.dir.path().join("store")
    });
    again
        .pull(&image(&registry, "app:1"))
        .await
        .expect("from disk");
    assert_eq!(registry.log().len(), 0);
}

#[tokio::test]
async fn always_asks_but_fetches_only_what_changed() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[&registry]);
    let always = with_policy(image(&registry, "app:1"), PullPolicy::Always);
    kit.pull(&always).await.expect("a component");
    registry.log();
    kit.pull(&always).await.expect("a component");
    let log = registry.log();
    assert_eq!((log.len(), log[0].method.as_str()), (1, "HEAD"));
    // The tag moves.
    registry.image("app", "1", b"another");
    assert_eq!(
        content(&kit.pull(&always).await.expect("the new one")),
        b"another"
    );
    // Without the registry there is no start, though all is here.
    registry.twist("HEAD", status(503));
    assert_eq!(
        kit.pull(&always).await.expect_err("no answer").reason(),
        Reason::RegistryUnavailable
    );
    // A registry that does not serve heads is asked for the whole.
    registry.untwist();
    registry.twist("HEAD", status(405));
    kit.pull(&always).await.expect("by GET");
}

#[tokio::test]
async fn concurrent_pulls_share_one_download() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.image("app", "2", COMPONENT);
    registry.twist("/blobs/", Twist::Late(Duration::from_millis(200)));
    let kit = Kit::new(&[&registry]);
    let (one, two) = (image(&registry, "app:1"), image(&registry, "app:2"));
    let pulls = (0..8).map(|n| kit.pull(if n % 2 == 0 { &one } else { &two }));
    for fetched in futures::future::join_all(pulls).await {
        assert_eq!(content(&fetched.expect("a component")), COMPONENT);
    }
    assert_eq!(registry.count("/blobs/"), 1);
}

#[tokio::test]
async fn a_crowd_with_one_secret_asks_the_registry_once() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[&registry]);
    let image = with_policy(image(&registry, "app:1"), PullPolicy::IfNotPresent);
    // More than may begin in half a minute.
    let pulls = (0..150).map(|_| kit.pull(&image));
    for fetched in futures::future::join_all(pulls).await {
        assert_eq!(content(&fetched.expect("a component")), COMPONENT);
    }
    assert_eq!(registry.count("/manifests/"), 1);
    let always = with_policy(image, PullPolicy::Always);
    for fetched in futures::future::join_all((0..2).map(|_| kit.pull(&always))).await {
        fetched.expect("a component");
    }
    assert_eq!(registry.count("/manifests/"), 3, "each of them asks");
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing_behind() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    registry.twist("/blobs/", Twist::Stall(3));
    let kit = Kit::new(&[&registry]);
    let scratch = kit.files("tmp").remove(0);
    let files = || std::fs::read_dir(&scratch).expect("a directory").count();
    assert_eq!(files(), 1, "only the lock");
    let begun = async {
        while files() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let image = image(&registry, "app:1");
    tokio::select! {
        done = kit.pull(&image) => panic!("{done:?}"),
        () = begun => {}
    }
    assert_eq!(files(), 1);
    assert!(kit.files("blobs/sha256").is_empty());
}

#[tokio::test]
async fn an_index_leads_to_its_component() {
    let registry = Registry::start().await;
    let child = registry.image("app", "child", COMPONENT);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "digest": crate::spec::Digest::of(b"").as_str(), "size": 1, "platform": { "os": "linux", "architecture": "amd64" } },
        { "digest": child.as_str(), "size": 1, "platform": { "os": "wasip2", "architecture": "wasm" } },
    ]});
    let digest = registry.manifest("app", "1", &index);
    let kit = Kit::new(&[&registry]);
    let fetched = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect("a component");
    assert_eq!(
        (content(&fetched).as_slice(), fetched.manifest),
        (COMPONENT, Some(digest.clone()))
    );
    let pinned = image(&registry, &format!("app@{digest}"));
    assert_eq!(
        content(&kit.pull(&pinned).await.expect("by digest")),
        COMPONENT
    );
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_its_failure_is_made_good() {
    let (mirror, registry) = (Registry::start().await, Registry::start().await);
    mirror.image("app", "1", COMPONENT);
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[]);
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]",
        registry.address, mirror.address
    );
    write_hosts(&kit.dir, &registry.address.to_string(), &text);
    let always = with_policy(image(&registry, "app:1"), PullPolicy::Always);
    kit.pull(&always).await.expect("from the mirror");
    assert_eq!(registry.log().len(), 0);
    assert!(mirror.log().iter().all(|seen| {
        seen.target
            .ends_with(&format!("?ns=127.0.0.1%3A{}", registry.address.port()))
    }));
    // A mirror that does not have it, and one that sends other bytes.
    registry.image("app", "1", b"new");
    mirror.twist("manifests", status(404));
    mirror.twist("/blobs/", Twist::Body(b"old".to_vec()));
    assert_eq!(
        content(&kit.pull(&always).await.expect("from the registry")),
        b"new"
    );
}

#[tokio::test]
async fn a_repaired_hosts_file_is_read_without_a_restart() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[]);
    write_hosts(&kit.dir, &registry.address.to_string(), "server = ");
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("a broken file");
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    assert!(error.to_string().contains("hosts.toml"), "{error}");
    write_hosts(
        &kit.dir,
        &registry.address.to_string(),
        &format!("server = \"http://{}\"", registry.address),
    );
    kit.pull(&image(&registry, "app:1"))
        .await
        .expect("a component");
}

#[tokio::test]
async fn a_host_that_may_not_resolve_is_not_asked_what_a_tag_means() {
    let (mirror, registry) = (Registry::start().await, Registry::start().await);
    for r in [&mirror, &registry] {
        r.image("app", "1", COMPONENT);
    }
    let kit = Kit::new(&[]);
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]",
        registry.address, mirror.address
    );
    write_hosts(&kit.dir, &registry.address.to_string(), &text);
    kit.pull(&image(&registry, "app:1"))
        .await
        .expect("a component");
    assert_eq!(
        (mirror.count("manifests"), registry.count("manifests")),
        (0, 1)
    );
    assert_eq!((mirror.count("/blobs/"), registry.count("/blobs/")), (1, 0));
}
