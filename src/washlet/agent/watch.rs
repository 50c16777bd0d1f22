//! The two watches that together show this node's workloads: those pinned to it, and those that were assigned to it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Client, ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::mpsc;

use super::{
    super::{api, backoff::Doubling},
    metrics::Metrics,
};

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change {
    /// This workload is on the node, or may be; this is its newest state.
    Seen(Arc<api::Workload>),
    /// This workload cannot be read.
    Unreadable(Box<InvalidObject>),
    /// This workload is not on the node any more.
    Gone(String),
    /// All that was on the node has been told.
    Synced,
}

/// Where `kubectl apply` keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Which of a namespace's two watches.
type Source = usize;

/// Watches in the background until the receiver is dropped.
pub(super) fn spawn(
    client: &Client,
    node: &str,
    namespaces: &[String],
    metrics: Metrics,
) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(1024);
    let apis: Vec<Api<DeserializeGuard<api::Workload>>> = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        namespaces
            .iter()
            .map(|namespace| Api::namespaced(client.clone(), namespace))
            .collect()
    };
    let mut streams = Vec::new();
    for api in apis {
        for field in ["spec.hostId", "status.hostId"] {
            let config = watcher::Config::default().fields(&format!("{field}={node}"));
            streams.push(events(api.clone(), config, streams.len()).boxed());
        }
    }
    tokio::spawn(merge(streams, changes, metrics));
    receiver
}

type Told = Result<Event<DeserializeGuard<api::Workload>>, watcher::Error>;

fn events(
    api: Api<DeserializeGuard<api::Workload>>,
    config: watcher::Config,
    source: Source,
) -> impl Stream<Item = (Source, Told)> + Send {
    watcher(api, config)
        .backoff(Doubling::default())
        .map(move |told| (source, told))
}

async fn merge(
    streams: Vec<stream::BoxStream<'static, (Source, Told)>>,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
) {
    let mut view = View {
        unsynced: (0..streams.len()).collect(),
        ..View::default()
    };
    let mut told = stream::select_all(streams);
    while let Some((source, told)) = told.next().await {
        let news = match told {
            Ok(event) => view.take(source, event),
            Err(error) => {
                metrics.watch_errors.inc();
                tracing::warn!(%error, "watch on workloads; trying again");
                continue;
            }
        };
        for change in news {
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

/// Which workloads each watch shows.
#[derive(Default)]
struct View {
    /// UIDs by source.
    shown: HashMap<Source, HashSet<String>>,
    /// UIDs of a list that is being read again, by source.
    relisted: HashMap<Source, HashSet<String>>,
    unsynced: HashSet<Source>,
}

impl View {
    fn take(
        &mut self,
        source: Source,
        event: Event<DeserializeGuard<api::Workload>>,
    ) -> Vec<Change> {
        match event {
            Event::Init => {
                self.relisted.insert(source, HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.relisted
                    .entry(source)
                    .or_default()
                    .insert(object.uid().unwrap_or_default());
                vec![self.seen(source, object)]
            }
            Event::InitDone => self.relist_done(source),
            Event::Apply(object) => vec![self.seen(source, object)],
            Event::Delete(object) => {
                let uid = object.uid().unwrap_or_default();
                self.shown.entry(source).or_default().remove(&uid);
                self.gone(uid).into_iter().collect()
            }
        }
    }

    fn seen(&mut self, source: Source, object: DeserializeGuard<api::Workload>) -> Change {
        self.shown
            .entry(source)
            .or_default()
            .insert(object.uid().unwrap_or_default());
        match object.0 {
            Ok(workload) => Change::Seen(kept(workload)),
            Err(invalid) => Change::Unreadable(Box::new(invalid)),
        }
    }

    /// A complete list has been read: what it lacks was deleted while nobody was looking.
    fn relist_done(&mut self, source: Source) -> Vec<Change> {
        let listed = self.relisted.remove(&source).unwrap_or_default();
        let shown = self
            .shown
            .insert(source, listed.clone())
            .unwrap_or_default();
        let mut changes: Vec<Change> = shown
            .difference(&listed)
            .filter_map(|uid| self.gone(uid.clone()))
            .collect();
        if self.unsynced.remove(&source) && self.unsynced.is_empty() {
            changes.push(Change::Synced);
        }
        changes
    }

    /// Gone from one watch is gone from the node only if no other shows it.
    fn gone(&self, uid: String) -> Option<Change> {
        (!self.shown.values().any(|uids| uids.contains(&uid))).then_some(Change::Gone(uid))
    }
}

/// What is kept of an object for as long as it is on the node: not who wrote which of its fields, nor the copy of itself that
/// `kubectl apply` leaves, which together are most of it.
pub(super) fn kept(mut workload: api::Workload) -> Arc<api::Workload> {
    let meta = &mut workload.metadata;
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
    Arc::new(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str) -> DeserializeGuard<api::Workload> {
        let mut workload = api::Workload::default();
        workload.metadata.uid = Some(uid.to_owned());
        DeserializeGuard(Ok(workload))
    }

    fn view() -> View {
        View {
            unsynced: (0..2).collect(),
            ..View::default()
        }
    }

    /// Changes in a short form.
    fn told(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Seen(w) => format!("seen {}", w.uid().unwrap_or_default()),
            Change::Unreadable(_) => "unreadable".to_owned(),
            Change::Gone(uid) => format!("gone {uid}"),
            Change::Synced => "synced".to_owned(),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn what_only_others_read_is_not_kept() {
        let mut workload = api::Workload::default();
        workload.metadata.managed_fields = Some(vec![Default::default()]);
        let annotations = [(LAST_APPLIED, "{}"), ("mine", "1")];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        workload.metadata.annotations = Some(annotations.into());
        let kept = kept(workload);
        assert_eq!(kept.metadata.managed_fields, None);
        let left: Vec<_> = kept.annotations().keys().collect();
        assert_eq!(left, ["mine"]);
    }

    #[test]
    fn synced_when_every_watch_is() {
        let mut view = view();
        for (source, expected) in [(0, vec![]), (1, vec!["synced"])] {
            view.take(source, Event::Init);
            assert_eq!(told(&view.take(source, Event::InitDone)), expected);
        }
    }

    #[test]
    fn gone_from_one_watch_is_not_gone_from_the_node() {
        let mut view = view();
        view.take(0, Event::Apply(object("a")));
        view.take(1, Event::Apply(object("a")));
        assert!(view.take(1, Event::Delete(object("a"))).is_empty());
        assert_eq!(told(&view.take(0, Event::Delete(object("a")))), ["gone a"]);
    }

    #[test]
    fn a_new_list_reveals_what_was_deleted_meanwhile() {
        let mut view = view();
        view.take(0, Event::Apply(object("a")));
        view.take(0, Event::Apply(object("b")));
        view.take(0, Event::Init);
        assert_eq!(
            told(&view.take(0, Event::InitApply(object("b")))),
            ["seen b"]
        );
        assert_eq!(told(&view.take(0, Event::InitDone)), ["gone a"]);
    }

    #[test]
    fn a_list_that_breaks_off_deletes_nothing() {
        let mut view = view();
        view.take(0, Event::Apply(object("a")));
        view.take(0, Event::Init);
        // The connection breaks here, and the list begins anew.
        view.take(0, Event::Init);
        view.take(0, Event::InitApply(object("a")));
        assert!(view.take(0, Event::InitDone).is_empty());
    }
}
