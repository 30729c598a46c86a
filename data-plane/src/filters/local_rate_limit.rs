//! `envoy.filters.http.local_ratelimit`: a token bucket, shared by the process.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_decide::rate_limit::{LocalRateLimit, TokenBucket};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_local_rate_limit as stats;
use crate::stream_info::{ResponseFlag, details};

/// What is kept of a request until its response.
#[derive(Default)]
pub(crate) struct State {
    limited: Option<Arc<LocalRateLimit>>,
}

/// Buckets of the process, by their configuration. Only requests under a limit come here.
static BUCKETS: Mutex<Option<Buckets>> = Mutex::new(None);

type Buckets = HashMap<usize, (Arc<LocalRateLimit>, TokenBucket)>;

/// The filter with the configuration that holds where no route has its own.
pub(crate) struct Filter(pub(crate) Arc<LocalRateLimit>);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, .. } = request;
        let per_route = match exchange.per_filter(name) {
            Some(PerFilterConfig::LocalRateLimit(config)) => Some(config),
            _ => None,
        };
        let config = per_route.as_ref().unwrap_or(&self.0);
        let worker = &exchange.connection.worker;
        if config.bucket.is_none() || !config.enabled.hit(worker.random()) {
            return Flow::Continue;
        }
        let stats = exchange.connection.manager.rate_limit_stats();
        stats.inc(stats::enabled);
        if take(config, worker.shared.started.elapsed()) {
            stats.inc(stats::ok);
            return Flow::Continue;
        }
        stats.inc(stats::rate_limited);
        if !config.enforced.hit(worker.random()) {
            return Flow::Continue;
        }
        stats.inc(stats::enforced);
        exchange.state().rate_limit.limited = Some(config.clone());
        let mut reply = LocalReply::new(config.status, "local_rate_limited", details::LOCAL_RATE_LIMITED)
            .flag(ResponseFlag::RateLimited);
        reply.grpc_status = config.as_resource_exhausted.then_some(8);
        Flow::Reply(Box::new(reply))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        let config = exchange.state().rate_limit.limited.clone()?;
        let head = exchange.noted_head();
        exchange.with_attributes(&head, |attributes| {
            config.response_headers.apply(reply.response.headers_mut(), attributes);
        });
        None
    }
}

fn take(config: &Arc<LocalRateLimit>, now: std::time::Duration) -> bool {
    let Some(bucket) = config.bucket else { return true };
    let mut buckets = BUCKETS.lock();
    let buckets = buckets.get_or_insert_default();
    // Configurations that nobody else holds are of the past.
    if buckets.len() == buckets.capacity() {
        buckets.retain(|_, (config, _)| Arc::strong_count(config) > 1);
    }
    let entry = buckets.entry(Arc::as_ptr(config) as usize);
    entry.or_insert_with(|| (config.clone(), TokenBucket::new(bucket, now))).1.take(now)
}
