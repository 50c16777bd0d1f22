//! Handing a Lease over to a process that is prepared and waits for it.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{LeaseKeeper, Standing};

/// Who is prepared to take the Lease.
const STANDBY: &str = "washlet.dev/standby";
/// When it last said so.
const RENEWED: &str = "washlet.dev/standby-renewed";
/// How often who is prepared looks whether the Lease is free.
const LOOK: Duration = Duration::from_millis(500);
/// How long who has handed the Lease over waits for somebody to take it, before it takes it back.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two ends of a handover; a process has both, and uses one.
pub(in crate::washlet) struct Handover {
    /// Whether this process is prepared to take the Lease.
    prepared: watch::Receiver<bool>,
    /// Whether it wants to hand it over.
    wanted: watch::Receiver<bool>,
    /// Whether it has said so on the Lease.
    said: watch::Sender<bool>,
    announced: Option<Instant>,
    /// It has handed the Lease over, and does not take it before this time.
    not_before: Option<Instant>,
    done: bool,
}

impl Handover {
    /// Announces this process while it stands by and `prepared` says so, and tells `said` when that is done; hands over when
    /// `wanted` says so.
    pub fn new(
        prepared: watch::Receiver<bool>,
        wanted: watch::Receiver<bool>,
        said: watch::Sender<bool>,
    ) -> Self {
        Self {
            prepared,
            wanted,
            said,
            announced: None,
            not_before: None,
            done: false,
        }
    }

    fn is_prepared(&self) -> bool {
        *self.prepared.borrow() && !self.done
    }
}

/// Why to act before it is time.
pub(super) enum News {
    /// This process is prepared to take the Lease.
    Prepared,
    /// It wants to hand it over.
    Wanted,
}

/// Ready when there is something to do.
pub(super) async fn news(handover: &mut Option<Handover>) -> News {
    if let Some(handover) = handover.as_mut().filter(|h| !h.done) {
        tokio::select! {
            Ok(_) = handover.wanted.wait_for(|wanted| *wanted) => return News::Wanted,
            Ok(()) = handover.prepared.changed() => return News::Prepared,
            else => {}
        }
    }
    std::future::pending().await
}

impl LeaseKeeper {
    /// How long to wait before looking at another's Lease again.
    pub(super) fn look(&self) -> Duration {
        let often = |h: &Handover| h.is_prepared() || h.not_before.is_some();
        if self.handover.as_ref().is_some_and(often) {
            LOOK
        } else {
            self.timing.look
        }
    }

    /// Gives the Lease up, for somebody else to take.
    pub(super) async fn hand_over(&mut self, standing: &watch::Sender<Standing>) {
        // First this process stops acting.
        self.announce(standing, Standing::Unknown);
        if let Some(handover) = &mut self.handover {
            handover.done = true;
            handover.not_before = Some(Instant::now() + PATIENCE);
        }
        self.release().await;
    }

    /// Whether the Lease was handed over a moment ago.
    pub(super) fn waits_for_another(&self, now: Instant) -> bool {
        let not_before = self.handover.as_ref().and_then(|h| h.not_before);
        not_before.is_some_and(|at| now < at)
    }

    /// Says on the Lease that this process is prepared, if it is and the last time is some time ago. That it may not is no
    /// harm: the holder then ends as if it were alone.
    pub(super) async fn announce_standby(&mut self, now: Instant) {
        let renew = self.timing.renew;
        let Some(handover) = &mut self.handover else {
            return;
        };
        let due = handover
            .announced
            .is_none_or(|at| now.duration_since(at) >= renew);
        if !handover.is_prepared() || !due {
            return;
        }
        handover.announced = Some(now);
        let time = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            .to_string();
        let said = self.annotate(Some((&self.me, &time))).await;
        if let Some(handover) = &mut self.handover {
            if said {
                handover.said.send_replace(true);
            } else {
                handover.announced = None;
            }
        }
    }

    /// Takes the announcement back.
    pub(super) async fn withdraw(&mut self) {
        let handover = self.handover.as_mut();
        if handover.is_some_and(|h| h.announced.take().is_some()) && self.held.is_none() {
            self.annotate(None).await;
        }
    }

    /// Says whether the API server has taken or refused it.
    async fn annotate(&self, standby: Option<(&str, &str)>) -> bool {
        let annotations = json!({ STANDBY: standby.map(|s| s.0), RENEWED: standby.map(|s| s.1) });
        let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
        let params = PatchParams::default();
        let patched = self.api.patch(&self.name, &params, &patch);
        match tokio::time::timeout(self.timing.timeout, patched).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                let forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
                tracing::warn!(lease = self.name, %error, "standby not announced");
                forbidden
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "standby not announced: no answer");
                false
            }
        }
    }
}

/// Removes one's own announcement from a Lease that one takes.
pub(super) fn strip(metadata: &mut ObjectMeta, me: &str) {
    if let Some(annotations) = &mut metadata.annotations
        && annotations
            .get(STANDBY)
            .is_some_and(|standby| standby == me)
    {
        annotations.remove(STANDBY);
        annotations.remove(RENEWED);
    }
}

/// Whether somebody other than `me` is prepared to take a Lease, and alive. Both are on one machine, and so share its clock.
pub(in crate::washlet) fn has_standby(
    lease: &Lease,
    me: &str,
    valid: Duration,
    now: Timestamp,
) -> bool {
    let none = BTreeMap::new();
    let annotations = lease.metadata.annotations.as_ref().unwrap_or(&none);
    let other = annotations
        .get(STANDBY)
        .is_some_and(|standby| standby != me);
    let renewed: Option<Timestamp> = annotations.get(RENEWED).and_then(|t| t.parse().ok());
    let valid = SignedDuration::try_from(valid).unwrap_or(SignedDuration::MAX);
    other && renewed.is_some_and(|at| now.duration_since(at).abs() < valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_another_one_that_said_so_lately() {
        let lease = |standby: &str, renewed: &str| Lease {
            metadata: ObjectMeta {
                annotations: Some(
                    [(STANDBY, standby), (RENEWED, renewed)]
                        .map(|(k, v)| (k.to_owned(), v.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        };
        let now: Timestamp = "2026-01-01T00:01:00.000000Z".parse().expect("a time");
        let valid = Duration::from_secs(40);
        let cases = [
            ("other", "2026-01-01T00:00:21.000000Z", true),
            ("other", "2026-01-01T00:00:20.000000Z", false),
            ("me", "2026-01-01T00:00:59.000000Z", false),
            ("other", "", false),
            ("other", "yesterday", false),
        ];
        for (standby, renewed, expected) in cases {
            let found = has_standby(&lease(standby, renewed), "me", valid, now);
            assert_eq!(found, expected, "{standby} {renewed}");
        }
        assert!(!has_standby(&Lease::default(), "me", valid, now));

        let mut mine = lease("me", "").metadata;
        strip(&mut mine, "other");
        assert_eq!(mine.annotations.as_ref().map(BTreeMap::len), Some(2));
        strip(&mut mine, "me");
        assert_eq!(mine.annotations.as_ref().map(BTreeMap::len), Some(0));
    }
}
