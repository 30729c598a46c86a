//! Names that requests bring (`dynamic_forward_proxy`): resolved on the main thread, once for all workers, kept fresh
//! while requests ask for them, and forgotten afterwards.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base::backoff::Backoff;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_config::cluster::{DnsCache, DnsCluster};
use sail_proxy_decide::host::{AssignmentPolicy, Endpoints, Group, Host};
use tokio::sync::{mpsc, oneshot};

use super::resolver::{self, Resolvers};
use crate::cluster::shared::{at, host_at};
use crate::outlier::now_ms;

/// Why a request's name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The cache holds as many names as it may.
    #[error("the DNS cache is full")]
    Full,
    /// As many requests wait as may.
    #[error("too many requests wait for names")]
    Pending,
    /// The name does not resolve.
    #[error("the name does not resolve")]
    Failed,
}

/// All caches of the process, by name.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    caches: Mutex<HashMap<Arc<str>, Arc<Cache>>>,
    ask: OnceLock<mpsc::UnboundedSender<Ask>>,
}

/// The names of one cache.
#[derive(Debug, Default)]
struct Cache {
    names: Mutex<HashMap<Key, Entry>>,
    pending: AtomicU32,
}

type Key = (Arc<str>, u16);

#[derive(Debug)]
struct Entry {
    /// `None` while the first answer is waited for, or where there was none.
    host: Option<Arc<Host>>,
    /// All of its hosts, in a cache of sub clusters.
    all: Option<Arc<Endpoints>>,
    used: Arc<AtomicU64>,
    waiting: Vec<oneshot::Sender<Result<Arc<Host>, Error>>>,
}

/// A name to resolve from now on.
struct Ask {
    cache: Arc<Cache>,
    config: Arc<DnsCache>,
    key: Key,
}

/// Host and port of an authority.
pub(crate) fn split(authority: &str, default_port: u16) -> Option<(&str, u16)> {
    let bare = |host: &'_ str| host.len() > 2 && host.starts_with('[') && host.ends_with(']');
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || bare(host) => {
            Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
        }
        _ if authority.is_empty() => None,
        _ => Some((authority.trim_start_matches('[').trim_end_matches(']'), default_port)),
    }
}

impl Caches {
    /// The host that a name stands for, if that is known.
    pub(crate) fn found(&self, cache: &str, host: &str, port: u16) -> Option<Arc<Host>> {
        let cache = self.caches.lock().get(cache)?.clone();
        let names = cache.names.lock();
        let entry = names.get(&(Arc::from(host.to_ascii_lowercase()), port))?;
        entry.used.store(now_ms(), Relaxed);
        entry.host.clone()
    }

    /// All hosts that a name of a cache of sub clusters stands for, if they are known.
    pub(crate) fn endpoints(&self, cache: &str, host: &str, port: u16) -> Option<Arc<Endpoints>> {
        let cache = self.caches.lock().get(cache)?.clone();
        let names = cache.names.lock();
        let entry = names.get(&(Arc::from(host.to_ascii_lowercase()), port))?;
        entry.used.store(now_ms(), Relaxed);
        entry.all.clone()
    }

    /// The hosts that names stand for.
    pub(crate) fn hosts(&self, cache: &str) -> Vec<Arc<Host>> {
        let Some(cache) = self.caches.lock().get(cache).cloned() else { return Vec::new() };
        let names = cache.names.lock();
        let hosts = names.values().flat_map(|entry| match &entry.all {
            Some(all) => all.hosts().cloned().collect(),
            None => Vec::from_iter(entry.host.clone()),
        });
        hosts.collect()
    }

    /// Resolves a name, or waits while somebody else does.
    pub(crate) async fn resolve(
        &self,
        config: &Arc<DnsCache>,
        host: &str,
        port: u16,
    ) -> Result<Arc<Host>, Error> {
        let cache = self.caches.lock().entry(config.name.clone()).or_default().clone();
        let receiver = match self.enter(&cache, config, host, port)? {
            Entered::Known(host) => return Ok(host),
            Entered::Wait(receiver) => receiver,
        };
        let _pending = Pending::new(&cache, config.max_pending_requests)?;
        receiver.await.unwrap_or(Err(Error::Failed))
    }

    fn enter(
        &self,
        cache: &Arc<Cache>,
        config: &Arc<DnsCache>,
        host: &str,
        port: u16,
    ) -> Result<Entered, Error> {
        let key: Key = (Arc::from(host.to_ascii_lowercase()), port);
        let (sender, receiver) = oneshot::channel();
        let mut names = cache.names.lock();
        if let Some(entry) = names.get_mut(&key) {
            entry.used.store(now_ms(), Relaxed);
            if let Some(host) = &entry.host {
                return Ok(Entered::Known(host.clone()));
            }
            entry.waiting.push(sender);
            return Ok(Entered::Wait(receiver));
        }
        if names.len() >= config.max_hosts as usize {
            return Err(Error::Full);
        }
        let entry =
            Entry { host: None, all: None, used: Arc::new(AtomicU64::new(now_ms())), waiting: vec![sender] };
        names.insert(key.clone(), entry);
        drop(names);
        let ask = Ask { cache: cache.clone(), config: config.clone(), key };
        let asked = self.ask.get().is_some_and(|asks| asks.send(ask).is_ok());
        if asked { Ok(Entered::Wait(receiver)) } else { Err(Error::Failed) }
    }

    /// Resolves names that a configuration knows already.
    pub(crate) fn preresolve(&self, config: &Arc<DnsCache>) {
        let cache = self.caches.lock().entry(config.name.clone()).or_default().clone();
        for (host, port) in &config.preresolve {
            // Whoever asks for it later hears of a failure.
            let _ = self.enter(&cache, config, host, *port);
        }
    }

    /// Resolves what workers ask for. Runs on the main thread, once.
    pub(crate) async fn run(self: Arc<Self>) {
        let (sender, mut asks) = mpsc::unbounded_channel();
        if self.ask.set(sender).is_err() {
            return;
        }
        let resolvers = std::rc::Rc::new(Resolvers::default());
        while let Some(ask) = asks.recv().await {
            tokio::task::spawn_local(keep(resolvers.clone(), ask));
        }
    }
}

enum Entered {
    Known(Arc<Host>),
    Wait(oneshot::Receiver<Result<Arc<Host>, Error>>),
}

/// A request that waits.
struct Pending(Arc<Cache>);

impl Pending {
    fn new(cache: &Arc<Cache>, most: u32) -> Result<Self, Error> {
        let before = cache.pending.fetch_add(1, Relaxed);
        let held = Self(cache.clone());
        if before < most { Ok(held) } else { Err(Error::Pending) }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

/// Resolves a name again and again, until nobody has asked for it for as long as the cache keeps names.
async fn keep(resolvers: std::rc::Rc<Resolvers>, ask: Ask) {
    let Ask { cache, config, key } = ask;
    let (base, max) = config.failure_refresh.unwrap_or((config.refresh_rate, config.refresh_rate));
    let mut backoff = Backoff::new(base.max(Duration::from_millis(1)), max.max(base));
    loop {
        let answer = lookup(&resolvers, &config, &key.0).await;
        let wait = match &answer {
            Ok(Found { ttl, .. }) => {
                backoff.reset();
                ttl.unwrap_or(config.refresh_rate).max(config.min_refresh_rate)
            }
            Err(error) => {
                tracing::debug!(name = &*key.0, %error, "a name does not resolve");
                backoff.next_delay(&mut rand::rng())
            }
        };
        if !settle(&cache, &key, config.sub_clusters.is_some(), answer.ok().map(|found| found.addresses)) {
            return;
        }
        let until = Instant::now() + wait;
        loop {
            // Whether it is still asked for is looked at more often than the name is resolved.
            let step = until.saturating_duration_since(Instant::now()).min(config.host_ttl);
            tokio::time::sleep(step).await;
            if forget_if_unused(&cache, &key, config.host_ttl) {
                return;
            }
            if Instant::now() >= until {
                break;
            }
        }
    }
}

/// Notes an answer, and tells those who wait. Whether the name is still of interest.
fn settle(cache: &Cache, key: &Key, sub_clusters: bool, found: Option<Vec<IpAddr>>) -> bool {
    let mut names = cache.names.lock();
    let Some(entry) = names.get_mut(key) else { return false };
    if let Some(ip) = found.as_ref().and_then(|found| found.first()) {
        let address = SocketAddr::new(*ip, key.1);
        // The same address stays the same host, with all that is known of it.
        if entry.host.as_ref().is_none_or(|host| host.address.socket_addr() != Some(address)) {
            entry.host = Some(host_at(address, key.0.clone()));
        }
    }
    if let Some(found) = found.filter(|_| sub_clusters) {
        let hosts: Vec<Host> =
            found.iter().map(|ip| at(SocketAddr::new(*ip, key.1), key.0.clone())).collect();
        let before = entry.all.as_deref();
        let known = |all: &Endpoints| {
            all.hosts().map(|host| host.address.clone()).eq(hosts.iter().map(|host| host.address.clone()))
        };
        if !before.is_some_and(known) {
            let group = Group { locality: Arc::default(), priority: 0, weight: None, hosts };
            entry.all = Some(Arc::new(Endpoints::build(vec![group], AssignmentPolicy::default(), 0, before)));
        }
    }
    let answer = entry.host.clone().ok_or(Error::Failed);
    for waiter in entry.waiting.drain(..) {
        let _ = waiter.send(answer.clone());
    }
    if answer.is_err() {
        // The next request asks again.
        names.remove(key);
        return false;
    }
    true
}

fn forget_if_unused(cache: &Cache, key: &Key, ttl: Duration) -> bool {
    let mut names = cache.names.lock();
    let unused = names
        .get(key)
        .is_none_or(|entry| u128::from(now_ms().saturating_sub(entry.used.load(Relaxed))) >= ttl.as_millis());
    if unused {
        names.remove(key);
    }
    unused
}

/// What a name stands for, and for how long.
struct Found {
    /// One at least.
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
}

async fn lookup(resolvers: &Resolvers, config: &DnsCache, name: &str) -> Result<Found, resolver::Error> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(Found { addresses: vec![ip], ttl: None });
    }
    let asked = DnsCluster {
        groups: Box::default(),
        policy: Default::default(),
        refresh_rate: config.refresh_rate,
        jitter: Duration::ZERO,
        failure_refresh: None,
        respect_ttl: true,
        min_refresh_rate: config.min_refresh_rate,
        family: config.family,
        resolvers: config.resolvers.clone(),
        use_tcp: config.use_tcp,
    };
    let found = resolvers.lookup(&asked, name);
    let (addresses, until) = match config.query_timeout {
        None => found.await?,
        Some(limit) => tokio::time::timeout(limit, found).await.map_err(|_| resolver::Error::Empty)??,
    };
    if addresses.is_empty() {
        return Err(resolver::Error::Empty);
    }
    Ok(Found { addresses, ttl: Some(until.saturating_duration_since(Instant::now())) })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn authorities_have_ports_or_the_default() {
        assert_eq!(split("example.com", 80), Some(("example.com", 80)));
        assert_eq!(split("example.com:8080", 80), Some(("example.com", 8080)));
        assert_eq!(split("[::1]:8080", 443), Some(("::1", 8080)));
        assert_eq!(split("[::1]", 443), Some(("::1", 443)));
        assert_eq!(split("::1", 443), Some(("::1", 443)));
        assert_eq!(split("a:b", 443), None);
        assert_eq!(split("", 443), None);
    }
}
