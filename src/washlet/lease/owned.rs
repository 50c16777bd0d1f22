//! A Lease that goes with its Node.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use tokio::time::Instant;

use super::{
    super::owner::{Owner, adopt},
    LeaseKeeper, Standing,
};

/// How often to look whether the owner is another one.
const OWNER: Duration = Duration::from_secs(60);

impl LeaseKeeper {
    /// Makes the Lease, unless its Node is gone.
    pub(super) async fn create(&mut self, now: Instant) -> Result<Standing, kube::Error> {
        let mut metadata = ObjectMeta {
            name: Some(self.name.clone()),
            ..ObjectMeta::default()
        };
        if let Some(owner) = &self.owner {
            match owner.read().await? {
                Owner::Is(owner) => drop(adopt(&mut metadata, owner)),
                Owner::None => {}
                Owner::Gone => return Ok(Standing::Unknown),
            }
            self.owner_read = Some(now);
        }
        let lease = Lease {
            metadata,
            spec: None,
        };
        let standing = self.write(lease).await?;
        self.made = true;
        Ok(standing)
    }

    /// Has the next write name the owner as it is now, if it was read some time ago. That it could not be read is no reason
    /// not to renew.
    pub(super) async fn refresh_owner(&mut self, lease: &mut ObjectMeta, now: Instant) {
        let Some(owner) = &self.owner else { return };
        if self
            .owner_read
            .is_some_and(|at| now.duration_since(at) < OWNER)
        {
            return;
        }
        self.owner_read = Some(now);
        let read = tokio::time::timeout(self.timing.timeout / 2, owner.read()).await;
        if let Ok(Ok(Owner::Is(owner))) = read {
            adopt(lease, owner);
        }
    }
}
