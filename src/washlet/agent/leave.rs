//! The agent's end. With another agent of the node prepared to go on, nobody notices: the Lease is handed over with all that
//! the status says, and this agent serves until its clients have moved. Alone, it says that it drains, and drains.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{
        api,
        lease::{Standing, has_standby},
        shutdown::Shutdown,
    },
    keeper::LEASE,
    node::Facts,
};
use crate::{host::Host, plugin::wasi_http::HttpServer};

/// Longest time for all workloads to finish their requests at shutdown: with the last writes and the release of the Lease, less
/// than a minute.
const DRAIN_LIMIT: Duration = Duration::from_secs(45);
/// Longest time to find out whether another agent is prepared.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// Longest time for the last writes before a handover; what is not written by then is the next agent's to write.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// Longest time until the Lease is somebody's again; this agent takes it back before.
const TAKEN_LIMIT: Duration = Duration::from_secs(10);
/// Longest time until the Host object shows the other agent's address.
const MOVED_LIMIT: Duration = Duration::from_secs(10);
/// How often to look for that.
const POLL: Duration = Duration::from_millis(500);
/// How long clients take to follow: the controller writes endpoints, and every node's proxy reads them.
const FOLLOW: Duration = Duration::from_secs(3);

/// How far the agent is on its way out; the main loop acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is not.
    Running,
    /// It is about to hand over: what is still to be written is written now.
    HandingOver,
    /// It stops its workloads.
    Draining,
}

/// How far the main loop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported {
    /// The phase that it has entered.
    pub phase: Phase,
    /// Whether all is written.
    pub settled: bool,
}

impl Reported {
    /// Nothing is reported yet.
    pub const NOTHING: Self = Self {
        phase: Phase::Running,
        settled: false,
    };
}

/// What it takes to leave.
pub(super) struct Leave {
    pub client: Client,
    pub namespace: String,
    pub node: Arc<str>,
    pub instance: String,
    pub facts: Facts,
    pub host: Arc<Host>,
    pub http: Arc<HttpServer>,
    pub standing: watch::Receiver<Standing>,
    pub phase: watch::Sender<Phase>,
    pub reported: watch::Receiver<Reported>,
    /// Has the Lease handed over.
    pub hand_over: watch::Sender<bool>,
}

impl Leave {
    /// Once the shutdown begins, ends the workloads; ready when they have ended.
    pub async fn run(mut self, shutdown: Shutdown) {
        shutdown.begun().await;
        tokio::select! {
            handed_over = self.try_hand_over() => if handed_over {
                tracing::info!("handed over to another agent of this node");
            },
            () = shutdown.cut() => {}
        }
        self.http.send_away();
        self.phase.send_replace(Phase::Draining);
        // First it is said, then it is done.
        let entered = |reported: &Reported| reported.phase == Phase::Draining;
        let _ = self.reported.wait_for(entered).await;
        tokio::select! {
            cut = self.host.stop(DRAIN_LIMIT) => if cut > 0 {
                tracing::warn!(workloads = cut, "not drained in time; cut");
            },
            () = shutdown.cut() => tracing::warn!("asked twice to stop; not waiting for requests in flight"),
        }
    }

    /// Hands over to another agent, if one is prepared, and waits until clients have moved.
    async fn try_hand_over(&mut self) -> bool {
        if *self.standing.borrow() != Standing::Holder || !self.has_standby().await {
            return false;
        }
        tracing::info!("shutting down: another agent of this node is prepared to go on");
        self.phase.send_replace(Phase::HandingOver);
        // Not in time, or the loop has ended: the other agent writes the rest.
        let written =
            |reported: &Reported| reported.phase == Phase::HandingOver && reported.settled;
        let _ = timeout(LAST_WRITES, self.reported.wait_for(written)).await;
        self.hand_over.send_replace(true);
        if !self.taken().await {
            tracing::warn!("nobody took the node's Lease");
            return false;
        }
        // A client that keeps its connection would never look where the Service leads.
        self.http.send_away();
        self.moved().await;
        sleep(FOLLOW).await;
        self.http.close_connections().await;
        true
    }

    async fn has_standby(&self) -> bool {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = timeout(LOOK_LIMIT, leases.get_opt(&self.node)).await;
        let Ok(Ok(Some(lease))) = lease else {
            return false;
        };
        has_standby(&lease, &self.instance, LEASE.duration, Timestamp::now())
    }

    /// Waits until another agent holds the Lease; false if none does.
    async fn taken(&mut self) -> bool {
        let handed = |standing: &Standing| *standing != Standing::Holder;
        let taken = async {
            self.standing.wait_for(handed).await.ok()?;
            let decided = |standing: &Standing| *standing != Standing::Unknown;
            let standing = *self.standing.wait_for(decided).await.ok()?;
            Some(standing == Standing::Standby)
        };
        matches!(timeout(TAKEN_LIMIT, taken).await, Ok(Some(true)))
    }

    /// Waits until the Host object leads to the other agent; without an address of its own, nobody follows it.
    async fn moved(&self) {
        if self.facts.addresses.is_empty() {
            return;
        }
        let hosts: Api<api::Host> = Api::namespaced(self.client.clone(), &self.namespace);
        let end = Instant::now() + MOVED_LIMIT;
        while Instant::now() < end {
            if let Ok(Ok(Some(host))) = timeout(LOOK_LIMIT, hosts.get_opt(&self.node)).await
                && !self.facts.are_of(&host)
            {
                return;
            }
            sleep(POLL).await;
        }
        tracing::warn!("the other agent has not published its address yet");
    }
}
