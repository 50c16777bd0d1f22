//! Who has which route of the whole cluster: the same rules as on each host, over all workloads.
//!
//! Only routes that name a host are decided here. One without a host is the default of each host, which that decides itself.
//! Options that come from ConfigMaps and Secrets are not known here; their routes are the hosts' to decide as well.

use std::collections::HashMap;

use super::{super::api, world::Id};
use crate::{
    plugin::wasi_http::{Claim, Claims, HostPattern, Route, Standing, Token},
    spec,
    washlet::convert::root_owner,
};

/// All claims of the cluster.
#[derive(Debug, Default)]
pub(super) struct Routes {
    claims: Claims,
    of: HashMap<Id, (Token, Claim)>,
    ids: HashMap<Token, Id>,
}

impl Routes {
    /// Takes a workload's newest state, or its end. Gives all workloads that may stand otherwise now.
    pub fn update(&mut self, id: &Id, workload: Option<&api::Workload>) -> Vec<Id> {
        let wanted = workload
            .map(|workload| claim(id, workload))
            .filter(|claim| !claim.routes.is_empty());
        if self.of.get(id).map(|(_, claim)| claim) == wanted.as_ref() {
            return Vec::new();
        }
        let mut changed = Vec::new();
        let mut affected = vec![id.clone()];
        if let Some((token, _)) = self.of.remove(id) {
            changed.extend(self.claims.remove(token).standings);
            self.ids.remove(&token);
        }
        if let Some(wanted) = wanted {
            let (token, change) = self.claims.insert(wanted.clone());
            self.of.insert(id.clone(), (token, wanted));
            self.ids.insert(token, id.clone());
            changed.extend(change.standings);
        }
        affected.extend(
            changed
                .iter()
                .filter_map(|token| self.ids.get(token))
                .cloned(),
        );
        affected
    }

    /// Why a workload may not have its routes; none if it may.
    pub fn conflict(&self, id: &Id) -> Option<String> {
        let (token, _) = self.of.get(id)?;
        match self.claims.standing(*token)? {
            Standing::Waits { route, holder } => Some(format!(
                "the route ({route}) belongs to workload {holder}, which is older; \
                 give one of them another `host` or `path` in its wasi:http entry, or delete one"
            )),
            _ => None,
        }
    }
}

fn claim(id: &Id, workload: &api::Workload) -> Claim {
    let meta = &workload.metadata;
    Claim {
        workload: meta.uid.clone().unwrap_or_default().into(),
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        owner: root_owner(workload).into(),
        name: id.to_string().into(),
        routes: routes(workload),
    }
}

/// The routes that a workload asks for by host, as far as it says so itself. What is wrong with an entry is told by its host.
fn routes(workload: &api::Workload) -> Vec<Route> {
    let entries = workload.spec.host_interfaces.iter();
    let http = entries.filter(|entry| entry.namespace == "wasi" && entry.package == "http");
    let mut routes: Vec<Route> = http
        .filter(|entry| entry.config_from.is_empty() && entry.secret_from.is_empty())
        .filter_map(|entry| {
            let entry = spec::Interface {
                interfaces: entry.interfaces.clone(),
                config: entry.config.clone(),
                ..spec::Interface::default()
            };
            Route::of_entry(&entry).ok().flatten()
        })
        .filter(|route| route.host != HostPattern::Any)
        .collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(
        name: &str,
        created: &str,
        host: Option<&str>,
        deployment: Option<&str>,
    ) -> (Id, api::Workload) {
        let config = host.map_or(json!({}), |host| json!({ "host": host }));
        let mut object = json!({
            "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload",
            "metadata": { "name": name, "namespace": "ns", "uid": name, "creationTimestamp": created },
            "spec": { "hostInterfaces": [
                { "namespace": "wasi", "package": "http", "interfaces": ["incoming-handler"], "config": config },
            ] },
        });
        if let Some(deployment) = deployment {
            object["metadata"]["labels"] = json!({ api::label::DEPLOYMENT: deployment });
            object["metadata"]["ownerReferences"] = json!([
                { "apiVersion": "v1", "kind": "X", "name": name, "uid": name, "controller": true },
            ]);
        }
        let workload: api::Workload = serde_json::from_value(object).unwrap();
        (Id::of(&workload), workload)
    }

    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn the_oldest_workload_has_the_route_until_it_goes() {
        let mut routes = Routes::default();
        let (young, young_object) = workload("young", NEW, Some("a.example"), None);
        let (old, old_object) = workload("old", OLD, Some("a.example"), None);
        routes.update(&young, Some(&young_object));
        assert_eq!(routes.conflict(&young), None);
        assert!(
            routes.update(&old, Some(&old_object)).contains(&young),
            "it is told"
        );
        assert!(
            routes
                .conflict(&young)
                .is_some_and(|why| why.contains("ns/old"))
        );
        assert_eq!(routes.conflict(&old), None);
        assert!(
            routes.update(&old, Some(&old_object)).is_empty(),
            "nothing new"
        );
        assert!(routes.update(&old, None).contains(&young));
        assert_eq!(routes.conflict(&young), None);
    }

    #[test]
    fn of_one_second_the_first_by_namespace_and_name_has_the_route() {
        let mut routes = Routes::default();
        let (second, mut other) = workload("b", OLD, Some("a.example"), None);
        let (first, mut object) = workload("a", OLD, Some("a.example"), None);
        other.metadata.uid = Some("uid-1".to_owned());
        object.metadata.uid = Some("uid-2".to_owned());
        routes.update(&second, Some(&other));
        routes.update(&first, Some(&object));
        assert_eq!(routes.conflict(&first), None);
        let why = routes.conflict(&second).unwrap();
        assert!(why.contains("ns/a"), "{why}");
    }

    #[test]
    fn revisions_of_one_deployment_share_and_the_default_route_is_each_hosts_own() {
        let mut routes = Routes::default();
        for (name, created, host, deployment) in [
            ("one", OLD, Some("a.example"), Some("web")),
            ("two", NEW, Some("a.example"), Some("web")),
            ("three", OLD, None, None),
            ("four", NEW, None, None),
        ] {
            let (id, object) = workload(name, created, host, deployment);
            routes.update(&id, Some(&object));
        }
        for name in ["one", "two", "three", "four"] {
            assert_eq!(routes.conflict(&Id::new("ns", name)), None, "{name}");
        }
    }

    #[test]
    fn a_changed_owner_is_judged_anew() {
        let mut routes = Routes::default();
        let (one, object) = workload("one", OLD, Some("a.example"), None);
        let (two, other) = workload("two", NEW, Some("a.example"), Some("web"));
        routes.update(&one, Some(&object));
        routes.update(&two, Some(&other));
        assert!(routes.conflict(&two).is_some());
        let (_, adopted) = workload("one", OLD, Some("a.example"), Some("web"));
        assert!(routes.update(&one, Some(&adopted)).contains(&two));
        assert_eq!(routes.conflict(&two), None);
    }

    #[test]
    fn a_changed_route_is_claimed_anew() {
        let mut routes = Routes::default();
        let (one, object) = workload("one", OLD, Some("a.example"), None);
        let (two, other) = workload("two", NEW, Some("a.example"), None);
        routes.update(&one, Some(&object));
        routes.update(&two, Some(&other));
        assert!(routes.conflict(&two).is_some());
        let (_, moved) = workload("one", OLD, Some("b.example"), None);
        assert!(routes.update(&one, Some(&moved)).contains(&two));
        assert_eq!(routes.conflict(&two), None);
    }
}
