//! The choice of a host: one that the request names, else priority, locality, then the policy.
//!
//! What is derived from hosts and their health is kept until either changes, so that a choice costs the same whatever
//! the number of hosts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;

use super::group::{Group, Key, Pick};
use super::overriding::{ByAddress, Metadata, OverrideHost};
use super::peek::{Peeked, Turn};
use super::priority::{self, Counts, Share, Source};
use super::subset::{Criteria, SubsetEvents, Subsets};
use super::zone::{self, LocalZone, ZoneEvent, Zones};
use super::{CommonLb, LbPolicy, LocalityLb};
use crate::host::{Endpoints, Health, Host, HostSet};

/// What a choice depends on.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// The request's hash, if its route hashes.
    pub hash: Option<u64>,
    /// Milliseconds of the process' clock; for slow start.
    pub now_ms: u64,
    /// Hosts that a retry avoids.
    pub avoid: Option<&'a dyn Fn(&Host) -> bool>,
    /// How often another host is looked for on that account.
    pub attempts: u32,
    /// How often one was looked for already.
    pub attempt: u32,
    /// Priorities that a retry avoids, while there are others.
    pub avoid_priorities: &'a [u32],
    /// Which subset of hosts.
    pub criteria: Criteria<'a>,
    /// A host that a filter names.
    pub override_host: Option<Override<'a>>,
    /// The request's headers, which may name hosts.
    pub headers: Option<&'a HeaderMap>,
    /// The request's dynamic metadata, which may.
    pub metadata: Option<Metadata<'a>>,
    /// How many hosts were tried before.
    pub tried: usize,
    /// Where the proxy is, for zone-aware routing.
    pub zone: Option<&'a LocalZone>,
    /// A priority that is chosen already.
    pub forced: Option<Forced>,
}

/// A priority that an aggregate of clusters chose, and which of its hosts.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    pub(super) priority: usize,
    pub(super) source: Source,
}

/// A host that a filter names, as stateful sessions do.
#[derive(Clone, Copy, Debug)]
pub struct Override<'a> {
    /// `IP:port`
    pub address: &'a str,
    /// Whether no other host will do.
    pub strict: bool,
}

/// What a choice met with that statistics tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Unhealthy hosts took part.
    pub panic: bool,
    /// What zone-aware routing did.
    pub zone: Option<ZoneEvent>,
    /// What subsets did.
    pub subset: SubsetEvents,
}

/// A worker's balancer of one cluster.
#[derive(Debug)]
pub struct Balancer {
    kind: Kind,
    common: CommonLb,
    view: Option<Box<View>>,
    turn: Option<usize>,
    events: Events,
}

#[derive(Debug)]
enum Kind {
    /// A policy that chooses itself.
    Plain(LbPolicy),
    /// Hosts are told apart first.
    Subset(Box<Subsets>),
    /// The request may name one.
    Override(Arc<OverrideHost>, Box<Balancer>),
}

/// What is derived from hosts and their health.
#[derive(Debug)]
struct View {
    endpoints: Arc<Endpoints>,
    epoch: u32,
    counts: Vec<Counts>,
    shares: Vec<Share>,
    groups: Vec<(Key, Group)>,
    /// Effective weights of localities.
    localities: Vec<(Place, Box<[u64]>)>,
    zones: Option<(ZoneKey, Zones)>,
    by_address: Option<ByAddress>,
    /// Picks made ahead of time, which the next choices yield in their order.
    peeked: Option<Box<Peeked>>,
}

/// A priority, and which of its hosts.
type Place = (usize, Source);

/// Of which local cluster, in which state of health, zones were compared.
type ZoneKey = (usize, u32);

impl Balancer {
    /// A balancer by a policy.
    pub fn new(policy: LbPolicy, common: CommonLb) -> Self {
        let kind = match policy {
            LbPolicy::Subset(config) => Kind::Subset(Box::new(Subsets::new(config, &common))),
            LbPolicy::OverrideHost(config) => {
                let inner = Self::new(config.fallback.clone(), common.clone());
                Kind::Override(config, Box::new(inner))
            }
            other => Kind::Plain(other),
        };
        Self { kind, common, view: None, turn: None, events: Events::default() }
    }

    /// What the last choice met with.
    pub fn events(&self) -> Events {
        self.events
    }

    /// A host; `None` if there is none to use.
    pub fn choose(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        mut random: impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        self.choose_dyn(endpoints, context, &mut random)
    }

    /// As [`Balancer::choose`]: balancers that hold balancers would else be compiled without end.
    pub(super) fn choose_dyn(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        mut random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        self.events = Events::default();
        if let Some(wanted) = context.override_host {
            self.refresh(endpoints, context.now_ms);
            let statuses = self.common.override_host_status;
            let found = self.by_address().and_then(|all| all.find(wanted.address, statuses)).cloned();
            if found.is_some() || wanted.strict {
                return found;
            }
        }
        match &mut self.kind {
            Kind::Plain(_) => self.choose_plain(endpoints, context, &mut random),
            Kind::Subset(subsets) => {
                let (host, events) = subsets.choose(endpoints, context, random);
                self.events.subset = events;
                host
            }
            Kind::Override(config, _) => {
                let config = Arc::clone(config);
                if let Some(host) = self.named(&config, endpoints, context) {
                    return Some(host);
                }
                let Kind::Override(_, inner) = &mut self.kind else { return None };
                let host = inner.choose_dyn(endpoints, context, random);
                self.events = inner.events;
                host
            }
        }
    }

    /// A host that a choice to come yields, for what is done for it ahead of time; `None` where nobody can tell.
    pub fn peek(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        mut random: impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        self.peek_dyn(endpoints, context, &mut random)
    }

    fn peek_dyn(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        mut random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        match &mut self.kind {
            Kind::Subset(_) => return None,
            Kind::Override(_, inner) => return inner.peek_dyn(endpoints, context, random),
            Kind::Plain(policy) if !policy.is_foreseeable() => return None,
            Kind::Plain(_) => {}
        }
        self.refresh(endpoints, context.now_ms);
        let view = self.view.as_mut()?;
        if view.peeked.get_or_insert_with(|| Box::new(Peeked::new(endpoints))).is_full() {
            return None;
        }
        let host = self.pick(context, Turn::Ahead, &mut random)?;
        self.view.as_mut()?.peeked.as_mut()?.add(Arc::clone(&host), self.events);
        Some(host)
    }

    /// The host that the request's headers or metadata name; the next one with every try.
    fn named(
        &mut self,
        config: &OverrideHost,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
    ) -> Option<Arc<Host>> {
        let named = config.named(context.headers, context.metadata);
        if named.is_empty() {
            return None;
        }
        self.refresh(endpoints, context.now_ms);
        // Whoever names a host is believed to know of its health.
        let all = self.by_address()?;
        named.iter().filter_map(|address| all.any(address)).nth(context.tried).cloned()
    }

    fn by_address(&mut self) -> Option<&ByAddress> {
        let view = self.view.as_mut()?;
        Some(view.by_address.get_or_insert_with(|| ByAddress::new(&view.endpoints)))
    }

    fn choose_plain(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        random: &mut impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        self.refresh(endpoints, context.now_ms);
        let mut chosen = None;
        for attempt in 0..=context.attempts {
            let host = self.once(&Context { attempt, ..*context }, random)?;
            let avoided = context.avoid.is_some_and(|avoid| avoid(&host));
            chosen = Some(host);
            if !avoided {
                break;
            }
        }
        chosen
    }

    /// Derives anew what changed hosts or changed health make stale.
    fn refresh(&mut self, endpoints: &Arc<Endpoints>, now_ms: u64) {
        let epoch = endpoints.epoch.now();
        let mut by_address = None;
        if let Some(view) = &mut self.view
            && Arc::ptr_eq(&view.endpoints, endpoints)
        {
            if view.epoch == epoch {
                return;
            }
            by_address = view.by_address.take();
        } else {
            for host in endpoints.hosts() {
                // Zero is "never seen".
                let _ = host.state.added_at_ms.compare_exchange(0, now_ms.max(1), Relaxed, Relaxed);
            }
        }
        let counts = priority::counts(&endpoints.priorities, &endpoints.policy, &self.common);
        let shares = priority::shares(&counts, &endpoints.policy, &self.common, &[]);
        self.view = Some(Box::new(View {
            endpoints: Arc::clone(endpoints),
            epoch,
            counts,
            shares,
            groups: Vec::new(),
            localities: Vec::new(),
            zones: None,
            by_address,
            peeked: None,
        }));
    }

    fn once(&mut self, context: &Context<'_>, random: &mut impl FnMut() -> u64) -> Option<Arc<Host>> {
        if let Some(peeked) = self.view.as_mut()?.peeked.as_mut()
            // What is looked for in some priorities alone was not foreseen.
            && context.forced.is_none()
            && context.avoid_priorities.is_empty()
            && let Some((host, events)) = peeked.next()
        {
            self.events = events;
            return Some(host);
        }
        self.pick(context, Turn::Now, random)
    }

    fn pick(
        &mut self,
        context: &Context<'_>,
        when: Turn,
        random: &mut impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let Kind::Plain(policy) = &self.kind else { return None };
        let view = self.view.as_mut()?;
        let number = context.hash.unwrap_or_else(&mut *random);
        let (priority, source) = if let Some(forced) = context.forced {
            (forced.priority, forced.source)
        } else if context.avoid_priorities.is_empty() {
            priority::pick(&view.shares, number)?
        } else {
            let policy = &view.endpoints.policy;
            let others = priority::shares(&view.counts, policy, &self.common, context.avoid_priorities);
            priority::pick(&others, number).or_else(|| priority::pick(&view.shares, number))?
        };
        self.events.panic = source == Source::All;
        if source == Source::All
            && matches!(self.common.locality, LocalityLb::ZoneAware { fail_traffic_on_panic: true, .. })
        {
            return None;
        }
        let locality = view.locality(&self.common, policy, (priority, source), context, random);
        let (locality, event) = locality;
        self.events.zone = event;
        let View { endpoints, groups, .. } = &mut **view;
        let set = endpoints.priorities.get(priority)?;
        let pick = Pick { policy, common: &self.common, set, context, when };
        let key = Key { priority, source, locality };
        let at = match groups.iter().position(|(other, _)| *other == key) {
            Some(at) => at,
            None => {
                groups.push((key, Group::new(&pick, key, random)));
                groups.len() - 1
            }
        };
        let (_, group) = groups.get_mut(at)?;
        let turn = self.turn.get_or_insert_with(|| usize::try_from(random() >> 33).unwrap_or(0));
        let index = group.pick(&pick, turn, random)?;
        set.hosts.get(index).cloned()
    }
}

impl View {
    /// The locality that a choice is restricted to.
    fn locality(
        &mut self,
        common: &CommonLb,
        policy: &LbPolicy,
        (priority, source): (usize, Source),
        context: &Context<'_>,
        random: &mut impl FnMut() -> u64,
    ) -> (Option<usize>, Option<ZoneEvent>) {
        if source == Source::All {
            return (None, None);
        }
        match common.locality {
            // One hash, one host: tables weigh their localities themselves.
            LocalityLb::Weighted if matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }) => {
                (None, None)
            }
            LocalityLb::Weighted => (self.weighted(priority, source, random()), None),
            LocalityLb::ZoneAware {
                routing_enabled, min_cluster_size, force_local_zone, by_weight, ..
            } if priority == 0 && source == Source::Healthy => {
                let Some(local) = context.zone else { return (None, None) };
                if routing_enabled < 100.0 && (random() % 10_000) as f64 >= routing_enabled * 100.0 {
                    return (None, None);
                }
                let Some(set) = self.endpoints.priorities.first() else { return (None, None) };
                let key = (Arc::as_ptr(&local.endpoints) as usize, local.endpoints.epoch.now());
                if self.zones.as_ref().is_none_or(|(of, _)| *of != key) {
                    let limits = zone::Limits { min_cluster_size, force_local_zone, by_weight };
                    self.zones = Some((key, Zones::new(set, local, limits)));
                }
                self.zones.as_ref().map_or((None, None), |(_, zones)| zones.choose(random))
            }
            LocalityLb::None | LocalityLb::ZoneAware { .. } => (None, None),
        }
    }

    /// A locality by its effective weight; `None` where no locality has any.
    fn weighted(&mut self, priority: usize, source: Source, random: u64) -> Option<usize> {
        let key = (priority, source);
        if !self.localities.iter().any(|(of, _)| *of == key) {
            let set = self.endpoints.priorities.get(priority)?;
            let factor = self.endpoints.policy.overprovisioning_factor;
            self.localities.push((key, effective_weights(set, source, factor)));
        }
        let (_, weights) = self.localities.iter().find(|(of, _)| *of == key)?;
        let mut rest = random.checked_rem(weights.iter().sum())?;
        weights.iter().position(|weight| {
            let here = rest < *weight;
            rest = rest.saturating_sub(*weight);
            here
        })
    }
}

/// The weights of localities: less, the less of their hosts are healthy.
fn effective_weights(set: &HostSet, source: Source, factor: u32) -> Box<[u64]> {
    let weight = |locality: &crate::host::LocalityHosts| {
        let hosts = set.hosts.get(locality.hosts.clone()).unwrap_or_default();
        let usable = hosts.iter().filter(|host| fits(host, source)).count() as u64;
        let share =
            (usable * u64::from(factor) * 100).checked_div(hosts.len() as u64).unwrap_or(0).min(10_000);
        u64::from(locality.weight.unwrap_or(0)) * share
    };
    set.localities.iter().map(weight).collect()
}

pub(super) fn fits(host: &Host, source: Source) -> bool {
    match source {
        Source::Healthy => host.health() == Health::Healthy,
        Source::Degraded => host.health() == Health::Degraded,
        Source::All => true,
    }
}
