//! The `istio.stats` filter: Istio's standard metrics.

mod expression;

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use xds_api::envoy::config::core::v3::Node;
use xds_api::istio::stats::PluginConfig;

use self::expression::Expression;
use super::istio_labels::{Labels, Reporter, render};
use crate::stats::sets::{istio_http, istio_tcp};
use crate::stats::{Scope, StatSet, Store};
use crate::stream_info::{Capture, Direction, PeerMetadata, StreamInfo};

/// How many sets of labels a worker keeps at hand for one observer; beyond, it starts over.
const CACHE: usize = 4096;

/// Metrics of requests, without their prefix.
const HTTP: [&str; 6] = [
    "requests_total",
    "request_messages_total",
    "response_messages_total",
    "request_duration_milliseconds",
    "request_bytes",
    "response_bytes",
];
/// Metrics of connections.
const TCP: [&str; 4] = [
    "tcp_connections_opened_total",
    "tcp_connections_closed_total",
    "tcp_sent_bytes_total",
    "tcp_received_bytes_total",
];

/// Scopes by observer and labels.
type Cache<S> = RefCell<HashMap<(usize, u64), Entry<S>>>;

thread_local! {
    static HTTP_CACHE: Cache<istio_http::Set> = RefCell::default();
    static TCP_CACHE: Cache<istio_tcp::Set> = RefCell::default();
    static ENDPOINTS: RefCell<HashMap<usize, Endpoint>> = RefCell::default();
}

/// An endpoint's text and what it says.
type Endpoint = (Arc<str>, Arc<PeerMetadata>);

/// The scopes that a set of labels leads to: one for all metrics, or one for each where they differ.
type Entry<S> = Arc<[Option<Scope<S>>]>;

/// The filter.
#[derive(Debug)]
pub(super) struct IstioStats {
    reporter: Reporter,
    local: Arc<PeerMetadata>,
    host_fallback: bool,
    hasher: DefaultHashBuilder,
    custom: Custom,
    store: Arc<Store>,
}

/// What the configuration changes.
#[derive(Debug, Default)]
struct Custom {
    /// Values to compute for every stream.
    expressions: Vec<Expression>,
    /// By metric, one after the other. Empty: nothing is changed.
    metrics: HashMap<&'static str, Vec<Change>>,
}

/// What changes in a metric's labels.
#[derive(Clone, Debug, Default)]
struct Change {
    /// The place of the expression that chooses streams; `None`: all of them.
    when: Option<usize>,
    dropped: bool,
    /// Label, and the place of its expression.
    set: Vec<(Arc<str>, usize)>,
    removed: Vec<String>,
}

/// Whether this build can run the configuration; the error names the field.
pub fn check(config: &PluginConfig) -> Result<(), String> {
    if !config.definitions.is_empty() {
        return Err("definitions: metrics of one's own are not supported".to_owned());
    }
    Custom::new(config, None).map(|_| ())
}

impl IstioStats {
    pub(super) fn new(
        config: &PluginConfig,
        direction: Direction,
        local: &Arc<PeerMetadata>,
        node: &Node,
        store: &Arc<Store>,
    ) -> Self {
        let reporter = match (config.reporter, direction) {
            (1, _) => Reporter::Waypoint,
            (_, Direction::Outbound) => Reporter::Source,
            _ => Reporter::Destination,
        };
        Self {
            reporter,
            local: local.clone(),
            host_fallback: !config.disable_host_header_fallback,
            hasher: DefaultHashBuilder::default(),
            // It was checked when the configuration was taken.
            custom: Custom::new(config, Some(node)).unwrap_or_default(),
            store: store.clone(),
        }
    }

    /// Adds the headers that expressions read.
    pub(super) fn plan(&self, capture: &mut Capture) {
        self.custom.expressions.iter().for_each(|expression| expression.plan(capture));
    }

    pub(super) fn on_http_end(&self, info: &StreamInfo) {
        let entry = self.entry(info, &HTTP, &HTTP_CACHE);
        let at = |place: usize| entry.get(place).or(entry.first()).and_then(Option::as_ref);
        if let Some(scope) = at(0) {
            scope.inc(istio_http::requests_total);
        }
        if info.grpc_messages.request > 0
            && let Some(scope) = at(1)
        {
            scope.add(istio_http::request_messages_total, info.grpc_messages.request);
        }
        if info.grpc_messages.response > 0
            && let Some(scope) = at(2)
        {
            scope.add(istio_http::response_messages_total, info.grpc_messages.response);
        }
        if let Some(scope) = at(3) {
            scope.record(istio_http::request_duration_milliseconds, info.duration().as_millis() as u64);
        }
        if let Some(scope) = at(4) {
            scope.record(istio_http::request_bytes, info.bytes.request_headers + info.bytes.received);
        }
        if let Some(scope) = at(5) {
            scope.record(istio_http::response_bytes, info.bytes.response_headers + info.bytes.sent);
        }
    }

    pub(super) fn on_tcp_open(&self, info: &mut StreamInfo) {
        if !std::mem::replace(&mut info.tcp_reported.0, true) {
            let entry = self.entry(info, &TCP, &TCP_CACHE);
            if let Some(scope) = entry.first().and_then(Option::as_ref) {
                scope.inc(istio_tcp::connections_opened_total);
            }
        }
    }

    pub(super) fn on_tcp_interval(&self, info: &mut StreamInfo) {
        let (_, received, sent) = info.tcp_reported;
        let more = (info.bytes.received.saturating_sub(received), info.bytes.sent.saturating_sub(sent));
        if more != (0, 0) {
            let entry = self.entry(info, &TCP, &TCP_CACHE);
            let at = |place: usize| entry.get(place).or(entry.first()).and_then(Option::as_ref);
            if let Some(scope) = at(2) {
                scope.add(istio_tcp::sent_bytes_total, more.1);
            }
            if let Some(scope) = at(3) {
                scope.add(istio_tcp::received_bytes_total, more.0);
            }
            info.tcp_reported = (info.tcp_reported.0, info.bytes.received, info.bytes.sent);
        }
    }

    pub(super) fn on_tcp_close(&self, info: &mut StreamInfo) {
        self.on_tcp_open(info);
        self.on_tcp_interval(info);
        let entry = self.entry(info, &TCP, &TCP_CACHE);
        if let Some(scope) = entry.get(1).or(entry.first()).and_then(Option::as_ref) {
            scope.inc(istio_tcp::connections_closed_total);
        }
    }

    /// The scopes for this stream's labels: found by the worker itself, except for labels that it has not seen.
    fn entry<S: StatSet>(
        &self,
        info: &StreamInfo,
        metrics: &[&'static str],
        cache: &'static std::thread::LocalKey<Cache<S>>,
    ) -> Entry<S> {
        let endpoint = self.endpoint(info);
        let values: Vec<String> =
            self.custom.expressions.iter().map(|expression| expression.value(info)).collect();
        let mut labels =
            Labels::new(self.reporter, &self.local, endpoint.as_deref(), info, self.host_fallback);
        labels.custom = &values;
        // The hasher is the observer's own, so that its address and this number name the labels.
        let key = (std::ptr::from_ref(self) as usize, labels.key(&self.hasher));
        cache.with_borrow_mut(|cache| {
            if let Some(entry) = cache.get(&key) {
                return entry.clone();
            }
            if cache.len() >= CACHE {
                cache.clear();
            }
            let entry = self.build(&labels, metrics);
            cache.insert(key, entry.clone());
            entry
        })
    }

    fn build<S: StatSet>(&self, labels: &Labels<'_>, metrics: &[&'static str]) -> Entry<S> {
        let list: Vec<(Arc<str>, String)> =
            labels.list().into_iter().map(|(name, value)| (name.into(), value)).collect();
        if self.custom.metrics.is_empty() {
            return Arc::new([Some(self.store.pinned(&render(&list)))]);
        }
        let value = |place: usize| labels.custom.get(place).map(String::as_str).unwrap_or_default();
        let scopes = metrics.iter().map(|metric| {
            let mut list = list.clone();
            for change in self.custom.metrics.get(metric).into_iter().flatten() {
                if change.when.is_some_and(|place| value(place) != expression::TRUE) {
                    continue;
                }
                if change.dropped {
                    return None;
                }
                list.retain(|(name, _)| !change.removed.iter().any(|removed| **removed == **name));
                for (name, place) in &change.set {
                    match list.iter_mut().find(|(known, _)| known == name) {
                        Some((_, old)) => *old = value(*place).to_owned(),
                        None => list.push((name.clone(), value(*place).to_owned())),
                    }
                }
            }
            Some(self.store.pinned(&render(&list)))
        });
        scopes.collect()
    }

    /// The upstream endpoint's metadata, parsed once per endpoint.
    fn endpoint(&self, info: &StreamInfo) -> Option<Arc<PeerMetadata>> {
        if self.reporter != Reporter::Source || info.upstream_peer.is_some() {
            return None;
        }
        let workload = info.upstream.as_ref()?.workload.as_ref()?;
        ENDPOINTS.with_borrow_mut(|endpoints| {
            let key = Arc::as_ptr(workload).cast::<u8>() as usize;
            if let Some((_, peer)) = endpoints.get(&key) {
                return Some(peer.clone());
            }
            if endpoints.len() >= CACHE {
                endpoints.clear();
            }
            let peer = Arc::new(PeerMetadata::from_endpoint(workload)?);
            // Held, so that no other text gets this address.
            endpoints.insert(key, (workload.clone(), peer.clone()));
            Some(peer)
        })
    }
}

impl Custom {
    fn new(config: &PluginConfig, node: Option<&Node>) -> Result<Self, String> {
        let mut custom = Self::default();
        for (place, metric) in config.metrics.iter().enumerate() {
            let field = |name: &str| format!("metrics[{place}].{name}");
            let known = HTTP.iter().chain(&TCP).copied();
            let names: Vec<&'static str> =
                known.filter(|name| metric.name.is_empty() || metric.name == *name).collect();
            if names.is_empty() {
                return Err(field(&format!("name: there is no metric {:?}", metric.name)));
            }
            let mut set = Vec::new();
            let mut dimensions: Vec<_> = metric.dimensions.iter().collect();
            dimensions.sort();
            for (label, text) in dimensions {
                let wrong = |error| field(&format!("dimensions[{label}]: {text:?}: {error}"));
                let expression = Expression::parse(text, node).map_err(wrong)?;
                set.push((Arc::from(label.as_str()), custom.add(expression)));
            }
            let mut when = None;
            if !metric.r#match.is_empty() {
                let wrong = |error| field(&format!("match: {:?}: {error}", metric.r#match));
                when = Some(custom.add(Expression::parse(&metric.r#match, node).map_err(wrong)?));
            }
            let change = Change { when, dropped: metric.drop, set, removed: metric.tags_to_remove.clone() };
            for name in names {
                custom.metrics.entry(name).or_default().push(change.clone());
            }
        }
        Ok(custom)
    }

    /// The place of an expression.
    fn add(&mut self, expression: Expression) -> usize {
        self.expressions.push(expression);
        self.expressions.len() - 1
    }
}

#[cfg(test)]
mod tests;
