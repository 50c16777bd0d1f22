//! A namespace of its own for each test.

mod waiting;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams},
};
use serde_json::{Value, json};

use crate::{cluster::Cluster, objects, process, random, registry::User, run_dir};

/// Set, it leaves the namespaces of failed tests in the cluster.
const KEEP: &str = "WASHLET_E2E_KEEP";

/// A namespace that goes when the test ends; when the test fails its objects are printed first.
pub struct TestNamespace {
    name: String,
    cluster: Cluster,
    client: Client,
    /// Printed when the test fails.
    logs: Mutex<Vec<PathBuf>>,
    /// Objects outside the namespace that go with it, as `kind/name`.
    belongings: Mutex<Vec<String>>,
    failed: AtomicBool,
}

/// Runs a test in a namespace of the shared cluster.
///
/// # Errors
/// With the test's own error, after printing what is known about it.
pub async fn with_namespace(test: impl AsyncFnOnce(&TestNamespace) -> Result<()>) -> Result<()> {
    TestNamespace::new().await?.run(test).await
}

// === impl TestNamespace ===

impl TestNamespace {
    /// A new namespace of the shared cluster.
    ///
    /// # Errors
    /// When there is no cluster or it refuses the namespace.
    pub async fn new() -> Result<Self> {
        Self::in_cluster(Cluster::shared().await?).await
    }

    /// A new namespace of this cluster.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn in_cluster(cluster: &Cluster) -> Result<Self> {
        let name = unique_name()?;
        let client = cluster.client().await?;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        objects::apply(&client, "", serde_json::from_value(object)?).await?;
        let this = Self {
            belongings: Mutex::new(vec![format!("namespace/{name}")]),
            name,
            cluster: cluster.clone(),
            client,
            logs: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        Ok(this)
    }

    /// Runs a test in it, so that an error of the test counts as a failure like a panic does.
    ///
    /// # Errors
    /// With the test's own error.
    pub async fn run(self, test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let result = test(&self).await;
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            run_dir::keep();
        }
        result
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The API of a kind, in this namespace.
    ///
    /// # Errors
    /// When the harness does not know the kind.
    pub fn api(&self, kind: &str) -> Result<Api<DynamicObject>> {
        objects::api(&self.client, &self.name, kind)
    }

    /// Applies a YAML text of one or many objects, into this namespace where they name none.
    ///
    /// # Errors
    /// When it is no YAML or the API server refuses an object.
    pub async fn apply_yaml(&self, text: &str) -> Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for object in objects::parse_yaml(text)? {
            applied.push(objects::apply(&self.client, &self.name, object).await?);
        }
        Ok(applied)
    }

    /// Applies one object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, object: Value) -> Result<DynamicObject> {
        let object = serde_json::from_value(object).context("no Kubernetes object")?;
        objects::apply(&self.client, &self.name, object).await
    }

    /// Applies a pull secret of Kubernetes' own type; `registry` is `HOST:PORT`, with a path or without.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply_pull_secret(&self, name: &str, registry: &str, user: User) -> Result<()> {
        let data = json!({".dockerconfigjson": user.docker_config_json(registry)});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson", "stringData": data});
        self.apply(secret).await.map(drop)
    }

    /// One object.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, kind: &str, name: &str) -> Result<DynamicObject> {
        self.api(kind)?
            .get(name)
            .await
            .with_context(|| format!("getting {kind} {name}"))
    }

    /// Deletes an object, and does not wait for its end.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let deleted = self.api(kind)?.delete(name, &DeleteParams::default()).await;
        deleted
            .map(drop)
            .with_context(|| format!("deleting {kind} {name}"))
    }

    /// The Events about the object with this UID.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn events_for(&self, uid: &str) -> Result<Vec<Event>> {
        let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        Ok(events.list(&about).await.context("listing Events")?.items)
    }

    /// Runs kubectl with this namespace as its default.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster
            .kubectl(&[&["--namespace", &self.name], args].concat())
            .await
    }

    /// Has a log's end printed when the test fails.
    pub fn print_on_failure(&self, log: PathBuf) {
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(log);
    }

    /// Has an object outside the namespace, as `kind/name`, removed with it.
    pub fn remove_too(&self, object: String) {
        self.belongings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(object);
    }

    fn print_all(&self) {
        let kubectl = |args: &[&str]| {
            let args = [&["--namespace", self.name.as_str()], args].concat();
            let said = self.cluster.kubectl_blocking(&args);
            eprintln!(
                "--- {}\n{}",
                args.join(" "),
                said.unwrap_or_else(|error| format!("{error:#}")).trim_end()
            );
        };
        kubectl(&["get", "events", "--sort-by=.metadata.creationTimestamp"]);
        kubectl(&["get", "wasm", "-o", "yaml"]);
        for log in self
            .logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            eprintln!(
                "--- the end of {}\n{}",
                log.display(),
                process::tail(log, 60)
            );
        }
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let failed = self.failed.load(Ordering::Relaxed) || std::thread::panicking();
        if failed {
            self.print_all();
        }
        if failed && std::env::var_os(KEEP).is_some() {
            eprintln!("{KEEP} is set: the namespace {} is kept", self.name);
            return;
        }
        let belongings = self
            .belongings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut args = vec!["delete", "--ignore-not-found", "--wait=false"];
        args.extend(belongings.iter().map(String::as_str));
        // A test may have stopped its API server, and the data goes with the run.
        if let Err(error) = self.cluster.kubectl_blocking(&args) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A name that tells which test made the namespace; libtest calls a test's thread after it.
fn unique_name() -> Result<String> {
    let thread = std::thread::current();
    let test = thread
        .name()
        .unwrap_or("test")
        .rsplit("::")
        .next()
        .unwrap_or("test");
    let readable: String = test
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let readable: String = readable.trim_matches('-').chars().take(40).collect();
    let suffix: String = random::word()?.chars().take(6).collect();
    Ok(format!("e2e-{readable}-{suffix}"))
}
