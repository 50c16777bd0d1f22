//! The node's Lease: whoever holds it writes; a second agent on the node stands by.
//!
//! As the kubelet's: 40 s, renewed every 10 s, written without reading first. Whether another holder is alive is judged by
//! whether its renewals move, on this machine's monotonic clock, so that no two clocks are ever compared.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};

use super::metrics::Metrics;

/// How long a Lease is valid without a renewal.
const DURATION: Duration = Duration::from_secs(40);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How often a standby looks whether the Lease is free: within seconds of its release somebody has to write again.
const LOOK: Duration = Duration::from_secs(2);
/// Longest time for one renewal: a connection that swallows requests must not stop the next try.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Waits after failed renewals.
const RETRY: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
];

/// Whether this agent may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not known yet.
    Unknown,
    /// This agent holds the Lease.
    Holder,
    /// Another agent does.
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

/// Keeps the Lease for as long as the agent runs.
pub(super) struct LeaseKeeper {
    api: Api<Lease>,
    name: String,
    me: String,
    owner: Option<OwnerReference>,
    held: Option<Lease>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
    seen: Option<Seen>,
    metrics: Metrics,
}

impl LeaseKeeper {
    /// A keeper of the Lease `name`; `me` must be the same for an agent and its restarted self, and differ from any other's.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: String,
        owner: Option<OwnerReference>,
        metrics: Metrics,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.to_owned(),
            me,
            owner,
            held: None,
            renewed: None,
            seen: None,
            metrics,
        }
    }

    /// Renews until `release` says so, then gives the Lease up.
    pub async fn run(
        mut self,
        standing: watch::Sender<Standing>,
        mut release: watch::Receiver<bool>,
    ) {
        let mut failures = 0;
        loop {
            let tick = tokio::time::timeout(TIMEOUT, self.tick(Instant::now())).await;
            let wait = match tick.map_err(|_| "no answer".to_owned()).and_then(told) {
                Ok(new) => {
                    failures = 0;
                    self.announce(&standing, new);
                    if new == Standing::Standby {
                        LOOK
                    } else {
                        RENEW
                    }
                }
                Err(error) => {
                    self.metrics.lease_renewals_failed.inc();
                    tracing::warn!(lease = self.name, %error, "lease not renewed; trying again");
                    if lapsed(*standing.borrow(), self.renewed, Instant::now()) {
                        self.announce(&standing, Standing::Unknown);
                    }
                    failures += 1;
                    RETRY
                        .get(failures - 1)
                        .or(RETRY.last())
                        .copied()
                        .unwrap_or(RENEW)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = release.wait_for(|release| *release) => break,
            }
        }
        self.release().await;
    }

    fn announce(&self, standing: &watch::Sender<Standing>, new: Standing) {
        let changed = standing.send_if_modified(|s| std::mem::replace(s, new) != new);
        if changed {
            tracing::info!(lease = self.name, standing = ?new, "lease");
        }
        self.metrics
            .lease_held
            .set(i64::from(new == Standing::Holder));
    }

    async fn tick(&mut self, now: Instant) -> Result<Standing, kube::Error> {
        if let Some(held) = self.held.clone() {
            match self.write(held).await {
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    self.held = None;
                }
                written => return written,
            }
        }
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|l| l.spec.as_ref());
        match decide(spec, lease.is_some(), &self.me, &mut self.seen, now) {
            Action::Create => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                self.write(Lease {
                    metadata,
                    spec: None,
                })
                .await
            }
            Action::Take => self.write(lease.unwrap_or_default()).await,
            Action::StandBy => Ok(Standing::Standby),
        }
    }

    /// Writes the Lease as this agent's.
    async fn write(&mut self, mut lease: Lease) -> Result<Standing, kube::Error> {
        let begun = Instant::now();
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.me);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
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
    async fn release(mut self) {
        let Some(mut lease) = self.held.take() else {
            return;
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        let params = PostParams::default();
        let released = self.api.replace(&self.name, &params, &lease);
        match tokio::time::timeout(Duration::from_secs(5), released).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "lease released"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "lease not released"),
            Err(_) => tracing::warn!(lease = self.name, "lease not released: no answer"),
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

/// Whether a holder has to reckon that another agent has taken the Lease, which it could not renew in time.
fn lapsed(standing: Standing, renewed: Option<Instant>, now: Instant) -> bool {
    standing == Standing::Holder && renewed.is_none_or(|at| now.duration_since(at) >= DURATION)
}

fn decide(
    spec: Option<&LeaseSpec>,
    exists: bool,
    me: &str,
    seen: &mut Option<Seen>,
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
        .map_or(DURATION, Duration::from_secs);
    match seen {
        Some(s) if now.duration_since(s.at) >= valid => Action::Take,
        _ => Action::StandBy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, second: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(40),
            renew_time: Timestamp::from_second(second).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_free_lease_is_taken_and_a_missing_one_made() {
        let now = Instant::now();
        assert_eq!(decide(None, false, "me", &mut None, now), Action::Create);
        assert_eq!(decide(None, true, "me", &mut None, now), Action::Take);
        assert_eq!(
            decide(Some(&LeaseSpec::default()), true, "me", &mut None, now),
            Action::Take
        );
        assert_eq!(
            decide(Some(&held_by("me", 1)), true, "me", &mut None, now),
            Action::Take,
            "a restarted self"
        );
    }

    #[test]
    fn another_holder_is_alive_as_long_as_its_renewals_move() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut seen = None;
        // Its clock is years behind: only movement counts.
        assert_eq!(
            decide(Some(&held_by("other", 1)), true, "me", &mut seen, at(0)),
            Action::StandBy
        );
        assert_eq!(
            decide(Some(&held_by("other", 1)), true, "me", &mut seen, at(39)),
            Action::StandBy
        );
        assert_eq!(
            decide(Some(&held_by("other", 2)), true, "me", &mut seen, at(45)),
            Action::StandBy
        );
        assert_eq!(
            decide(Some(&held_by("other", 2)), true, "me", &mut seen, at(84)),
            Action::StandBy
        );
        assert_eq!(
            decide(Some(&held_by("other", 2)), true, "me", &mut seen, at(85)),
            Action::Take
        );
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_writing_when_another_may_begin() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let lapsed = |standing, s| lapsed(standing, Some(start), at(s));
        assert!(!lapsed(Standing::Holder, 39));
        assert!(lapsed(Standing::Holder, 40));
        assert!(!lapsed(Standing::Standby, 90), "it has nothing to lose");
    }

    #[test]
    fn renewals_move_forward_though_the_clock_does_not() {
        let t = |s| MicroTime(Timestamp::from_second(s).unwrap_or_default());
        assert_eq!(later(Some(t(10)), t(20)), t(20));
        assert!(later(Some(t(20)), t(10)).0 > t(20).0);
    }
}
