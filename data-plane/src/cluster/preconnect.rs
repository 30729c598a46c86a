//! Predictive preconnecting: before a request joins its pool, connections are made to the hosts that the next requests
//! will go to.

use std::rc::Rc;

use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::Priority;

use super::target::PoolKey;
use super::{Choice, Cluster};
use crate::pool::{AT_ONCE, Tally};
use crate::worker::state::Worker;

impl Cluster {
    /// Connects to as many hosts as the configuration wants for requests of this key.
    pub(super) fn connect_ahead(
        &self,
        tally: &Tally,
        choice: &Choice,
        priority: Priority,
        worker: &Rc<Worker>,
        key: impl Fn(&Host) -> PoolKey,
    ) {
        let ratio = self.config.preconnect.as_ref().map_or(1.0, |policy| policy.predictive_ratio);
        // An aggregate goes by the health of its members: nobody foresees that.
        if ratio <= 1.0 || choice.member.is_some() {
            return;
        }
        for _ in 0..AT_ONCE {
            if !tally.load().and_one().exceeds(ratio) {
                return;
            }
            let Some(host) = self.foresee(worker) else { return };
            let Some(pool) = self.pool_of(key(&host), &host, priority, worker) else { return };
            if !pool.connect_ahead(ratio) {
                return;
            }
        }
    }
}
