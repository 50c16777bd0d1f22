//! All objects of one kind, each in the newest state that was told.

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

/// Namespace and name; the namespace is empty for what is in none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct Id {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// All objects of one kind.
#[derive(Debug)]
pub(in super::super) struct Store<K>(BTreeMap<Id, Arc<K>>);

/// An object before and after a change.
#[derive(Debug)]
pub(in super::super) struct Step<K> {
    pub id: Id,
    pub before: Option<Arc<K>>,
    pub after: Option<Arc<K>>,
}

// === impl Id ===

impl Id {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Store ===

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Resource> Store<K> {
    pub fn get(&self, id: &Id) -> Option<&Arc<K>> {
        self.0.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Arc<K>)> {
        self.0.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.0.values()
    }

    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        self.0.keys()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The objects of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let first = Id::new(namespace, "");
        let namespace = first.namespace.clone();
        self.0
            .range(first..)
            .take_while(move |(id, _)| id.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// Ids of one namespace.
    pub fn ids_in(&self, namespace: &str) -> impl Iterator<Item = &Id> {
        let first = Id::new(namespace, "");
        let namespace = first.namespace.clone();
        self.0
            .range(first..)
            .map(|(id, _)| id)
            .take_while(move |id| id.namespace == namespace)
    }

    /// Takes a state, unless the one that is known is newer. None if nothing changed.
    pub(super) fn put(&mut self, object: Arc<K>) -> Option<Step<K>> {
        let id = Id::of(&*object);
        let known = self.0.get(&id);
        if known.is_some_and(|known| !is_news(known.meta(), object.meta())) {
            return None;
        }
        let before = self.0.insert(id.clone(), object.clone());
        Some(Step {
            id,
            before,
            after: Some(object),
        })
    }

    /// Forgets an object, unless another one has its name already.
    pub(super) fn remove(&mut self, last: &K) -> Option<Step<K>> {
        let id = Id::of(last);
        let same = self
            .0
            .get(&id)
            .is_some_and(|known| known.meta().uid == last.meta().uid);
        let before = same.then(|| self.0.remove(&id))?;
        Some(Step {
            id,
            before,
            after: None,
        })
    }
}

/// Whether `told` is newer than `known`, whether they are states of one object or of two that had the name after each other.
/// Versions of one kind are numbers that grow (KEP 5504); any that is no number is taken for newer.
fn is_news(known: &ObjectMeta, told: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_ref()?.parse::<u64>().ok();
    match (version(known), version(told)) {
        (Some(known), Some(told)) => told > known,
        _ => known.resource_version != told.resource_version,
    }
}
