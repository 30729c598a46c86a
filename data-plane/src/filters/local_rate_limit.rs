//! `envoy.filters.http.local_ratelimit`: token buckets, shared by the process.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use sail_proxy_decide::rate_limit::descriptor::Descriptor;
use sail_proxy_decide::rate_limit::{LocalDescriptor, LocalRateLimit, TokenBucket, TokenBucketConfig};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Build, Flow, HttpFilter, Request, Response, Work, descriptors};
use crate::http::local_reply::LocalReply;
use crate::stats::Store;
use crate::stats::sets::http_local_rate_limit as stats;
use crate::stream_info::{ResponseFlag, details};

/// What is kept of a request until its response.
#[derive(Default)]
pub(crate) struct State {
    limited: Option<Arc<LocalRateLimit>>,
    told: Option<Told>,
}

/// What the client is told of the limit.
#[derive(Clone, Copy)]
struct Told {
    bucket: TokenBucketConfig,
    left: u32,
    reset: Duration,
    /// What its descriptor says of telling.
    wanted: Option<bool>,
}

/// Buckets of the process, by their configuration. Only requests under a limit come here.
static BUCKETS: Mutex<Option<Buckets>> = Mutex::new(None);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    config: usize,
    /// Which descriptor, and the values of an open one.
    descriptor: Option<(usize, Box<[String]>)>,
    connection: Option<u64>,
}

type Buckets = HashMap<Key, (Arc<LocalRateLimit>, TokenBucket)>;

/// The filter with the configuration that holds where no route has its own.
pub(crate) struct Filter {
    config: Arc<LocalRateLimit>,
    stats: stats::Scope,
    /// Statistics of routes' own limits, by their prefixes.
    of_routes: RefCell<HashMap<Arc<str>, stats::Scope>>,
    store: Weak<Store>,
}

impl Filter {
    pub(crate) fn new(config: &Arc<LocalRateLimit>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            stats: build.store.scope(&config.stat_prefix),
            of_routes: RefCell::default(),
            store: Arc::downgrade(build.store),
        }
    }

    fn stats(&self, prefix: &Arc<str>) -> stats::Scope {
        if *prefix == self.config.stat_prefix {
            return self.stats.clone();
        }
        let mut of_routes = self.of_routes.borrow_mut();
        if let Some(stats) = of_routes.get(prefix) {
            return stats.clone();
        }
        let Some(store) = self.store.upgrade() else { return self.stats.clone() };
        of_routes.entry(prefix.clone()).or_insert_with(|| store.scope(prefix)).clone()
    }
}

/// What the buckets say of a request.
struct Verdict {
    allowed: bool,
    told: Option<Told>,
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route = match exchange.per_filter(name) {
            Some(PerFilterConfig::LocalRateLimit(config)) => Some(config),
            _ => None,
        };
        let config = per_route.as_ref().unwrap_or(&self.config);
        let worker = &exchange.connection.worker;
        let limits = config.bucket.is_some() || !config.descriptors.is_empty();
        if !limits || !config.enabled.hit(worker.random()) {
            return Flow::Continue;
        }
        let stats = self.stats(&config.stat_prefix);
        stats.inc(stats::enabled);
        let wanted = if config.descriptors.is_empty() {
            Vec::new()
        } else {
            let which = descriptors::Which {
                stage: config.stage,
                own: &config.limits,
                of_virtual_host: config.virtual_host_limits,
            };
            descriptors::of(exchange, head, &which)
        };
        let connection =
            config.per_downstream_connection.then_some(exchange.connection.downstream.connection_id);
        let verdict = take(config, &wanted, connection, worker.shared.started.elapsed());
        exchange.state().rate_limit.told =
            verdict.told.filter(|told| told.wanted.unwrap_or(config.x_ratelimit_headers));
        if verdict.allowed {
            stats.inc(stats::ok);
            return Flow::Continue;
        }
        stats.inc(stats::rate_limited);
        if !config.enforced.hit(worker.random()) {
            let mut headers = std::mem::take(&mut head.headers);
            exchange.with_attributes(head, |attributes| {
                config.request_headers_when_not_enforced.apply(&mut headers, attributes);
            });
            head.headers = headers;
            return Flow::Continue;
        }
        stats.inc(stats::enforced);
        exchange.state().rate_limit.limited = Some(config.clone());
        let mut reply = LocalReply::new(config.status, "local_rate_limited", details::LOCAL_RATE_LIMITED)
            .flag(ResponseFlag::RateLimited);
        reply.grpc_status = config.as_resource_exhausted.then_some(8);
        if let Some(told) = verdict.told.filter(|_| config.retry_after) {
            reply.headers.push((http::header::RETRY_AFTER, HeaderValue::from(seconds(told.reset))));
        }
        Flow::Reply(Box::new(reply))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        if let Some(told) = exchange.state().rate_limit.told.take() {
            told.write(reply.response.headers_mut());
        }
        let config = exchange.state().rate_limit.limited.clone()?;
        let head = exchange.noted_head();
        exchange.with_attributes(&head, |attributes| {
            config.response_headers.apply(reply.response.headers_mut(), attributes);
        });
        None
    }
}

/// Whole seconds, a begun one counted.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl Told {
    fn write(self, headers: &mut HeaderMap) {
        headers.insert("x-ratelimit-limit", HeaderValue::from(self.bucket.max_tokens));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(self.left));
        headers.insert("x-ratelimit-reset", HeaderValue::from(seconds(self.reset)));
    }
}

/// Takes a token from every bucket that is meant.
fn take(
    config: &Arc<LocalRateLimit>,
    wanted: &[Descriptor],
    connection: Option<u64>,
    now: Duration,
) -> Verdict {
    let mut all = BUCKETS.lock();
    let buckets = all.get_or_insert_default();
    // A full bucket is as good as none, and configurations that nobody else holds are of the past.
    if buckets.len() == buckets.capacity() {
        buckets.retain(|_, (config, bucket)| Arc::strong_count(config) > 1 && !bucket.is_full(now));
    }
    let mut meant: Vec<(usize, &LocalDescriptor, &Descriptor)> = Vec::new();
    for descriptor in wanted {
        let found = config.descriptors.iter().enumerate().find(|(_, known)| known.is_match(descriptor));
        meant.extend(found.map(|(index, known)| (index, known, descriptor)));
    }
    // The tightest limits are asked first.
    meant.sort_by(|(_, left, _), (_, right, _)| rate(left.bucket).total_cmp(&rate(right.bucket)));
    let key = |descriptor| Key { config: Arc::as_ptr(config) as usize, descriptor, connection };
    let mut take = |key: Key, bucket: TokenBucketConfig, wanted| {
        make_room(buckets, &key, config.max_dynamic);
        let entry = buckets.entry(key).or_insert_with(|| (config.clone(), TokenBucket::new(bucket, now)));
        let allowed = entry.1.take(now);
        let told = Told { bucket, left: entry.1.tokens(), reset: entry.1.until_token(), wanted };
        Verdict { allowed, told: Some(told) }
    };
    let mut told: Option<Told> = None;
    for (index, known, descriptor) in &meant {
        let values = if known.is_open() {
            descriptor.entries.iter().map(|(_, value)| value.clone()).collect()
        } else {
            Box::default()
        };
        let verdict = take(key(Some((*index, values))), known.bucket, descriptor.told);
        if !verdict.allowed && !known.shadow {
            return verdict;
        }
        told = [told, verdict.told].into_iter().flatten().min_by_key(|told| told.left);
    }
    match config.bucket.filter(|_| meant.is_empty() || config.always_consume_default) {
        None => Verdict { allowed: true, told },
        Some(bucket) => {
            let verdict = take(key(None), bucket, None);
            if !verdict.allowed {
                return verdict;
            }
            let told = [told, verdict.told].into_iter().flatten().min_by_key(|told| told.left);
            Verdict { allowed: true, told }
        }
    }
}

/// Values of an open descriptor come from clients: only so many have buckets, and the fullest gives way.
fn make_room(buckets: &mut Buckets, new: &Key, most: usize) {
    let Some((index, values)) = &new.descriptor else { return };
    if values.is_empty() || buckets.contains_key(new) {
        return;
    }
    let same = |key: &&Key| {
        let descriptor = key.descriptor.as_ref().map(|(index, _)| index);
        key.config == new.config && descriptor == Some(index)
    };
    if buckets.keys().filter(same).count() < most {
        return;
    }
    let of_same = buckets.iter().filter(|(key, _)| same(key));
    let fullest = of_same.max_by_key(|(_, (_, bucket))| bucket.tokens()).map(|(key, _)| key.clone());
    if let Some(key) = fullest {
        buckets.remove(&key);
    }
}

/// Tokens a second.
fn rate(bucket: TokenBucketConfig) -> f64 {
    f64::from(bucket.tokens_per_fill) / bucket.fill_interval.as_secs_f64().max(f64::MIN_POSITIVE)
}
