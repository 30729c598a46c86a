//! How many connections a pool makes: as many as its requests need, and where its cluster says so, more than that, for
//! requests that may come.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use sail_proxy_config::cluster::Preconnect;
use sail_proxy_decide::host::{Health, Host};

use super::Pool;
use super::connect::Protocol;
use super::limits::Resource;
use crate::stats::sets::cluster;

/// So many connections are made ahead at once; the others come with later requests.
pub(crate) const AT_ONCE: usize = 3;

/// Streams that are counted on for an HTTP/2 connection, at the most.
const MOST_STREAMS: usize = 100;

/// What there is to do, and room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests that wait or are on connections.
    streams: usize,
    /// Requests that connections have room for, those that are being made included.
    places: usize,
}

impl Load {
    /// With a request that is about to come.
    pub(crate) fn and_one(self) -> Self {
        Self { streams: self.streams + 1, ..self }
    }

    /// Whether so many times the requests have no room.
    pub(crate) fn exceeds(self, ratio: f64) -> bool {
        self.streams as f64 * ratio > self.places as f64
    }
}

/// The load of a cluster: of all of its pools of one worker.
#[derive(Debug, Default)]
pub(crate) struct Tally(Cell<Load>);

impl Tally {
    pub(crate) fn load(&self) -> Load {
        self.0.get()
    }

    fn replace(&self, old: Load, new: Load) {
        let Load { streams, places } = self.0.get();
        self.0.set(Load {
            streams: (streams + new.streams).saturating_sub(old.streams),
            places: (places + new.places).saturating_sub(old.places),
        });
    }
}

/// Connections to one host that are made before requests need them.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// So many times the connections that requests need.
    ratio: f64,
    /// Whether the host's metadata allow any.
    enabled: bool,
    tally: Rc<Tally>,
    noted: Cell<Load>,
}

impl Ahead {
    pub(crate) fn new(policy: &Preconnect, host: &Host, tally: &Rc<Tally>) -> Self {
        Self {
            ratio: policy.per_upstream_ratio,
            enabled: policy.is_enabled(host),
            tally: tally.clone(),
            noted: Cell::default(),
        }
    }

    fn note(&self, load: Load) {
        self.tally.replace(self.noted.replace(load), load);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.note(Load::default());
    }
}

impl Pool {
    /// Makes as many connections as those in line need, and the configuration wants, and the limits allow.
    pub(super) fn connect_for_waiting(self: &Rc<Self>) {
        let mut made = 0;
        while self.is_short() || (made < AT_ONCE && self.wants_more()) {
            if !self.try_connect() {
                return;
            }
            made += 1;
        }
    }

    /// Makes a connection for a request that is foreseen, unless there is room for that many times what is there; says
    /// whether it did.
    pub(crate) fn connect_ahead(self: &Rc<Self>, ratio: f64) -> bool {
        self.load().and_one().exceeds(ratio) && self.may_connect_ahead() && self.try_connect()
    }

    /// Tells the cluster of what changed.
    pub(super) fn settle(&self) {
        if let Some(ahead) = &self.options.ahead {
            ahead.note(self.load());
        }
    }

    /// Whether somebody in line has no connection in the making.
    fn is_short(&self) -> bool {
        let waiting = self.waiting.borrow().len();
        let needed = if self.places_of_one() > 1 { waiting.min(1) } else { waiting };
        self.connecting.get() < needed
    }

    /// Whether connections are to be made before anybody needs them.
    fn wants_more(&self) -> bool {
        let Some(ahead) = &self.options.ahead else { return false };
        ahead.ratio > 1.0 && self.load().exceeds(ahead.ratio) && self.may_connect_ahead()
    }

    /// Only healthy hosts get connections that nobody needs.
    fn may_connect_ahead(&self) -> bool {
        if self.closed.get() || self.connector.host.health() != Health::Healthy {
            return false;
        }
        let enabled = self.options.ahead.as_ref().is_some_and(|ahead| ahead.enabled);
        if !enabled {
            self.stats.inc(cluster::upstream_cx_preconnect_skipped);
        }
        enabled
    }

    fn load(&self) -> Load {
        let busy = self.busy.get();
        let places = match self.closed.get() {
            // What is left serves what is on it.
            true => busy,
            false => (self.open.get() + self.connecting.get()) * self.places_of_one(),
        };
        Load { streams: self.waiting.borrow().len() + busy, places }
    }

    /// As many requests as one connection serves at once.
    fn places_of_one(&self) -> usize {
        let known = self.shared.try_borrow().ok().and_then(|all| Some(all.last()?.send.max_streams()));
        match (self.connector.protocol, known) {
            (Protocol::Http1 | Protocol::Tcp, _) => 1,
            (Protocol::Negotiated, None) if self.open.get() > 0 => 1,
            (_, known) => known.unwrap_or(MOST_STREAMS).clamp(1, self.options.max_streams.max(1)),
        }
    }

    /// Makes a connection; says whether the limits allowed it.
    fn try_connect(self: &Rc<Self>) -> bool {
        let host = &self.connector.host.state.active_connections;
        let free = host.load(Relaxed) < self.limits.per_host;
        if let Some(permit) = free.then(|| self.limits.acquire(Resource::Connections)).flatten() {
            self.spawn_connect(permit);
            return true;
        }
        self.stats.inc(cluster::upstream_cx_overflow);
        // A host without any connection gets one, or its requests would wait for ever.
        if self.open.get() + self.connecting.get() == 0 {
            self.spawn_connect(self.limits.exceed(Resource::Connections));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(streams: usize, places: usize) -> Load {
        Load { streams, places }
    }

    #[test]
    fn room_is_compared_with_what_may_come() {
        for (streams, places, ratio, exceeds) in [
            (0, 0, 2.0, true),
            (0, 1, 2.0, true),
            (0, 2, 2.0, false),
            (1, 3, 2.0, true),
            (1, 4, 2.0, false),
            (9, 10, 1.0, false),
            (9, 10, 1.05, true),
            (1, 100, 3.0, false),
        ] {
            assert_eq!(load(streams, places).and_one().exceeds(ratio), exceeds, "{streams} {places} {ratio}");
        }
    }

    #[test]
    fn a_tally_follows_its_pools() {
        let policy = Preconnect { per_upstream_ratio: 1.0, predictive_ratio: 2.0, enabled: None };
        let host = crate::cluster::shared::at(([127, 0, 0, 1], 1).into(), "".into());
        let tally = Rc::default();
        let (one, two) = (Ahead::new(&policy, &host, &tally), Ahead::new(&policy, &host, &tally));
        one.note(load(1, 2));
        two.note(load(3, 3));
        assert_eq!(tally.load(), load(4, 5));
        one.note(load(0, 2));
        assert_eq!(tally.load(), load(3, 5));
        drop(two);
        assert_eq!(tally.load(), load(0, 2));
    }
}
