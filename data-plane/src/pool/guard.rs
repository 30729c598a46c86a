//! Counts a connection for as long as it lasts: in the statistics, at its host, and in the limits.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use sail_proxy_decide::host::Host;

use super::limits::Permit;
use super::{Facts, Pool};
use crate::stats::sets::cluster;

/// See the module's documentation.
pub(crate) struct ConnectionGuard {
    pool: Rc<Pool>,
    pub(crate) info: Facts,
    permit: Option<Permit>,
    since: Instant,
}

impl ConnectionGuard {
    pub(super) fn new(pool: &Rc<Pool>, info: Facts, permit: Permit) -> Self {
        pool.stats.move_by(cluster::upstream_cx_active, 1);
        pool.connector.host.state.active_connections.fetch_add(1, Relaxed);
        Self { pool: pool.clone(), info, permit: Some(permit), since: Instant::now() }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let stats = &self.pool.stats;
        stats.move_by(cluster::upstream_cx_active, -1);
        self.pool.connector.host.state.active_connections.fetch_sub(1, Relaxed);
        stats.inc(cluster::upstream_cx_destroy);
        stats.record(cluster::upstream_cx_length_ms, self.since.elapsed().as_millis() as u64);
        // The place is free before the next in line asks for one.
        self.permit = None;
        self.pool.connection_closed();
    }
}

/// A request that waits for a connection to a host.
pub(super) struct Pending(Arc<Host>);

impl Pending {
    pub(super) fn new(host: &Arc<Host>) -> Self {
        host.state.pending_requests.fetch_add(1, Relaxed);
        Self(host.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.state.pending_requests.fetch_sub(1, Relaxed);
    }
}
