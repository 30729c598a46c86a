//! The choice of a host among a cluster's endpoints.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sail_proxy_config::cluster::Cluster as Config;
use sail_proxy_decide::host::{Endpoints, Health, Host, HostSet};
use sail_proxy_decide::lb::LbPolicy;

use super::LbContext;

/// What a balancer remembers between choices.
#[derive(Default)]
pub(crate) struct Balancer {
    next: Cell<usize>,
}

impl Balancer {
    pub(crate) fn choose(
        &self,
        config: &Config,
        endpoints: &Endpoints,
        context: &LbContext<'_>,
        random: impl Fn() -> u64,
    ) -> Option<Arc<Host>> {
        for level in [Health::Healthy, Health::Degraded] {
            for set in &endpoints.priorities {
                if let Some(host) = self.choose_in(config, set, level, context, &random) {
                    return Some(host);
                }
            }
        }
        // Panic: better any host than none.
        if config.common_lb.panic_threshold > 0.0 {
            let set = endpoints.priorities.iter().find(|set| !set.hosts.is_empty())?;
            return self.choose_in(config, set, Health::Unhealthy, context, &random);
        }
        None
    }

    fn choose_in(
        &self,
        config: &Config,
        set: &HostSet,
        level: Health,
        context: &LbContext<'_>,
        random: impl Fn() -> u64,
    ) -> Option<Arc<Host>> {
        let fits = |host: &&Arc<Host>| host.health() >= level;
        let count = set.hosts.iter().filter(fits).count();
        let nth = |index: u64| set.hosts.iter().filter(fits).nth(index as usize % count);
        if count == 0 {
            return None;
        }
        if count == 1 {
            return nth(0).cloned();
        }
        match &config.lb {
            LbPolicy::LeastRequest { choice_count, .. } => {
                let load = |host: &&Arc<Host>| host.state.active_requests.load(Relaxed);
                (0..(*choice_count).max(1)).filter_map(|_| nth(random())).min_by_key(load).cloned()
            }
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                let key = context.hash.unwrap_or_else(&random);
                // The host whose own hash with the key is greatest: others come and go without moving it.
                let score = |host: &&Arc<Host>| mix(key, &host.address);
                set.hosts.iter().filter(fits).max_by_key(score).cloned()
            }
            LbPolicy::Random | LbPolicy::ClusterProvided => nth(random()).cloned(),
            LbPolicy::RoundRobin { .. } => {
                let turn = self.next.get();
                self.next.set(turn.wrapping_add(1));
                nth(turn as u64).cloned()
            }
        }
    }
}

fn mix(key: u64, address: &sail_proxy_decide::address::Address) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    key.hash(&mut hasher);
    address.hash(&mut hasher);
    hasher.finish()
}
