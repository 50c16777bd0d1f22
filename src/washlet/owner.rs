//! The Node as the owner of an agent's objects, so that they go with it.
//!
//! A Node can come later than its agent, and can be made anew under its name; then what the old one owned is gone, and what is
//! made again belongs to the new one. It is therefore read each time, and nothing is made for a Node that was there and is not.

use std::sync::atomic::{AtomicU8, Ordering};

use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client};

/// A Node's owner reference, as it is now.
pub(super) struct NodeOwner {
    nodes: Api<Node>,
    name: String,
    last: AtomicU8,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Owner {
    /// The Node.
    Is(OwnerReference),
    /// There is no such Node, or the agent may not read it.
    None,
    /// It was there, and is not.
    Gone,
}

/// What was found last: nothing was looked for yet,
const UNKNOWN: u8 = 0;
/// there was none,
const NONE: u8 = 1;
/// it may not be read,
const FORBIDDEN: u8 = 2;
/// it was there,
const THERE: u8 = 3;
/// or it was there before.
const GONE: u8 = 4;

// === impl NodeOwner ===

impl NodeOwner {
    pub fn new(client: Client, name: &str) -> Self {
        Self {
            nodes: Api::all(client),
            name: name.to_owned(),
            last: AtomicU8::new(UNKNOWN),
        }
    }

    /// Reads the Node.
    ///
    /// # Errors
    /// When the API server does not say whether there is one.
    pub async fn read(&self) -> Result<Owner, kube::Error> {
        let node = match self.nodes.get_opt(&self.name).await {
            Ok(node) => node,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                self.found(FORBIDDEN);
                return Ok(Owner::None);
            }
            Err(error) => return Err(error),
        };
        let there = node.and_then(|node| reference(&self.name, &node.metadata));
        let now = match (&there, self.last.load(Ordering::Relaxed)) {
            (Some(_), _) => THERE,
            (None, THERE | GONE) => GONE,
            (None, _) => NONE,
        };
        self.found(now);
        Ok(match there {
            Some(owner) => Owner::Is(owner),
            None if now == GONE => Owner::Gone,
            None => Owner::None,
        })
    }

    /// Tells once what changes for people.
    fn found(&self, now: u8) {
        let before = self.last.swap(now, Ordering::Relaxed);
        if before == now {
            return;
        }
        let node = &self.name;
        match now {
            NONE => tracing::warn!(
                node,
                "there is no Node of this name; the Host object and the Lease have no owner"
            ),
            FORBIDDEN => tracing::warn!(
                node,
                "the Node may not be read; the Host object and the Lease have no owner"
            ),
            GONE => tracing::warn!(
                node,
                "the Node is gone; the Host object and the Lease are not made again before it is"
            ),
            _ if before != UNKNOWN => tracing::info!(node, "the Node is there now"),
            _ => {}
        }
    }
}

fn reference(name: &str, node: &ObjectMeta) -> Option<OwnerReference> {
    // What is being deleted owns nothing new.
    if node.deletion_timestamp.is_some() {
        return None;
    }
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.uid.clone()?,
        ..OwnerReference::default()
    })
}

/// Makes a Node the owner of an object, in place of another Node. Says whether that is new.
pub(super) fn adopt(object: &mut ObjectMeta, owner: OwnerReference) -> bool {
    let owners = object.owner_references.get_or_insert_default();
    if owners.contains(&owner) {
        return false;
    }
    owners.retain(|other| other.kind != owner.kind);
    owners.push(owner);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_the_place_of_its_former_self_alone() {
        let node = |uid: &str| {
            let meta = ObjectMeta {
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            };
            reference("n", &meta).expect("a reference")
        };
        let other = OwnerReference {
            kind: "ConfigMap".to_owned(),
            uid: "c".to_owned(),
            ..OwnerReference::default()
        };
        let mut object = ObjectMeta::default();
        assert!(adopt(&mut object, node("1")));
        assert!(!adopt(&mut object, node("1")));
        object.owner_references.get_or_insert_default().push(other);
        assert!(adopt(&mut object, node("2")));
        let owners = object.owner_references.unwrap_or_default();
        let uids: Vec<&str> = owners.iter().map(|o| o.uid.as_str()).collect();
        assert_eq!(uids, ["c", "2"]);
        assert_eq!(reference("n", &ObjectMeta::default()), None);
    }
}
