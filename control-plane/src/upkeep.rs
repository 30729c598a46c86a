//! What has to be looked after while saild runs: the authority's root and saild's own certificate.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use saild_ca::Ca;
use saild_ca::serving::Serving;
use tracing::{error, info};

/// How often. Plugged certificates that the operator replaced are taken over after this time at the latest.
const INTERVAL: Duration = Duration::from_secs(10);

/// Renews what nears its end, for ever. What cannot be renewed stays, and is tried again.
pub(crate) async fn run(ca: Arc<Ca>, serving: Arc<Serving>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        match ca.refresh(now) {
            Ok(true) => {
                info!(until = %ca.authority().info().not_after, "the authority has a new certificate");
                if let Err(error) = serving.renew(&ca, now) {
                    error!("the serving certificate was not renewed: {error}");
                }
            }
            Ok(false) => {}
            Err(error) => error!("the authority stays as it is: {error}"),
        }
        match serving.refresh(&ca, now) {
            Ok(true) => info!("the serving certificate was renewed"),
            Ok(false) => {}
            Err(error) => error!("the serving certificate was not renewed: {error}"),
        }
    }
}
