//! `local_ratelimit`: so many connections in a time; others are closed at once.

use std::sync::Arc;

use sail_proxy_config::listener::ListenerLocalRateLimit;

use super::Refused;
use crate::stats::sets::listener_local_rate_limit as stats;
use crate::worker::state::Worker;

pub(super) fn run(config: &Arc<ListenerLocalRateLimit>, worker: &Worker) -> Result<(), Refused> {
    if !config.enabled.now(worker.runtime()) || worker.shared.buckets.take(config, config.bucket) {
        return Ok(());
    }
    let scope: stats::Scope = worker.shared.store.pinned(&config.stat_prefix);
    scope.inc(stats::rate_limited);
    Err(Refused::Limited)
}
