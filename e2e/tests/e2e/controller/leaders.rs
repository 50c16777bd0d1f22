//! Several controllers, of which one leads.

use std::time::Duration;

use anyhow::{Result, ensure};
use washlet_e2e::{Controller, with_namespace};

use super::{Fleet, workload};
use crate::stage::ready;

/// The Lease of a leader that was killed expires after 15 s.
const TAKEN_OVER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn one_leads_and_the_other_takes_over() -> Result<()> {
    with_namespace(async |ns| {
        let mut fleet = Fleet::start(ns, 1).await?;
        let image = fleet.push(ns, "v1", "v1").await?;
        let mut second = Controller::start(ns).await?;
        ns.apply(workload("one", &image, |_| {})).await?;
        ready(ns, "one").await?;
        ensure!(!second.has_led()?, "both lead");
        ensure!(
            second
                .metrics()
                .await?
                .contains("washlet_controller_leading 0")
        );

        fleet.controller.kill9();
        ns.apply(workload("two", &image, |_| {})).await?;
        second.wait_leading(TAKEN_OVER).await?;
        ready(ns, "two").await?;

        // One that is told to go gives its Lease back, so that nobody waits for it to expire.
        let mut third = Controller::start(ns).await?;
        ensure!(second.terminate().await? == 0);
        third.wait_leading(Duration::from_secs(8)).await?;
        ns.apply(workload("three", &image, |_| {})).await?;
        ready(ns, "three").await
    })
    .await
}
