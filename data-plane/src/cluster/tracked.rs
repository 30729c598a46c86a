//! What a cluster records of its requests where its configuration asks for more than counts: sizes, and how much of their
//! time they take.

use std::time::{Duration, Instant};

use http::HeaderMap;
use sail_proxy_config::cluster::Cluster as Config;
use sail_proxy_decide::route::Timeouts;

use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::stats::sets::{cluster_budgets as budgets, cluster_sizes as sizes};
use crate::worker::Shared;

/// See the module's documentation.
pub(crate) struct Tracked {
    sizes: Option<sizes::Scope>,
    budgets: Option<budgets::Scope>,
}

impl Tracked {
    pub(super) fn of(config: &Config, shared: &Shared) -> Option<Box<Self>> {
        let wanted = config.tracks_sizes || config.tracks_timeout_budgets;
        wanted.then(|| {
            let name = &config.stat_name;
            Box::new(Self {
                sizes: config.tracks_sizes.then(|| shared.store.scope(name)),
                budgets: config.tracks_timeout_budgets.then(|| shared.store.scope(name)),
            })
        })
    }

    /// A request as it goes upstream.
    pub(crate) fn begin(&self, exchange: &Exchange, head: &Head) {
        if let Some(stats) = self.sizes.clone() {
            let pseudo = [
                (":method", head.method.as_str().len()),
                (":path", head.path.as_str().len()),
                (":authority", head.authority.len()),
                (":scheme", head.scheme.len()),
            ];
            let more: usize = pseudo.iter().map(|(name, length)| name.len() + length).sum();
            stats.record(sizes::upstream_rq_headers_size, size(&head.headers) + more as u64);
            stats.record(sizes::upstream_rq_headers_count, (head.headers.len() + pseudo.len()) as u64);
            exchange.state().at_end(Box::new(move |exchange| {
                let bytes = exchange.info.borrow().bytes;
                stats.record(sizes::upstream_rq_body_size, bytes.received);
                stats.record(sizes::upstream_rs_body_size, bytes.sent);
            }));
        }
    }

    /// A request whose end is told of once it is over.
    pub(crate) fn note_end(&self, exchange: &Exchange, timeouts: &Timeouts) {
        let (Some(stats), Some(limit)) = (self.budgets.clone(), timeouts.global) else { return };
        exchange.state().at_end(Box::new(move |exchange| {
            stats.record(budgets::percent_used, percent(exchange.start.elapsed(), limit));
        }));
    }

    /// A try that is over.
    pub(crate) fn note_try(&self, began: Instant, timeouts: &Timeouts) {
        if let Some(stats) = &self.budgets {
            stats.record(budgets::per_try_percent_used, of_try(began, timeouts.per_try));
        }
    }

    /// The try that lasts as long as its request.
    pub(crate) fn note_try_end(&self, exchange: &Exchange, began: Instant, timeouts: &Timeouts) {
        let Some(stats) = self.budgets.clone() else { return };
        let per_try = timeouts.per_try;
        exchange.state().at_end(Box::new(move |_| {
            stats.record(budgets::per_try_percent_used, of_try(began, per_try));
        }));
    }

    /// A response as it comes.
    pub(crate) fn note_response(&self, headers: &HeaderMap) {
        let Some(stats) = &self.sizes else { return };
        let status = ":status".len() + "200".len();
        stats.record(sizes::upstream_rs_headers_size, size(headers) + status as u64);
        stats.record(sizes::upstream_rs_headers_count, headers.len() as u64 + 1);
    }
}

fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

/// Of a time that is not bounded, nothing is ever used.
fn of_try(began: Instant, limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| percent(began.elapsed(), limit))
}

fn percent(taken: Duration, limit: Duration) -> u64 {
    let whole = limit.as_millis().max(1);
    u64::try_from(taken.as_millis() * 100 / whole).unwrap_or(u64::MAX)
}
