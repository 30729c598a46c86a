//! Whether the proxy is ready: it got clusters and listeners, it is live, and its workers run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::{self, Admin};

const CONFIG_FILTER: &str =
    r"^(cluster_manager\.cds|listener_manager\.lds)\.(update_success|update_rejected)$";
const STATE_FILTER: &str = r"^(server\.state|listener_manager\.workers_started)";
/// `server.state`
const LIVE: u64 = 0;
const STATES: [&str; 4] = ["LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"];

/// Why the proxy is not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be asked.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// It has no configuration.
    #[error(
        "config not received from XDS server (is the control plane running?): cds updates: {cds_success} successful, \
         {cds_rejected} rejected; lds updates: {lds_success} successful, {lds_rejected} rejected"
    )]
    NoConfig {
        /// Taken.
        cds_success: u64,
        /// Refused.
        cds_rejected: u64,
        /// Taken.
        lds_success: u64,
        /// Refused.
        lds_rejected: u64,
    },
    /// It is starting or ending.
    #[error("server is not live, current state is: {0}")]
    NotLive(&'static str),
    /// It accepts nothing yet.
    #[error("workers have not yet started")]
    NoWorkers,
}

/// Remembers that the proxy had its configuration, which it then keeps.
#[derive(Debug, Default)]
pub struct Readiness {
    disabled: bool,
    configured: AtomicBool,
}

impl Readiness {
    /// For an agent that runs a proxy, or for one that does not and is always ready.
    pub fn new(proxy_disabled: bool) -> Self {
        Self { disabled: proxy_disabled, configured: AtomicBool::new(false) }
    }

    /// To be called when the proxy ends: the next one has no configuration.
    pub fn proxy_ended(&self) {
        self.configured.store(false, Ordering::Relaxed);
    }

    pub(super) async fn check(&self, admin: &Admin) -> Result<(), Error> {
        if self.disabled {
            return Ok(());
        }
        if !self.configured.load(Ordering::Relaxed) {
            check_config(&admin.stats(CONFIG_FILTER).await?)?;
        }
        check_state(&admin.stats(STATE_FILTER).await?)?;
        self.configured.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn check_config(stats: &BTreeMap<String, u64>) -> Result<(), Error> {
    let get = |name: &str| stats.get(name).copied().unwrap_or(0);
    let (cds_success, lds_success) =
        (get("cluster_manager.cds.update_success"), get("listener_manager.lds.update_success"));
    if cds_success > 0 && lds_success > 0 {
        return Ok(());
    }
    Err(Error::NoConfig {
        cds_success,
        cds_rejected: get("cluster_manager.cds.update_rejected"),
        lds_success,
        lds_rejected: get("listener_manager.lds.update_rejected"),
    })
}

/// `usedonly` leaves out what was never set: a state that is missing was never changed from its first value.
fn check_state(stats: &BTreeMap<String, u64>) -> Result<(), Error> {
    match stats.get("server.state") {
        Some(&LIVE) => {}
        Some(&state) => {
            let name = usize::try_from(state).ok().and_then(|state| STATES.get(state));
            return Err(Error::NotLive(name.copied().unwrap_or("unknown")));
        }
        None => return Err(Error::NotLive("unknown")),
    }
    if stats.get("listener_manager.workers_started") == Some(&1) { Ok(()) } else { Err(Error::NoWorkers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn says_what_is_missing() {
        let check = |of: &[(&str, u64)], expect: &str| {
            let error = check_config(&stats(of)).and_then(|()| check_state(&stats(of))).unwrap_err();
            assert!(error.to_string().contains(expect), "{error}");
        };
        let cds = ("cluster_manager.cds.update_success", 1);
        let lds = ("listener_manager.lds.update_success", 1);
        check(&[cds, ("listener_manager.lds.update_rejected", 2)], "lds updates: 0 successful, 2 rejected");
        check(&[cds, lds, ("server.state", 1)], "DRAINING");
        check(&[cds, lds, ("server.state", 0)], "workers");
        let ready = stats(&[("server.state", 0), ("listener_manager.workers_started", 1)]);
        assert!(check_state(&ready).is_ok());
    }
}
