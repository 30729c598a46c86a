//! Which host a request or connection goes to, by the cluster's type.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use sail_proxy_config::cluster::{Discovery, DnsCache, OriginalDst};
use sail_proxy_config::tls::UpstreamSocket;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::host::{Endpoints, Host};
use sail_proxy_decide::lb::{
    Balancer, Context, Criteria, Events, Forced, LbPolicy, Metadata, Override, ZoneEvent,
};

use super::Cluster;
use crate::dns::cache::split;
use crate::outlier::now_ms;
use crate::stats::sets::cluster as set;
use crate::worker::state::Worker;

/// Clusters in clusters in clusters: no deeper.
const DEEPEST: usize = 8;

/// Which hosts are avoided, and how often another is looked for on that account.
#[derive(Clone, Copy)]
pub(crate) struct Avoid<'a> {
    pub(crate) hosts: &'a dyn Fn(&Host) -> bool,
    pub(crate) attempts: u32,
}

/// What the choice of a host depends on.
#[derive(Clone, Copy, Default)]
pub(crate) struct LbContext<'a> {
    pub(crate) hash: Option<u64>,
    pub(crate) original_destination: Option<SocketAddr>,
    /// Hosts that a retry avoids, and how often another is looked for.
    pub(crate) avoid: Option<Avoid<'a>>,
    /// Priorities that a retry avoids.
    pub(crate) avoid_priorities: &'a [u32],
    /// Which subset of hosts, as the route says.
    pub(crate) criteria: Criteria<'a>,
    /// A host that a filter names.
    pub(crate) override_host: Option<Override<'a>>,
    /// The request's headers, which may name a host.
    pub(crate) headers: Option<&'a HeaderMap>,
    /// Its dynamic metadata, which may too.
    pub(crate) metadata: Option<Metadata<'a>>,
    /// The host that the request asks for.
    pub(crate) authority: Option<&'a str>,
    /// How many hosts were tried before.
    pub(crate) tried: usize,
}

/// The host that was chosen.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) host: Arc<Host>,
    /// The cluster whose host it is, where that is not the one that was asked: a member of an aggregate.
    pub(crate) member: Option<Rc<Cluster>>,
}

impl Cluster {
    /// A host for a request or connection.
    pub(crate) fn choose(&self, context: &LbContext<'_>, worker: &Worker) -> Option<Choice> {
        let choice = self.choose_at(context, None, worker, 0);
        if choice.is_none() {
            self.stats.inc(set::upstream_cx_none_healthy);
        }
        choice
    }

    /// Whether a host of this address is known, in whatever state.
    pub(crate) fn has_host(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let endpoints = self.endpoints.borrow();
        endpoints.as_ref().is_some_and(|all| all.hosts().any(|host| host.address == Address::Ip(address)))
    }

    fn choose_at(
        &self,
        context: &LbContext<'_>,
        forced: Option<Forced>,
        worker: &Worker,
        depth: usize,
    ) -> Option<Choice> {
        let host = match &self.config.discovery {
            Discovery::OriginalDst(config) => self.destination(config, context, worker),
            Discovery::DynamicForwardProxy(cache) => match &cache.sub_clusters {
                None => resolved(cache, context, worker, &self.config.socket),
                Some(policy) => self.in_sub_cluster(cache, policy, context, worker),
            },
            Discovery::Aggregate(members) => return self.member(members, context, worker, depth),
            _ => self.balanced(context, forced, worker),
        };
        host.map(|host| Choice { host, member: None })
    }

    fn balanced(
        &self,
        context: &LbContext<'_>,
        forced: Option<Forced>,
        worker: &Worker,
    ) -> Option<Arc<Host>> {
        let endpoints = self.endpoints.borrow();
        let endpoints = endpoints.as_ref()?;
        self.pick(&mut self.balancer.borrow_mut(), endpoints, context, forced, worker)
    }

    /// A host of the sub cluster that the request's authority names, if its name was resolved.
    fn in_sub_cluster(
        &self,
        cache: &DnsCache,
        policy: &LbPolicy,
        context: &LbContext<'_>,
        worker: &Worker,
    ) -> Option<Arc<Host>> {
        let (host, port) = split(context.authority?, default_port(&self.config.socket))?;
        let endpoints = worker.shared.dns_caches.endpoints(&cache.name, host, port)?;
        let mut all = self.sub_clusters.borrow_mut();
        if !all.contains_key(context.authority?) && all.len() >= cache.max_hosts as usize {
            // Those of names that were forgotten make room; what they balanced is balanced anew.
            all.clear();
        }
        let balancer = all
            .entry_ref(context.authority?)
            .or_insert_with(|| Balancer::new(policy.clone(), self.config.common_lb.clone()));
        self.pick(balancer, &endpoints, context, None, worker)
    }

    fn pick(
        &self,
        balancer: &mut Balancer,
        endpoints: &Arc<Endpoints>,
        context: &LbContext<'_>,
        forced: Option<Forced>,
        worker: &Worker,
    ) -> Option<Arc<Host>> {
        let active = worker.active();
        let context = Context {
            hash: context.hash,
            now_ms: now_ms(),
            avoid: context.avoid.map(|avoid| avoid.hosts),
            attempts: context.avoid.map_or(0, |avoid| avoid.attempts),
            attempt: 0,
            avoid_priorities: context.avoid_priorities,
            criteria: context.criteria,
            override_host: context.override_host,
            headers: context.headers,
            metadata: context.metadata,
            tried: context.tried,
            zone: active.snapshot.local_zone.as_ref(),
            forced,
        };
        let host = balancer.choose(endpoints, &context, || worker.random());
        let events = balancer.events();
        if events != Events::default() {
            self.note_events(events);
        }
        host
    }

    /// A host that a request to come goes to, where that can be foreseen.
    pub(super) fn foresee(&self, worker: &Worker) -> Option<Arc<Host>> {
        if self.finds_hosts() {
            return None;
        }
        let endpoints = self.endpoints.borrow();
        let active = worker.active();
        let zone = active.snapshot.local_zone.as_ref();
        let context = Context { now_ms: now_ms(), zone, ..Context::default() };
        self.balancer.borrow_mut().peek(endpoints.as_ref()?, &context, || worker.random())
    }

    fn note_events(&self, events: Events) {
        let stats = &self.stats;
        if events.panic {
            stats.inc(set::lb_healthy_panic);
        }
        match events.zone {
            None => {}
            Some(ZoneEvent::AllDirectly) => stats.inc(set::lb_zone_routing_all_directly),
            Some(ZoneEvent::Sampled) => stats.inc(set::lb_zone_routing_sampled),
            Some(ZoneEvent::CrossZone) => stats.inc(set::lb_zone_routing_cross_zone),
            Some(ZoneEvent::NoCapacityLeft) => stats.inc(set::lb_zone_no_capacity_left),
            Some(ZoneEvent::ClusterTooSmall) => stats.inc(set::lb_zone_cluster_too_small),
            Some(ZoneEvent::LocalClusterNotOk) => stats.inc(set::lb_local_cluster_not_ok),
        }
        let subset = events.subset;
        if subset.selected {
            stats.inc(set::lb_subsets_selected);
        }
        if subset.fallback {
            stats.inc(set::lb_subsets_fallback);
        }
        if subset.fallback_panic {
            stats.inc(set::lb_subsets_fallback_panic);
        }
        if subset.created > 0 || subset.removed > 0 {
            stats.add(set::lb_subsets_created, subset.created.into());
            stats.add(set::lb_subsets_removed, subset.removed.into());
            stats.move_by(set::lb_subsets_active, i64::from(subset.created) - i64::from(subset.removed));
        }
    }

    /// The host that the client wanted, or that a header names.
    fn destination(
        &self,
        config: &OriginalDst,
        context: &LbContext<'_>,
        worker: &Worker,
    ) -> Option<Arc<Host>> {
        let header = config.http_header.as_ref().and_then(|header| match header {
            HeaderKey::Name(name) => Some(context.headers?.get(name)?.to_str().unwrap_or_default()),
            HeaderKey::Authority => context.authority,
            _ => None,
        });
        let header = header.map(str::to_owned);
        let named = header.or_else(|| {
            let (_, namespace, path) = config.metadata_key.as_ref()?;
            context.metadata?(namespace, path)
        });
        let destination = match named {
            Some(text) => text.trim().parse().ok(),
            None => context.original_destination,
        };
        let Some(mut destination) = destination else {
            self.stats.inc(set::original_dst_host_invalid);
            return None;
        };
        if let Some(port) = config.port_override {
            destination.set_port(port);
        }
        let mut found = self.found.borrow_mut();
        let found = found
            .entry(destination)
            .or_insert_with(|| worker.shared.clusters.destination(&self.config.name, destination));
        found.touch();
        Some(found.host.clone())
    }

    /// A member of an aggregate, and a host of it.
    fn member(
        &self,
        names: &[Arc<str>],
        context: &LbContext<'_>,
        worker: &Worker,
        depth: usize,
    ) -> Option<Choice> {
        if depth >= DEEPEST {
            return None;
        }
        let active = worker.active();
        let members: Vec<Option<Rc<Cluster>>> = names.iter().map(|name| active.cluster(name)).collect();
        let endpoints: Vec<Option<Arc<Endpoints>>> =
            members.iter().map(|member| member.as_ref()?.endpoints.borrow().clone()).collect();
        let random = context.hash.unwrap_or_else(|| worker.random());
        let found = self.aggregate.borrow_mut().choose(&endpoints, &self.config.common_lb, random);
        let (member, forced) = match found {
            Some(found) => (members.into_iter().nth(found.index)??, Some(found.forced)),
            // Members that know their hosts only when asked: the first of them.
            None => (members.into_iter().flatten().find(|member| member.finds_hosts())?, None),
        };
        let choice = member.choose_at(context, forced, worker, depth + 1)?;
        Some(Choice { member: Some(choice.member.unwrap_or(member)), ..choice })
    }

    fn finds_hosts(&self) -> bool {
        matches!(
            self.config.discovery,
            Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) | Discovery::Aggregate(_)
        )
    }
}

/// The host that the request's authority names, if its name was resolved: the HTTP filter saw to that.
fn resolved(
    cache: &DnsCache,
    context: &LbContext<'_>,
    worker: &Worker,
    socket: &UpstreamSocket,
) -> Option<Arc<Host>> {
    let (host, port) = split(context.authority?, default_port(socket))?;
    worker.shared.dns_caches.found(&cache.name, host, port)
}

/// Where a host listens whose port nobody named.
pub(crate) fn default_port(socket: &UpstreamSocket) -> u16 {
    if socket.tls().is_none() { 80 } else { 443 }
}
