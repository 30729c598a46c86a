//! Names that stand for hosts: STRICT_DNS and LOGICAL_DNS clusters. One task a cluster resolves all its names, again and
//! again; what it found last stays in force while servers are away.

pub(crate) mod cache;
mod resolver;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::backoff::Backoff;
use base::task::Supervised;
use futures_util::future::join_all;
use rand::Rng;
use sail_proxy_config::cluster::{Cluster, Discovery, DnsCluster, DnsTarget};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::{Endpoints, Group, Host, HostState};

use crate::stats::Store;
use crate::stats::sets::cluster_update;
use resolver::Resolvers;

/// Never asked more often than this, whatever a TTL says.
const SHORTEST: Duration = Duration::from_millis(500);

/// All clusters of names.
pub struct Dns {
    resolvers: Resolvers,
    clusters: RefCell<BTreeMap<Arc<str>, Entry>>,
    changed: Box<dyn Fn()>,
    store: Arc<Store>,
    this: Weak<Self>,
}

struct Entry {
    version: u64,
    found: Option<Arc<Endpoints>>,
    stats: cluster_update::Scope,
    _task: Supervised<()>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("clusters", &self.clusters.borrow().len()).finish_non_exhaustive()
    }
}

impl Dns {
    /// No cluster yet. `changed` is called whenever there is something new.
    pub fn new(store: Arc<Store>, changed: impl Fn() + 'static) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            resolvers: Resolvers::default(),
            clusters: RefCell::default(),
            changed: Box::new(changed),
            store,
            this: this.clone(),
        })
    }

    /// Resolves the cluster's names from now on, if it has any.
    pub fn ensure(&self, cluster: &Arc<Cluster>) {
        let (dns, one) = match &cluster.discovery {
            Discovery::StrictDns(dns) => (dns, false),
            Discovery::LogicalDns(dns) => (dns, true),
            _ => return self.remove(&cluster.name),
        };
        let mut clusters = self.clusters.borrow_mut();
        let before = clusters.get(&cluster.name);
        if before.is_some_and(|entry| entry.version == cluster.version) {
            return;
        }
        let found = before.and_then(|entry| entry.found.clone());
        let task =
            Supervised::spawn_local(run(self.this.clone(), cluster.name.clone(), (**dns).clone(), one));
        let stats = self.store.scope(&cluster.stat_name);
        clusters.insert(cluster.name.clone(), Entry { version: cluster.version, found, stats, _task: task });
    }

    /// Forgets a cluster.
    pub fn remove(&self, cluster: &str) {
        self.clusters.borrow_mut().remove(cluster);
    }

    /// Whether a cluster's names were resolved at least once, in vain or not.
    pub fn has(&self, cluster: &str) -> bool {
        self.clusters.borrow().get(cluster).is_some_and(|entry| entry.found.is_some())
    }

    /// What was found, by cluster.
    pub fn found(&self) -> Vec<(Arc<str>, Arc<Endpoints>)> {
        let clusters = self.clusters.borrow();
        clusters.iter().filter_map(|(name, entry)| Some((name.clone(), entry.found.clone()?))).collect()
    }

    /// Counts what became of each name; `same`: nothing is another than before.
    fn count(&self, cluster: &str, answers: &[Vec<Result<Answer, resolver::Error>>], same: bool) {
        let clusters = self.clusters.borrow();
        let Some(Entry { stats, .. }) = clusters.get(cluster) else { return };
        for answer in answers.iter().flatten() {
            stats.inc(cluster_update::update_attempt);
            match answer {
                Ok(_) => stats.inc(cluster_update::update_success),
                Err(_) => stats.inc(cluster_update::update_failure),
            }
            if same && answer.is_ok() {
                stats.inc(cluster_update::update_no_rebuild);
            }
        }
    }

    fn set(&self, cluster: &str, endpoints: Endpoints) {
        if let Some(entry) = self.clusters.borrow_mut().get_mut(cluster) {
            entry.found = Some(Arc::new(endpoints));
        }
        (self.changed)();
    }
}

async fn run(dns: Weak<Dns>, cluster: Arc<str>, config: DnsCluster, one: bool) {
    let (base, max) = config.failure_refresh.unwrap_or((config.refresh_rate, config.refresh_rate));
    let mut backoff = Backoff::new(base.max(SHORTEST), max.max(SHORTEST));
    let mut version = 0;
    loop {
        let Some(this) = dns.upgrade() else { return };
        let answers = resolve(&this.resolvers, &config).await;
        let failed = answers.iter().flatten().any(Result::is_err);
        let previous = this.clusters.borrow().get(&cluster).and_then(|entry| entry.found.clone());
        for error in answers.iter().flatten().filter_map(|answer| answer.as_ref().err()) {
            tracing::debug!(cluster = &*cluster, %error, "a name does not resolve");
        }
        let ttl = answers.iter().flatten().filter_map(|answer| answer.as_ref().ok()?.ttl).min();
        // What one name had before stays when it does not resolve now.
        let all_failed =
            answers.iter().flatten().all(Result::is_err) && answers.iter().any(|group| !group.is_empty());
        let keep = previous.as_ref().is_some_and(|_| all_failed);
        let mut same = true;
        if !keep {
            let groups = groups(&config, &answers, one, previous.as_deref());
            let addresses = |endpoints: &Endpoints| {
                endpoints.hosts().map(|host| host.address.clone()).collect::<Vec<_>>()
            };
            version += 1;
            let found = Endpoints::build(groups, config.policy.clone(), version, previous.as_deref());
            same = previous.as_deref().is_some_and(|previous| addresses(previous) == addresses(&found));
            if !same {
                this.set(&cluster, found);
            }
        }
        this.count(&cluster, &answers, same);
        drop(this);
        let wait = if failed {
            backoff.next_delay(&mut rand::rng())
        } else {
            backoff.reset();
            let ttl = ttl.filter(|_| config.respect_ttl).map(|ttl| ttl.max(config.min_refresh_rate));
            let wait = ttl.unwrap_or(config.refresh_rate);
            wait.max(SHORTEST) + config.jitter.mul_f64(rand::rng().random_range(0.0..=1.0))
        };
        tokio::time::sleep(wait).await;
    }
}

/// What a name stands for.
struct Answer {
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
}

/// Answers by group and name.
async fn resolve(resolvers: &Resolvers, config: &DnsCluster) -> Vec<Vec<Result<Answer, resolver::Error>>> {
    let groups = config.groups.iter().map(|group| {
        join_all(group.targets.iter().map(|target| async {
            if let Ok(ip) = target.address.parse::<IpAddr>() {
                return Ok(Answer { addresses: vec![ip], ttl: None });
            }
            let (addresses, until) = resolvers.lookup(config, &target.address).await?;
            Ok(Answer { addresses, ttl: Some(until.saturating_duration_since(Instant::now())) })
        }))
    });
    join_all(groups).await
}

fn groups(
    config: &DnsCluster,
    answers: &[Vec<Result<Answer, resolver::Error>>],
    one: bool,
    previous: Option<&Endpoints>,
) -> Vec<Group> {
    let pairs = config.groups.iter().zip(answers);
    pairs
        .map(|(group, answers)| Group {
            locality: group.locality.clone(),
            priority: group.priority,
            weight: group.weight,
            hosts: group
                .targets
                .iter()
                .zip(answers)
                .flat_map(|(target, answer)| hosts(target, answer.as_ref().ok(), one, previous))
                .collect(),
        })
        .collect()
}

fn hosts(target: &DnsTarget, answer: Option<&Answer>, one: bool, previous: Option<&Endpoints>) -> Vec<Host> {
    let hostname = if target.hostname.is_empty() { &target.address } else { &target.hostname };
    let addresses: Vec<Address> = match answer {
        Some(answer) => {
            let count = if one { 1 } else { answer.addresses.len() };
            let all = answer.addresses.iter().take(count);
            all.map(|ip| Address::Ip(SocketAddr::new(*ip, target.port))).collect()
        }
        // This name's part of what was found before.
        None => {
            let before = previous.into_iter().flat_map(Endpoints::hosts);
            let same = before.filter(|host| host.hostname == *hostname);
            same.filter(|host| host.address.socket_addr().is_some_and(|a| a.port() == target.port))
                .map(|host| host.address.clone())
                .collect()
        }
    };
    let host = |address| Host {
        address,
        additional_addresses: Box::default(),
        hostname: hostname.clone(),
        weight: target.weight.max(1),
        priority: 0,
        locality: Arc::default(),
        metadata: target.metadata.clone(),
        health_status: target.health_status,
        health_check: target.health_check.clone(),
        state: Arc::<HostState>::default(),
    };
    addresses.into_iter().map(host).collect()
}

#[cfg(test)]
mod tests;
