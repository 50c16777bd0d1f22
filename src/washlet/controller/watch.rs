//! The controller's watches: all that it decides upon, told as one stream of changes.

use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::{api, backoff::Doubling},
    Scope,
    metrics::Metrics,
    traffic::MANAGED_BY,
};

/// How long one watch of the Leases lasts, in seconds; a new one follows at once.
const LEASES: u32 = 15;
/// So often in a row, over several seconds, Nodes must be forbidden to be done without: an API server that is starting forbids
/// everything for a moment.
const FORBIDDEN: u32 = 4;
/// Wait until Nodes are tried again that were forbidden, and when they are done without.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);
/// Changes that wait for the loop.
const QUEUE: usize = 4096;

/// An object of any kind that is watched.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Workload(Arc<api::Workload>),
    ReplicaSet(Arc<api::WorkloadReplicaSet>),
    Deployment(Arc<api::WorkloadDeployment>),
    Artifact(Arc<api::Artifact>),
    Host(Arc<api::Host>),
    Lease(Arc<Lease>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
}

impl Object {
    /// Its UID.
    pub fn uid(&self) -> Option<&str> {
        self.meta().uid.as_deref()
    }

    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Workload(o) => o.meta(),
            Self::ReplicaSet(o) => o.meta(),
            Self::Deployment(o) => o.meta(),
            Self::Artifact(o) => o.meta(),
            Self::Host(o) => o.meta(),
            Self::Lease(o) => o.meta(),
            Self::Node(o) => o.meta(),
            Self::Service(o) => o.meta(),
            Self::EndpointSlice(o) => o.meta(),
        }
    }
}

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change {
    /// The newest state of an object.
    Seen(Object),
    /// The last state of an object that is gone.
    Gone(Object),
    /// One more watch has told all that there was when it began.
    Synced,
}

/// The watches; dropping this ends them.
pub(super) struct Watches {
    tasks: JoinSet<()>,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
}

/// A kind that is watched.
trait Watched:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    fn object(object: Arc<Self>) -> Object;

    /// Drops what is large and not decided upon.
    fn trim(&mut self) {}
}

impl Watched for Node {
    fn object(object: Arc<Self>) -> Object {
        Object::Node(object)
    }

    fn trim(&mut self) {
        self.status = None;
    }
}

macro_rules! watched {
    ($($kind:ty => $variant:ident,)*) => { $(
        impl Watched for $kind {
            fn object(object: Arc<Self>) -> Object {
                Object::$variant(object)
            }
        }
    )* };
}

watched! {
    api::Workload => Workload,
    api::WorkloadReplicaSet => ReplicaSet,
    api::WorkloadDeployment => Deployment,
    api::Artifact => Artifact,
    api::Host => Host,
    Lease => Lease,
    Service => Service,
    EndpointSlice => EndpointSlice,
}

// === impl Watches ===

impl Watches {
    /// Watches all that is in scope, in the background.
    pub fn start(
        client: &Client,
        scope: &Scope,
        metrics: &Metrics,
    ) -> (Self, mpsc::Receiver<Change>) {
        let (changes, receiver) = mpsc::channel(QUEUE);
        let mut watches = Self {
            tasks: JoinSet::new(),
            changes,
            metrics: metrics.clone(),
        };
        let all = watcher::Config::default;
        watches.namespaced::<api::Workload>(client, &scope.namespaces, &all());
        watches.namespaced::<api::WorkloadReplicaSet>(client, &scope.namespaces, &all());
        watches.namespaced::<api::WorkloadDeployment>(client, &scope.namespaces, &all());
        watches.namespaced::<api::Artifact>(client, &scope.namespaces, &all());
        watches.namespaced::<Service>(client, &scope.namespaces, &all());
        let managed = format!("endpointslice.kubernetes.io/managed-by={MANAGED_BY}");
        watches.namespaced::<EndpointSlice>(client, &scope.namespaces, &all().labels(&managed));
        let system = [scope.system_namespace.clone()];
        watches.namespaced::<api::Host>(client, &system, &all());
        // A watch that is cut off without a sign is noticed before the hosts would be taken for lost.
        watches.namespaced::<Lease>(client, &system, &all().timeout(LEASES));
        watches.follow(Api::<DeserializeGuard<Node>>::all(client.clone()), all());
        (watches, receiver)
    }

    /// How many watches there are: as many [`Change::Synced`] come.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    fn namespaced<K>(&mut self, client: &Client, namespaces: &[String], config: &watcher::Config)
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        if namespaces.is_empty() {
            self.follow(
                Api::<DeserializeGuard<K>>::all(client.clone()),
                config.clone(),
            );
        }
        for namespace in namespaces {
            self.follow(
                Api::<DeserializeGuard<K>>::namespaced(client.clone(), namespace),
                config.clone(),
            );
        }
    }

    fn follow<K: Watched>(&mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config) {
        let (changes, metrics) = (self.changes.clone(), self.metrics.clone());
        self.tasks.spawn(async move {
            let mut told = watcher(api, config).backoff(Doubling::default()).boxed();
            let (mut view, mut forbidden) = (View::default(), 0);
            let mut pause = Duration::ZERO;
            while let Some(event) = told.next().await {
                let news = match event {
                    Ok(event) => {
                        // Each try begins with this, before anything is read.
                        if !matches!(event, watcher::Event::Init) {
                            forbidden = 0;
                        }
                        view.take(event)
                    }
                    Err(error) if is_forbidden(&error) && K::kind(&()) == "Node" => {
                        // Nodes are in no namespace: an installation that is bound to some may not read them, and does without.
                        forbidden += 1;
                        pause = if forbidden < FORBIDDEN { SOON } else { LATER };
                        if view.synced || forbidden < FORBIDDEN {
                            tracing::debug!(%error, "Nodes may not be read");
                            Vec::new()
                        } else {
                            tracing::info!(
                                "Nodes may not be read: neither their labels nor a cordon count"
                            );
                            view.relist_done()
                        }
                    }
                    Err(error) => {
                        metrics.watch_errors.inc();
                        tracing::warn!(kind = %K::kind(&()), %error, "watch; trying again");
                        continue;
                    }
                };
                for change in news {
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
                // The watcher's own backoff begins anew with each try.
                tokio::time::sleep(std::mem::take(&mut pause)).await;
            }
        });
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Objects by namespace and name.
type Shown<K> = HashMap<(Option<String>, String), Arc<K>>;

/// What one watch shows.
struct View<K> {
    shown: Shown<K>,
    /// A list that is being read again.
    relisted: Option<Shown<K>>,
    synced: bool,
}

impl<K> Default for View<K> {
    fn default() -> Self {
        Self {
            shown: HashMap::new(),
            relisted: None,
            synced: false,
        }
    }
}

impl<K: Watched> View<K> {
    fn take(&mut self, event: Event<DeserializeGuard<K>>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.relisted = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => self.seen(object).into_iter().collect(),
            Event::InitDone => self.relist_done(),
            Event::Apply(object) => self.seen(object).into_iter().collect(),
            Event::Delete(object) => self
                .shown
                .remove(&(object.namespace(), object.name_any()))
                .map(|last| Change::Gone(K::object(last)))
                .into_iter()
                .collect(),
        }
    }

    /// An object that cannot be read by this version keeps the state that was read last.
    fn seen(&mut self, object: DeserializeGuard<K>) -> Option<Change> {
        let key = (object.namespace(), object.name_any());
        let (read, object) = match object.0 {
            Ok(mut read) => {
                // Half of an object's size, and nothing that is decided upon.
                read.meta_mut().managed_fields = None;
                K::trim(&mut read);
                (true, Arc::new(read))
            }
            Err(invalid) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, namespace = ?key.0, name = key.1, error = invalid.error, "cannot be read by this version");
                (false, self.shown.get(&key)?.clone())
            }
        };
        if let Some(listed) = &mut self.relisted {
            listed.insert(key.clone(), object.clone());
        }
        if !read {
            return None;
        }
        self.shown.insert(key, object.clone());
        Some(Change::Seen(K::object(object)))
    }

    /// A complete list has been read: what it lacks was deleted while nobody was looking.
    fn relist_done(&mut self) -> Vec<Change> {
        let listed = self.relisted.take().unwrap_or_default();
        let mut changes: Vec<Change> = self
            .shown
            .iter()
            .filter(|(key, _)| !listed.contains_key(key))
            .map(|(_, last)| Change::Gone(K::object(last.clone())))
            .collect();
        self.shown = listed;
        if !std::mem::replace(&mut self.synced, true) {
            changes.push(Change::Synced);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str) -> DeserializeGuard<api::Workload> {
        let mut workload = api::Workload::default();
        workload.metadata.name = Some(name.to_owned());
        DeserializeGuard(Ok(workload))
    }

    /// Changes in a short form.
    fn told(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Seen(Object::Workload(w)) => format!("seen {}", w.name_any()),
            Change::Gone(Object::Workload(w)) => format!("gone {}", w.name_any()),
            Change::Synced => "synced".to_owned(),
            _ => "other".to_owned(),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn a_new_list_reveals_what_was_deleted_meanwhile_and_syncs_once() {
        let mut view = View::default();
        view.take(Event::Init);
        assert_eq!(
            told(&view.take(Event::InitApply(workload("a")))),
            ["seen a"]
        );
        view.take(Event::InitApply(workload("b")));
        assert_eq!(told(&view.take(Event::InitDone)), ["synced"]);
        view.take(Event::Init);
        view.take(Event::InitApply(workload("b")));
        assert_eq!(told(&view.take(Event::InitDone)), ["gone a"]);
        assert_eq!(told(&view.take(Event::Delete(workload("b")))), ["gone b"]);
    }

    #[test]
    fn a_list_that_breaks_off_deletes_nothing() {
        let mut view = View::default();
        view.take(Event::Apply(workload("a")));
        view.take(Event::Init);
        // The connection breaks here, and the list begins anew.
        view.take(Event::Init);
        view.take(Event::InitApply(workload("a")));
        assert_eq!(told(&view.take(Event::InitDone)), ["synced"]);
    }
}
