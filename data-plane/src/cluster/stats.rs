//! Statistics of clusters that are computed when somebody asks: members, how full circuit breakers are, and those of single
//! hosts. Thousands of clusters that nobody calls cost nothing for having them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::{Cluster, Discovery, Thresholds};
use sail_proxy_decide::host::{Health, HealthFlag, Host};

use super::shared::{Registry, hosts_of};
use crate::pool::limits::{Counts, Level, RESOURCES, Resource, allowed_retries, maxima};
use crate::stats::sets::cluster as sets;
use crate::stats::{Kind, Name, Provider, Sample, Scope, Store, Tag, Value};

/// What statistics are computed from.
pub(crate) struct Source {
    pub(crate) store: std::sync::Weak<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) snapshot: Arc<Mutex<Arc<Snapshot>>>,
}

impl Source {
    /// For the store to ask.
    pub(crate) fn provider(self) -> Provider {
        Box::new(move |visit| self.visit(visit))
    }

    fn visit(&self, visit: &mut dyn FnMut(Sample<'_>)) {
        let snapshot = self.snapshot.lock().clone();
        let warming = self.registry.warming();
        let new = warming.iter().filter(|(name, _)| !snapshot.clusters.contains_key(*name));
        let mut clusters: Vec<&Arc<Cluster>> =
            snapshot.clusters.values().chain(new.map(|(_, cluster)| cluster)).collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        for cluster in clusters {
            let mut say = |stat: &str, value: Value<'_>| {
                let tag = Tag::Label("envoy.cluster_name");
                let name = Name { root: "cluster", object: &cluster.stat_name, stat, tag, labels: &[] };
                let used = !matches!(value, Value::Counter(0));
                visit(Sample { name, value, used });
            };
            self.members(&snapshot, cluster, &mut say);
            say("warming_state", Value::Gauge(warming.contains_key(&cluster.name).into()));
            // What no worker has used has nothing under its limits.
            if let Some(counts) = self.registry.counts_of(&cluster.name) {
                let breakers = &cluster.circuit_breakers;
                self.limits(cluster, "default", (Level::Default, &breakers.default), &counts, &mut say);
                self.limits(cluster, "high", (Level::High, &breakers.high), &counts, &mut say);
            }
            if cluster.tracks_endpoints {
                let listed = hosts_of(&snapshot, cluster).into_iter().flat_map(|all| all.hosts()).cloned();
                listed.chain(self.registry.destinations(&cluster.name)).for_each(|host| {
                    endpoint(&cluster.stat_name, &host, visit);
                });
            }
        }
    }

    fn members(&self, snapshot: &Snapshot, cluster: &Cluster, say: &mut dyn FnMut(&str, Value<'_>)) {
        let mut counts = [0i64; 4];
        let mut heaviest = 0;
        let mut count = |host: &Host| {
            counts[0] += 1;
            match host.health() {
                Health::Healthy => counts[1] += 1,
                Health::Degraded => counts[2] += 1,
                Health::Unhealthy => {}
            }
            let pending = host.state.has(HealthFlag::PendingActiveHealthCheck);
            counts[3] += i64::from(pending || host.is_draining());
            heaviest = heaviest.max(i64::from(host.weight));
        };
        let found = hosts_of(snapshot, cluster);
        let changes = if found.is_some() { self.registry.changes(&cluster.name) } else { 0 };
        found.into_iter().flat_map(|endpoints| endpoints.hosts()).for_each(|host| count(host));
        if matches!(cluster.discovery, Discovery::OriginalDst(_)) {
            self.registry.destinations(&cluster.name).iter().for_each(|host| count(host));
        }
        say("membership_change", Value::Counter(changes));
        say("membership_total", Value::Gauge(counts[0]));
        say("membership_healthy", Value::Gauge(counts[1]));
        say("membership_degraded", Value::Gauge(counts[2]));
        say("membership_excluded", Value::Gauge(counts[3]));
        say("max_host_weight", Value::Gauge(heaviest));
    }

    fn limits(
        &self,
        cluster: &Cluster,
        priority: &str,
        (level, thresholds): (Level, &Thresholds),
        counts: &Counts,
        say: &mut dyn FnMut(&str, Value<'_>),
    ) {
        let scope = self.store.upgrade().map(|store| store.scope::<sets::Set>(&cluster.stat_name));
        for (resource, max) in RESOURCES.into_iter().zip(maxima(thresholds)) {
            let count = counts.get(level, resource);
            let budget = thresholds.retry_budget.as_ref().filter(|_| resource == Resource::Retries);
            let max = match budget {
                Some(budget) => {
                    let of = |resource| counts.get(level, resource);
                    allowed_retries(budget, of(Resource::Requests) + of(Resource::Pending))
                }
                None => max,
            };
            let (open, remaining) = names(resource);
            say(&format!("circuit_breakers.{priority}.{open}"), Value::Gauge(i64::from(count >= max)));
            if thresholds.track_remaining {
                let left = match budget {
                    // It moves with the requests: nobody could read a meaning into it.
                    Some(_) => 0,
                    None if max == u32::MAX && level == Level::Default => {
                        let active = scope.as_ref().map_or(0, |scope| uncounted(scope, counts, resource));
                        i64::from(max) - active
                    }
                    None => i64::from(max.saturating_sub(count)),
                };
                say(&format!("circuit_breakers.{priority}.{remaining}"), Value::Gauge(left));
            }
        }
    }
}

/// A host's own statistics.
fn endpoint(cluster: &str, host: &Host, visit: &mut dyn FnMut(Sample<'_>)) {
    let address = host.address.to_string();
    let labels = [("envoy.endpoint_address", &*address), ("envoy.endpoint_hostname", &*host.hostname)];
    let labels = if host.hostname.is_empty() { &labels[..1] } else { &labels };
    let object = format!("{cluster}.endpoint.{}", address.replace(':', "_"));
    let healthy = ("healthy", Kind::Gauge, u64::from(host.health() == Health::Healthy));
    for (stat, kind, value) in numbers(host).into_iter().chain([healthy]) {
        let name = Name { root: "cluster", object: &object, stat, tag: Tag::Endpoint, labels };
        let value = match kind {
            Kind::Counter => Value::Counter(value),
            _ => Value::Gauge(i64::try_from(value).unwrap_or(i64::MAX)),
        };
        visit(Sample { name, value, used: true });
    }
}

/// A host's numbers, in the order of their names.
pub(crate) fn numbers(host: &Host) -> [(&'static str, Kind, u64); 9] {
    let state = &host.state;
    let active = u64::from(state.active_requests.load(Relaxed));
    let (succeeded, failed) = (state.succeeded.load(Relaxed), state.failed.load(Relaxed));
    let unconnected = state.connect_failures.load(Relaxed);
    [
        ("cx_active", Kind::Gauge, state.active_connections.load(Relaxed).into()),
        ("cx_connect_fail", Kind::Counter, unconnected),
        ("cx_total", Kind::Counter, state.connections.load(Relaxed)),
        ("rq_active", Kind::Gauge, active),
        ("rq_error", Kind::Counter, failed),
        ("rq_pending_active", Kind::Gauge, state.pending_requests.load(Relaxed).into()),
        ("rq_success", Kind::Counter, succeeded),
        ("rq_timeout", Kind::Counter, state.timed_out.load(Relaxed)),
        // What got no connection was an error of the host's, and not sent to it.
        ("rq_total", Kind::Counter, active + succeeded + failed.saturating_sub(unconnected)),
    ]
}

/// What is under way at default priority where its limit is not counted: all that is, but for the high priority's.
fn uncounted(scope: &Scope<sets::Set>, counts: &Counts, resource: Resource) -> i64 {
    let active = match resource {
        Resource::Connections => scope.gauge(sets::upstream_cx_active),
        Resource::Pending => scope.gauge(sets::upstream_rq_pending_active),
        Resource::Requests => scope.gauge(sets::upstream_rq_active),
        Resource::Retries => scope.gauge(sets::upstream_rq_retry_active),
        Resource::Pools => i64::from(counts.get(Level::Default, resource)),
    };
    (active - i64::from(counts.get(Level::High, resource))).max(0)
}

fn names(resource: Resource) -> (&'static str, &'static str) {
    match resource {
        Resource::Connections => ("cx_open", "remaining_cx"),
        Resource::Pending => ("rq_pending_open", "remaining_pending"),
        Resource::Requests => ("rq_open", "remaining_rq"),
        Resource::Retries => ("rq_retry_open", "remaining_retries"),
        Resource::Pools => ("cx_pool_open", "remaining_cx_pools"),
    }
}
