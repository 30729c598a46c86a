//! Zone-aware routing: requests stay in their own zone as far as its share of upstream hosts allows.

use std::sync::Arc;

use crate::host::{Endpoints, Health, Host, HostSet, Locality};

/// Where the proxy itself is, among which peers: the hosts of `cluster_manager.local_cluster_name`.
#[derive(Clone, Debug)]
pub struct LocalZone {
    /// The local cluster's hosts.
    pub endpoints: Arc<Endpoints>,
    /// The proxy's own place.
    pub locality: Arc<Locality>,
}

/// What zone-aware routing did with a request; statistics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneEvent {
    /// The own zone takes everything.
    AllDirectly,
    /// The own zone takes a part, this request among them.
    Sampled,
    /// Another zone takes it.
    CrossZone,
    /// Another zone takes it, and none has room.
    NoCapacityLeft,
    /// There are too few hosts.
    ClusterTooSmall,
    /// The local cluster says nothing of the own zone.
    LocalClusterNotOk,
}

/// How requests are spread over the zones of a cluster.
#[derive(Debug, PartialEq)]
pub(super) enum Zones {
    /// They are not: why, if that is counted.
    Off(Option<ZoneEvent>),
    /// The own zone, by its index, takes everything.
    Direct(usize),
    /// The own zone takes so many of 10,000 requests, others the rest by their room.
    Residual {
        own: Option<usize>,
        own_share: u64,
        /// Room by zone.
        room: Box<[u64]>,
    },
}

/// Limits of zone-aware routing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min_cluster_size: u64,
    pub(super) force_local_zone: Option<u32>,
    pub(super) by_weight: bool,
}

fn healthy(hosts: &[Arc<Host>], by_weight: bool) -> u64 {
    let healthy = hosts.iter().filter(|host| host.health() == Health::Healthy);
    healthy.map(|host| if by_weight { u64::from(host.weight) } else { 1 }).sum()
}

fn by_zone(set: &HostSet, by_weight: bool) -> impl Iterator<Item = (&Arc<Locality>, u64)> {
    set.localities.iter().map(move |locality| {
        let hosts = set.hosts.get(locality.hosts.clone()).unwrap_or_default();
        (&locality.locality, healthy(hosts, by_weight))
    })
}

impl Zones {
    /// Compares the zones of a cluster's first priority with those of the local cluster.
    pub(super) fn new(set: &HostSet, local: &LocalZone, limits: Limits) -> Self {
        let upstream: Vec<_> = by_zone(set, limits.by_weight).collect();
        let Some(local_set) = local.endpoints.priorities.first() else {
            return Self::Off(Some(ZoneEvent::LocalClusterNotOk));
        };
        if upstream.len() < 2 || local_set.localities.len() < 2 {
            return Self::Off(None);
        }
        let peers: Vec<_> = by_zone(local_set, limits.by_weight).collect();
        let peers_in = |zone: &Locality| -> u64 {
            peers.iter().filter(|(other, _)| ***other == *zone).map(|(_, count)| count).sum()
        };
        let (all_peers, all): (u64, u64) =
            (peers.iter().map(|(_, count)| count).sum(), upstream.iter().map(|(_, count)| count).sum());
        let own_peers = peers_in(&local.locality);
        if own_peers == 0 || all_peers == 0 {
            return Self::Off(Some(ZoneEvent::LocalClusterNotOk));
        }
        if healthy(&set.hosts, false) < limits.min_cluster_size {
            return Self::Off(Some(ZoneEvent::ClusterTooSmall));
        }
        let own = upstream.iter().position(|(zone, _)| ***zone == *local.locality);
        let percent = |count: u64, of: u64| (10_000 * count).checked_div(of).unwrap_or(0);
        let own_upstream = own.and_then(|own| upstream.get(own)).map_or(0, |(_, count)| *count);
        let (here, asked) = (percent(own_upstream, all), percent(own_peers, all_peers));
        if let Some(own) = own {
            let forced = limits.force_local_zone.is_some_and(|least| own_upstream >= u64::from(least.max(1)));
            if forced || (here > 0 && here >= asked) {
                return Self::Direct(own);
            }
        }
        let room = upstream.iter().enumerate().map(|(at, (zone, count))| {
            if Some(at) == own {
                return 0;
            }
            percent(*count, all).saturating_sub(percent(peers_in(zone), all_peers))
        });
        Self::Residual {
            own,
            own_share: (10_000 * here).checked_div(asked).unwrap_or(0),
            room: room.collect(),
        }
    }

    /// The zone for a request, by its index.
    pub(super) fn choose(&self, random: &mut impl FnMut() -> u64) -> (Option<usize>, Option<ZoneEvent>) {
        match self {
            Self::Off(event) => (None, *event),
            Self::Direct(own) => (Some(*own), Some(ZoneEvent::AllDirectly)),
            Self::Residual { own, own_share, room } => {
                if own.is_some() && random() % 10_000 < *own_share {
                    return (*own, Some(ZoneEvent::Sampled));
                }
                let total: u64 = room.iter().sum();
                let Some(mut rest) = random().checked_rem(total) else {
                    let any = usize::try_from(random() % (room.len() as u64).max(1)).unwrap_or(0);
                    return (Some(any), Some(ZoneEvent::NoCapacityLeft));
                };
                let found = room.iter().position(|room| {
                    let here = rest < *room;
                    rest = rest.saturating_sub(*room);
                    here
                });
                (found, Some(ZoneEvent::CrossZone))
            }
        }
    }
}
