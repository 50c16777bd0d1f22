//! Keeps the agent's own objects: the Lease and the Host.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::watch;

use super::{
    super::{
        lease::{Handover, LeaseKeeper, Standing, Timing},
        owner::NodeOwner,
    },
    metrics::Metrics,
    node::{Facts, HostObject, Load},
};

/// The node's Lease, as a kubelet's. Within seconds of its release somebody has to write again.
pub(super) const LEASE: Timing = Timing {
    duration: Duration::from_secs(40),
    renew: Duration::from_secs(10),
    look: Duration::from_secs(2),
    timeout: Duration::from_secs(8),
};

/// What it needs.
pub(super) struct Keeper {
    pub client: Client,
    pub namespace: String,
    pub node: Arc<str>,
    pub instance: String,
    pub facts: Facts,
    pub metrics: Metrics,
}

impl Keeper {
    /// Runs until the Lease is released.
    pub async fn run(
        self,
        standing_tx: watch::Sender<Standing>,
        standing: watch::Receiver<Standing>,
        release: watch::Receiver<bool>,
        load: watch::Receiver<Load>,
        handover: Handover,
    ) {
        let owner = Arc::new(NodeOwner::new(self.client.clone(), &self.node));
        let object = HostObject {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            node: self.node.to_string(),
            facts: self.facts,
            owner: owner.clone(),
        };
        let host = tokio::spawn(object.run(standing, load));
        let lease = LeaseKeeper::new(
            self.client,
            (&self.namespace, &self.node),
            self.instance,
            LEASE,
            self.metrics.lease,
        );
        let lease = lease.owned_by(owner).with_handover(handover);
        lease.run(standing_tx, release).await;
        host.abort();
    }
}
