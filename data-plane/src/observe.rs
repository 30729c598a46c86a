//! What happens when a stream ends: access logs, Istio's metrics, its span. One observer a filter chain's end, built
//! when configuration is activated; the I/O calls it on the stream's worker.

mod istio;
mod istio_labels;
mod tracer;

pub use istio::check as check_istio_stats;

use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_config::hcm::{Hcm, LocalReply};
use sail_proxy_config::http_filter::{HttpFilterKind, UpstreamLogOptions};
use sail_proxy_config::listener::{FilterChain, Listener};
use sail_proxy_config::network_filter::{NetworkFilter, TcpProxy};
use sail_proxy_decide::headers::AddValue;
use xds_api::envoy::config::core::v3::Node;

use crate::access_log::{self, LogType, Logger, Sinks};
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::stats::Store;
use crate::stream_info::{Capture, Direction, PeerMetadata, ResponseFlag, ResponseFlags, StreamInfo};
use crate::trace::{Exporters, Tracer, Way};
use istio::IstioStats;

/// Environment variables, read once by `main`.
pub type Environment = HashMap<String, String>;

/// What observers are made with. Shared by all threads.
#[derive(Debug)]
pub struct Observers {
    store: Arc<Store>,
    sinks: Arc<Sinks>,
    exporters: Exporters,
    node: Node,
    local: Arc<PeerMetadata>,
    http: Mutex<HashMap<usize, Weak<HttpObserver>>>,
    tcp: Mutex<HashMap<usize, Weak<TcpObserver>>>,
}

impl Observers {
    /// For this node.
    pub fn new(store: Arc<Store>, sinks: Arc<Sinks>, exporters: Exporters, node: Node) -> Arc<Self> {
        let local = Arc::new(node.metadata.as_ref().map(PeerMetadata::from_struct).unwrap_or_default());
        Arc::new(Self { store, sinks, exporters, node, local, http: Mutex::default(), tcp: Mutex::default() })
    }

    /// The observer of a connection manager; all workers share it for as long as one of them holds it.
    pub fn http(&self, listener: &Listener, chain: &FilterChain, hcm: &Arc<Hcm>) -> Arc<HttpObserver> {
        // The address names the configuration for as long as the observer holds it.
        let key = Arc::as_ptr(hcm) as usize;
        let mut all = self.http.lock();
        if let Some(observer) = all.get(&key).and_then(Weak::upgrade) {
            return observer;
        }
        all.retain(|_, observer| observer.strong_count() > 0);
        let observer = Arc::new(self.build_http(direction(listener), chain, hcm));
        all.insert(key, Arc::downgrade(&observer));
        observer
    }

    /// The observer of a TCP proxy.
    pub fn tcp(&self, listener: &Listener, chain: &FilterChain, proxy: &Arc<TcpProxy>) -> Arc<TcpObserver> {
        let key = Arc::as_ptr(proxy) as usize;
        let mut all = self.tcp.lock();
        if let Some(observer) = all.get(&key).and_then(Weak::upgrade) {
            return observer;
        }
        all.retain(|_, observer| observer.strong_count() > 0);
        let loggers: Vec<Logger> =
            proxy.access_logs.iter().map(|log| Logger::new(log, &self.sinks)).collect();
        let mut capture = Capture::default();
        loggers.iter().for_each(|logger| logger.plan(&mut capture));
        let observer = Arc::new(TcpObserver {
            loggers,
            round_trip: capture.round_trip,
            istio: self.network_istio(direction(listener), chain),
            log_on_start: proxy.flush_access_log_on_start,
            log_on_connected: proxy.flush_access_log_on_connected,
            _proxy: proxy.clone(),
        });
        all.insert(key, Arc::downgrade(&observer));
        observer
    }

    /// The logs of a listener, for connections that no filter chain takes.
    pub fn listener(&self, listener: &Listener) -> Vec<Logger> {
        listener.access_logs.iter().map(|log| Logger::new(log, &self.sinks)).collect()
    }

    /// Opens the files of logs anew, after somebody moved them away.
    pub fn reopen_logs(&self) {
        self.sinks.reopen();
    }

    /// Our own metadata, as peers see it.
    pub fn local(&self) -> &Arc<PeerMetadata> {
        &self.local
    }

    fn build_http(&self, direction: Direction, chain: &FilterChain, hcm: &Arc<Hcm>) -> HttpObserver {
        let mut capture = Capture::default();
        let loggers: Vec<Logger> = hcm.access_logs.iter().map(|log| Logger::new(log, &self.sinks)).collect();
        loggers.iter().for_each(|logger| logger.plan(&mut capture));
        if let Some(local) = &hcm.local_reply {
            plan_local_reply(local, &mut capture);
        }
        let filter = hcm.http_filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::IstioStats(config) => Some(config),
            _ => None,
        });
        let istio =
            filter.map(|config| IstioStats::new(config, direction, &self.local, &self.node, &self.store));
        let istio = istio.or_else(|| self.network_istio(direction, chain));
        if istio.is_some() {
            capture.request("content-type");
        }
        if let Some(istio) = &istio {
            istio.plan(&mut capture);
        }
        let tracer = hcm.tracing.as_ref().and_then(|tracing| self.tracer(direction, hcm, tracing));
        if let Some(tracer) = &tracer {
            tracer.plan(&mut capture);
        }
        let router = hcm.http_filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::Router(router) => Some(router),
            _ => None,
        });
        let logs = router.iter().flat_map(|router| &router.upstream_log);
        let upstream: Vec<Logger> = logs.map(|log| Logger::new(log, &self.sinks)).collect();
        upstream.iter().for_each(|logger| logger.plan(&mut capture));
        // What nobody logs costs nothing.
        let options = router.filter(|_| !upstream.is_empty()).map(|router| router.upstream_log_options);
        HttpObserver {
            capture: Arc::new(capture),
            loggers,
            upstream,
            upstream_options: options.unwrap_or_default(),
            istio,
            tracer,
            hcm: hcm.clone(),
        }
    }

    fn network_istio(&self, direction: Direction, chain: &FilterChain) -> Option<IstioStats> {
        chain.filters.iter().find_map(|filter| match filter {
            NetworkFilter::IstioStats(config) => {
                Some(IstioStats::new(config, direction, &self.local, &self.node, &self.store))
            }
            _ => None,
        })
    }
}

/// Observes the requests of one HTTP connection manager.
#[derive(Debug)]
pub struct HttpObserver {
    capture: Arc<Capture>,
    loggers: Vec<Logger>,
    /// Logs of tries.
    upstream: Vec<Logger>,
    upstream_options: UpstreamLogOptions,
    istio: Option<IstioStats>,
    tracer: Option<Tracer>,
    hcm: Arc<Hcm>,
}

impl HttpObserver {
    /// The headers to keep: set as the plan of a request's [`StreamInfo::captured`] when it begins.
    pub fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// Called once per request, when its route is known and before it goes upstream: decides on tracing, begins the
    /// span and leaves the context in the headers.
    pub fn on_request(&self, headers: &mut http::HeaderMap, info: &mut StreamInfo, way: &Way<'_>) {
        if let Some(tracer) = &self.tracer {
            tracer.begin(headers, info, way);
        }
    }

    /// Called once per try, before it goes upstream.
    pub fn on_try(&self, headers: &mut http::HeaderMap, info: &mut StreamInfo, count: u32) {
        if let Some(tracer) = &self.tracer {
            tracer.begin_try(headers, info, count);
        }
    }

    /// Called where another try follows; the last one ends with the request.
    pub fn on_try_end(&self, info: &mut StreamInfo, status: Option<u16>, flag: Option<ResponseFlag>) {
        if !self.upstream.is_empty() {
            self.log_try(info, LogType::UpstreamEnd, status.filter(|status| *status > 0), flag);
        }
        if let Some(tracer) = &self.tracer {
            tracer.end_try(info, status);
        }
    }

    /// Called once per try that has its connection.
    pub(crate) fn on_upstream_stream(&self, info: &mut StreamInfo) {
        if self.upstream_options.flush_on_upstream_stream {
            self.log_try(info, LogType::UpstreamPoolReady, None, None);
        }
    }

    /// How often tries are logged while they go on.
    pub(crate) fn try_interval(&self) -> Option<Duration> {
        self.upstream_options.flush_interval
    }

    /// Called as often as that.
    pub(crate) fn on_try_interval(&self, info: &mut StreamInfo) {
        let status = info.response_code.filter(|_| info.timing.first_upstream_rx.is_some());
        self.log_try(info, LogType::UpstreamPeriodic, status, None);
    }

    /// Called once per request that was admitted, before its filters see it.
    pub(crate) fn on_request_start(&self, exchange: &Exchange, head: &Head) {
        if !self.hcm.flush_access_log_on_new_request || self.loggers.is_empty() {
            return;
        }
        let mut info = exchange.info.borrow_mut();
        info.captured.take_request(&head.headers);
        info.request.authority = Some(bytes::Bytes::copy_from_slice(head.authority.as_bytes()));
        info.request.path = Some(bytes::Bytes::copy_from_slice(head.path.as_str().as_bytes()));
        self.log(&info, LogType::DownstreamStart);
    }

    /// Called as often as `access_log_flush_interval` says, while a request goes on.
    pub(crate) fn on_interval(&self, info: &StreamInfo) {
        self.log(info, LogType::DownstreamPeriodic);
    }

    /// Logs a try, as one who asks the upstream sees it.
    fn log_try(&self, info: &mut StreamInfo, kind: LogType, status: Option<u16>, flag: Option<ResponseFlag>) {
        let before = (info.response_code, info.flags, info.attempt_count, info.bytes);
        let details = info.code_details.take();
        (info.response_code, info.flags, info.attempt_count) = (status, ResponseFlags::default(), 0);
        // What the client got otherwise is our own.
        let received = if status.is_some() { info.bytes.sent } else { 0 };
        (info.bytes.received, info.bytes.sent) = (received, info.bytes.received);
        if let Some(flag) = flag {
            info.flag(flag);
        }
        for logger in &self.upstream {
            logger.log(info, kind);
        }
        (info.response_code, info.flags, info.attempt_count, info.bytes) = before;
        info.code_details = details;
    }

    /// Logs the last try.
    fn log_last_try(&self, info: &mut StreamInfo) {
        let failures = [
            ResponseFlag::UpstreamConnectionFailure,
            ResponseFlag::UpstreamConnectionTermination,
            ResponseFlag::UpstreamRemoteReset,
            ResponseFlag::UpstreamProtocolError,
            ResponseFlag::UpstreamRequestTimeout,
            ResponseFlag::UpstreamMaxStreamDurationReached,
        ];
        let failure = failures.into_iter().find(|flag| info.flags.has(*flag));
        let status = info.response_code.filter(|_| info.timing.first_upstream_rx.is_some());
        self.log_try(info, LogType::UpstreamEnd, status, failure);
    }

    fn log(&self, info: &StreamInfo, kind: LogType) {
        for logger in &self.loggers {
            logger.log(info, kind);
        }
    }

    /// Called once per request, when its last byte was sent or it was given up.
    pub fn on_request_end(&self, info: &mut StreamInfo) {
        info.timing.end.get_or_insert_with(std::time::Instant::now);
        if !self.upstream.is_empty() && info.upstream.is_some() {
            self.log_last_try(info);
        }
        self.log(info, LogType::DownstreamEnd);
        if let Some(istio) = &self.istio {
            istio.on_http_end(info);
        }
        if let Some(tracer) = &self.tracer {
            tracer.end(info);
        }
    }
}

/// Observes the connections of one TCP proxy.
#[derive(Debug)]
pub struct TcpObserver {
    loggers: Vec<Logger>,
    istio: Option<IstioStats>,
    log_on_start: bool,
    log_on_connected: bool,
    round_trip: bool,
    _proxy: Arc<TcpProxy>,
}

impl TcpObserver {
    /// Whether a log tells the connection's round trip.
    pub fn wants_round_trip(&self) -> bool {
        self.round_trip
    }

    /// A connection has come.
    pub fn on_start(&self, info: &StreamInfo) {
        if self.log_on_start {
            self.log(info, LogType::TcpStart);
        }
    }

    /// The upstream is chosen and connected, and the peer's metadata, if any, has arrived.
    pub fn on_open(&self, info: &mut StreamInfo) {
        if let Some(istio) = &self.istio {
            istio.on_tcp_open(info);
        }
        if self.log_on_connected {
            self.log(info, LogType::TcpConnected);
        }
    }

    /// Called every five seconds or so while bytes flow; byte counts are totals.
    pub fn on_interval(&self, info: &mut StreamInfo) {
        if let Some(istio) = &self.istio {
            istio.on_tcp_interval(info);
        }
    }

    /// Called as often as the proxy's `access_log_flush_interval` says.
    pub fn on_log_interval(&self, info: &StreamInfo) {
        self.log(info, LogType::TcpPeriodic);
    }

    /// Called once, at the end, also if [`TcpObserver::on_open`] never was.
    pub fn on_close(&self, info: &mut StreamInfo) {
        info.timing.end.get_or_insert_with(std::time::Instant::now);
        if let Some(istio) = &self.istio {
            istio.on_tcp_close(info);
        }
        self.log(info, LogType::TcpEnd);
    }

    fn log(&self, info: &StreamInfo, kind: LogType) {
        for logger in &self.loggers {
            logger.log(info, kind);
        }
    }
}

/// Adds the headers that local replies are made of.
fn plan_local_reply(config: &LocalReply, capture: &mut Capture) {
    for mapper in &config.mappers {
        access_log::plan_filter(&mapper.filter, capture);
        for add in &mapper.headers.add {
            if let AddValue::Format(format) = &add.value {
                access_log::plan_format(format, capture);
            }
        }
    }
    let formats = config.mappers.iter().filter_map(|mapper| mapper.body_format.as_ref());
    for body in formats.chain(&config.body_format) {
        access_log::plan_log_format(&body.format, capture);
    }
}

fn direction(listener: &Listener) -> Direction {
    use sail_proxy_config::listener::TrafficDirection;
    match listener.traffic_direction {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    }
}
