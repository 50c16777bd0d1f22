//! Leases: whoever holds one acts; others stand by. An agent keeps the Lease of its node, a controller that of its kind.
//!
//! As the kubelet's: renewed at a part of its duration, written without reading first. Whether another holder is alive is
//! judged by whether its renewals move, on this machine's monotonic clock, so that no two clocks are ever compared.
//!
//! A Lease can be handed over ([`Handover`]): who stands by announces on it that it is prepared, and then looks often; the
//! holder that wants to go gives it up, and takes it back if nobody comes.

mod handover;
mod owned;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{sync::watch, time::Instant};

use self::handover::News;
use super::owner::NodeOwner;

pub(super) use handover::{Handover, has_standby};

/// The times of a Lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// How long it is valid without a renewal.
    pub duration: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How often who stands by looks whether it is free.
    pub look: Duration,
    /// Longest time for one renewal: a connection that swallows requests must not stop the next try.
    pub timeout: Duration,
}

/// What is counted of a Lease.
#[derive(Debug, Clone, Default)]
pub(super) struct Meters {
    /// 1 while it is held, else 0.
    pub held: Gauge,
    /// Renewals that failed.
    pub renewals_failed: Counter,
}

/// Waits after failed renewals.
const RETRY: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
];

/// Whether this process may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not known yet.
    Unknown,
    /// This process holds the Lease.
    Holder,
    /// Another one does.
    Standby,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Create,
    Take,
    StandBy,
}

/// Another holder's last renewal, and when it was first seen here.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    at: Instant,
}

/// Keeps a Lease for as long as the process runs.
pub(super) struct LeaseKeeper {
    api: Api<Lease>,
    name: String,
    me: String,
    owner: Option<Arc<NodeOwner>>,
    /// When that was read.
    owner_read: Option<Instant>,
    /// It has made the Lease, which nobody was told.
    made: bool,
    timing: Timing,
    held: Option<Lease>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
    seen: Option<Seen>,
    meters: Meters,
    handover: Option<Handover>,
}

impl LeaseKeeper {
    /// A keeper of the Lease `name`; `me` must be the same for a process and its restarted self, and differ from any other's.
    pub fn new(
        client: Client,
        (namespace, name): (&str, &str),
        me: String,
        timing: Timing,
        meters: Meters,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.to_owned(),
            me,
            owner: None,
            owner_read: None,
            made: false,
            timing,
            held: None,
            renewed: None,
            seen: None,
            meters,
            handover: None,
        }
    }

    /// Lets the Lease be handed over.
    pub fn with_handover(mut self, handover: Handover) -> Self {
        self.handover = Some(handover);
        self
    }

    /// Has the Lease go with this Node.
    pub fn owned_by(mut self, owner: Arc<NodeOwner>) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Renews until `release` says so, then gives the Lease up. Tells how it stands when that changes, and when the Lease had to
    /// be made.
    pub async fn run(
        mut self,
        standing: watch::Sender<Standing>,
        mut release: watch::Receiver<bool>,
    ) {
        let mut failures = 0;
        loop {
            let tick = tokio::time::timeout(self.timing.timeout, self.tick(Instant::now())).await;
            let wait = match tick.map_err(|_| "no answer".to_owned()).and_then(told) {
                Ok(new) => {
                    failures = 0;
                    self.announce(&standing, new);
                    match new {
                        Standing::Holder => self.timing.renew,
                        _ => self.look(),
                    }
                }
                Err(error) => {
                    self.meters.renewals_failed.inc();
                    tracing::warn!(lease = self.name, %error, "lease not renewed; trying again");
                    let lapsed = lapsed(
                        *standing.borrow(),
                        self.renewed,
                        // Before anybody else may begin, as long as a renewal that gets no answer may take.
                        self.timing.duration * 2 / 3,
                        Instant::now(),
                    );
                    if lapsed {
                        self.announce(&standing, Standing::Unknown);
                    }
                    failures += 1;
                    RETRY
                        .get(failures - 1)
                        .or(RETRY.last())
                        .copied()
                        .unwrap_or(self.timing.renew)
                        .min(self.timing.renew)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = async { drop(release.wait_for(|release| *release).await) } => break,
                news = handover::news(&mut self.handover) => match news {
                    // Which is said on the Lease at once.
                    News::Prepared => {}
                    News::Wanted => self.hand_over(&standing).await,
                },
            }
        }
        self.withdraw().await;
        self.release().await;
    }

    fn announce(&mut self, standing: &watch::Sender<Standing>, new: Standing) {
        let made = std::mem::take(&mut self.made);
        let mut changed = false;
        standing.send_if_modified(|s| {
            changed = std::mem::replace(s, new) != new;
            changed || made
        });
        if changed {
            tracing::info!(lease = self.name, standing = ?new, "lease");
        }
        self.meters.held.set(i64::from(new == Standing::Holder));
    }

    async fn tick(&mut self, now: Instant) -> Result<Standing, kube::Error> {
        if let Some(mut held) = self.held.clone() {
            self.refresh_owner(&mut held.metadata, now).await;
            match self.write(held).await {
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    self.held = None;
                }
                written => return written,
            }
        }
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|l| l.spec.as_ref());
        let fallback = self.timing.duration;
        match decide(
            (spec, lease.is_some()),
            &self.me,
            &mut self.seen,
            fallback,
            now,
        ) {
            Action::Create | Action::Take if self.waits_for_another(now) => Ok(Standing::Unknown),
            Action::Create => self.create(now).await,
            Action::Take => {
                let mut lease = lease.unwrap_or_default();
                self.refresh_owner(&mut lease.metadata, now).await;
                self.write(lease).await
            }
            Action::StandBy => {
                self.announce_standby(now).await;
                Ok(Standing::Standby)
            }
        }
    }

    /// Writes the Lease as this process's.
    async fn write(&mut self, mut lease: Lease) -> Result<Standing, kube::Error> {
        let begun = Instant::now();
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.me);
        handover::strip(&mut lease.metadata, &self.me);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX),
            ),
            acquire_time: if mine {
                before.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(later(before.renew_time, now)),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!mine)),
            ..LeaseSpec::default()
        });
        let params = PostParams::default();
        let written = match lease.metadata.resource_version {
            Some(_) => self.api.replace(&self.name, &params, &lease).await?,
            None => self.api.create(&params, &lease).await?,
        };
        self.held = Some(written);
        self.renewed = Some(begun);
        Ok(Standing::Holder)
    }

    /// Clears the holder, and leaves the time of the last renewal as it is.
    async fn release(&mut self) {
        let Some(lease) = self.held.take() else {
            return;
        };
        match tokio::time::timeout(Duration::from_secs(5), self.clear(lease)).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "lease released"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "lease not released"),
            Err(_) => tracing::warn!(lease = self.name, "lease not released: no answer"),
        }
    }

    async fn clear(&self, mut lease: Lease) -> Result<(), kube::Error> {
        loop {
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
            }
            let params = PostParams::default();
            match self.api.replace(&self.name, &params, &lease).await {
                // Who stands by has announced itself since the last renewal.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                written => return written.map(drop),
            }
            let now = self.api.get_opt(&self.name).await?;
            let holder = |l: &Lease| l.spec.as_ref()?.holder_identity.clone();
            match now.filter(|lease| holder(lease).as_ref() == Some(&self.me)) {
                Some(now) => lease = now,
                None => return Ok(()),
            }
        }
    }
}

fn told(result: Result<Standing, kube::Error>) -> Result<Standing, String> {
    result.map_err(|error| error.to_string())
}

/// A renewal is never earlier than the one before, whatever the clock did.
fn later(before: Option<MicroTime>, now: MicroTime) -> MicroTime {
    match before {
        Some(MicroTime(before)) if before >= now.0 => MicroTime(
            before
                .checked_add(jiff::SignedDuration::from_micros(1))
                .unwrap_or(before),
        ),
        _ => now,
    }
}

/// Whether a holder has to reckon that another one has taken the Lease, which it could not renew in time.
fn lapsed(standing: Standing, renewed: Option<Instant>, duration: Duration, now: Instant) -> bool {
    standing == Standing::Holder && renewed.is_none_or(|at| now.duration_since(at) >= duration)
}

/// What to do about a Lease of this specification; `duration` is what holds where it names none.
fn decide(
    (spec, exists): (Option<&LeaseSpec>, bool),
    me: &str,
    seen: &mut Option<Seen>,
    duration: Duration,
    now: Instant,
) -> Action {
    if !exists {
        return Action::Create;
    }
    let holder = spec
        .and_then(|s| s.holder_identity.as_deref())
        .filter(|h| !h.is_empty());
    let (Some(spec), Some(holder)) = (spec, holder) else {
        return Action::Take;
    };
    if holder == me {
        return Action::Take;
    }
    let moved = seen
        .as_ref()
        .is_none_or(|s| s.holder != holder || s.renewed != spec.renew_time);
    if moved {
        *seen = Some(Seen {
            holder: holder.to_owned(),
            renewed: spec.renew_time.clone(),
            at: now,
        });
    }
    let valid = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(duration, Duration::from_secs);
    match seen {
        Some(s) if now.duration_since(s.at) >= valid => Action::Take,
        _ => Action::StandBy,
    }
}
