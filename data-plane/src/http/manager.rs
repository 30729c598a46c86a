//! The HTTP connection manager of a filter chain: its configuration in the form that requests read, its statistics.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sail_proxy_config::hcm::{Codec, EscapedSlashes as ConfigSlashes, ForwardClientCert, Hcm, ServerHeader};
use sail_proxy_config::http_filter::HttpFilterKind;
use sail_proxy_config::http_filter::router::Router;
use sail_proxy_config::listener::{FilterChain, Listener};
use sail_proxy_decide::route::{Action, ControlHeader, Route};

use super::head::Head;
use super::mutate::Server;
use super::path::{EscapedSlashes, Rules};
use super::xfcc::{Details, Mode};
use crate::filters::{Build, Chain};
use crate::observe::HttpObserver;
use crate::stats::sets::{self, http as stats, listener_http};
use crate::stream_info::{ConfigMetadata, StreamInfo};
use crate::worker::Shared;
use crate::{http1, http2};

/// What clients have to send to begin with, on a stream and on a connection.
const WINDOW: u32 = 1 << 20;

/// See the module's documentation.
pub(crate) struct Manager {
    pub(crate) config: Arc<Hcm>,
    pub(crate) stats: stats::Scope,
    pub(crate) observer: Arc<HttpObserver>,
    filters: Chain,
    listener_stats: listener_http::Scope,
    server: Server,
    rules: Rules,
    mode: Mode,
    details: Details,
    envoy_headers: bool,
    /// Filters in place of the manager's, for upgrades that have their own.
    upgrade_filters: Vec<(Box<str>, Chain)>,
    /// Metadata that every stream here has.
    pub(crate) metadata: ConfigMetadata,
    /// The filter chain's name.
    pub(crate) filter_chain: Option<Arc<str>>,
    /// What the codecs count of all managers.
    pub(crate) http1: sets::http1::Scope,
    pub(crate) http2: sets::http2::Scope,
    /// The configuration of its last filter.
    router: Option<Arc<Router>>,
    /// What its tries pass on their way to clusters that have no filters.
    upstream_filters: Option<Chain>,
    /// How much of a stream is buffered where nothing else is said.
    pub(crate) buffer_limit: u32,
    /// Whether the time that an earlier proxy expects a request to take bounds it.
    pub(crate) heeds_expected_timeout: bool,
}

impl Manager {
    pub(crate) fn new(config: &Arc<Hcm>, listener: &Listener, chain: &FilterChain, shared: &Shared) -> Self {
        let prefix = &config.stat_prefix;
        let store = &shared.store;
        let router = config.http_filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::Router(router) => Some(router),
            _ => None,
        });
        let suppress = router.is_some_and(|router| router.suppress_envoy_headers);
        let path = config.path;
        let details = config.client_cert_details;
        Self {
            stats: store.scope(prefix),
            router: router.cloned(),
            upstream_filters: router
                .and_then(|router| Chain::of_upstreams(&router.upstream_filters, &Build { store, prefix })),
            http1: store.scope(""),
            http2: store.scope(""),
            buffer_limit: listener.per_connection_buffer_limit,
            heeds_expected_timeout: router.is_some_and(|router| router.respect_expected_rq_timeout),
            observer: shared.options.observers.http(listener, chain, config),
            filters: Chain::new(&config.http_filters, &Build { store, prefix }),
            listener_stats: store.scope(&format!("{}.http.{prefix}", crate::listener::stat_name(listener))),
            server: match config.server_header {
                ServerHeader::Overwrite => Server::Overwrite(config.server_name.clone()),
                ServerHeader::AppendIfAbsent => Server::AppendIfAbsent(config.server_name.clone()),
                ServerHeader::PassThrough => Server::PassThrough,
            },
            rules: Rules {
                normalize: path.normalize,
                merge_slashes: path.merge_slashes,
                escaped_slashes: match path.escaped_slashes {
                    ConfigSlashes::KeepUnchanged => EscapedSlashes::Keep,
                    ConfigSlashes::RejectRequest => EscapedSlashes::Reject,
                    ConfigSlashes::UnescapeAndRedirect => EscapedSlashes::Redirect,
                    ConfigSlashes::UnescapeAndForward => EscapedSlashes::Forward,
                },
            },
            mode: match config.forward_client_cert {
                ForwardClientCert::Sanitize => Mode::Sanitize,
                ForwardClientCert::ForwardOnly => Mode::ForwardOnly,
                ForwardClientCert::AppendForward => Mode::AppendForward,
                ForwardClientCert::SanitizeSet => Mode::SanitizeSet,
                ForwardClientCert::AlwaysForwardOnly => Mode::AlwaysForwardOnly,
            },
            details: Details {
                subject: details.subject,
                cert: details.cert,
                chain: details.chain,
                dns: details.dns,
                uri: details.uri,
            },
            envoy_headers: !suppress,
            upgrade_filters: config
                .upgrades
                .iter()
                .filter_map(|upgrade| {
                    Some((
                        upgrade.upgrade_type.clone(),
                        Chain::new(upgrade.filters.as_ref()?, &Build { store, prefix }),
                    ))
                })
                .collect(),
            metadata: ConfigMetadata {
                listener: listener.metadata.clone(),
                filter_chain: chain.metadata.clone(),
                ..ConfigMetadata::default()
            },
            filter_chain: (!chain.name.is_empty()).then(|| chain.name.as_ref().into()),
            config: config.clone(),
        }
    }

    /// The codec, unless the connection's first bytes decide: whether it is HTTP/2.
    pub(crate) fn fixed_codec(&self) -> Option<bool> {
        match self.config.codec {
            Codec::Auto => None,
            Codec::Http1 => Some(false),
            Codec::Http2 => Some(true),
        }
    }

    /// The filters for a request: an upgrade may have its own.
    pub(crate) fn filters(&self, head: &Head) -> &Chain {
        if self.upgrade_filters.is_empty() {
            return &self.filters;
        }
        let wanted = upgrade_of(head);
        let own = self
            .upgrade_filters
            .iter()
            .find(|(kind, _)| wanted.is_some_and(|wanted| kind.eq_ignore_ascii_case(wanted)));
        own.map_or(&self.filters, |(_, chain)| chain)
    }

    /// What tries pass on their way to clusters that have no filters of their own.
    pub(crate) fn upstream_filters(&self) -> Option<&Chain> {
        self.upstream_filters.as_ref()
    }

    pub(crate) fn max_headers(&self) -> usize {
        self.config.limits.max_headers_count
    }

    pub(crate) fn max_header_bytes(&self) -> usize {
        self.config.limits.max_request_headers_bytes
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.config.timeouts.idle
    }

    /// How long a connection may last: the limit, and a random share of the jitter on top.
    pub(crate) fn max_connection_duration(&self, random: u64) -> Option<Duration> {
        let limit = self.config.timeouts.max_connection_duration?;
        Some(limit + limit.mul_f64(self.config.max_connection_duration_jitter / 100.0 * share(random)))
    }

    /// How long a connection goes on once it is to end.
    pub(crate) fn drain_timeout(&self, random: u64) -> Duration {
        let limit = self.config.timeouts.drain;
        limit + limit.mul_f64(self.config.drain_timeout_jitter / 100.0 * share(random))
    }

    pub(crate) fn http2_options(&self) -> http2::Options {
        let protocol = &self.config.http2;
        let websocket = self.config.upgrades.iter().any(|upgrade| upgrade.enabled);
        http2::Options {
            stream_window: protocol.initial_stream_window_size.unwrap_or(WINDOW),
            connection_window: protocol.initial_connection_window_size.unwrap_or(WINDOW),
            max_streams: Some(protocol.max_concurrent_streams.unwrap_or(1024)),
            table: protocol.hpack_table_size.unwrap_or(4096),
            heads: http1::Limits { headers: self.max_headers(), bytes: self.max_header_bytes() },
            max_field: protocol.max_header_field_bytes,
            connect: protocol.allow_connect || websocket,
            stream_errors: protocol.stream_errors,
            huffman: protocol.huffman,
            asks_after: None,
            limits: protocol.limits,
        }
    }

    /// Whether a connection that had so many requests takes no other.
    pub(crate) fn is_last_request(&self, count: u64) -> bool {
        self.config.limits.max_requests_per_connection.is_some_and(|max| count >= u64::from(max))
    }

    pub(crate) fn accepts_http10(&self) -> bool {
        self.config.http1.accept_http_10
    }

    pub(crate) fn default_host(&self) -> Option<HeaderValue> {
        self.config
            .http1
            .default_host_for_http_10
            .as_deref()
            .and_then(|host| HeaderValue::from_str(host).ok())
    }

    pub(crate) fn path_rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn client_cert(&self) -> (Mode, Details) {
        (self.mode, self.details)
    }

    pub(crate) fn returns_request_id(&self) -> bool {
        self.config.request_id.always_set_in_response
    }

    pub(crate) fn server_header(&self) -> &Server {
        &self.server
    }

    pub(crate) fn via(&self) -> Option<HeaderValue> {
        self.config.via.clone()
    }

    pub(crate) fn sends_envoy_headers(&self) -> bool {
        self.envoy_headers
    }

    /// Whether the route or the manager lets the request's upgrade through; a request without one always passes.
    pub(crate) fn accepts_upgrade(&self, head: &Head, route: &Route) -> bool {
        let Some(wanted) = upgrade_of(head) else { return true };
        let of_route = match &route.action {
            Action::Route(action) => {
                action.upgrades.iter().find(|upgrade| upgrade.upgrade_type.eq_ignore_ascii_case(wanted))
            }
            _ => None,
        };
        if let Some(upgrade) = of_route {
            return upgrade.enabled;
        }
        self.config
            .upgrades
            .iter()
            .any(|upgrade| upgrade.enabled && upgrade.upgrade_type.eq_ignore_ascii_case(wanted))
    }

    /// Headers whose values the router must understand.
    pub(crate) fn strict_check_headers(&self) -> &[ControlHeader] {
        self.router.as_ref().map_or(&[], |router| &router.strict_check_headers)
    }

    /// Counts a finished exchange.
    pub(crate) fn count_response(&self, info: &StreamInfo) {
        self.stats.move_by(stats::downstream_rq_active, -1);
        self.stats.record(stats::downstream_rq_time, info.duration().as_millis() as u64);
        match info.response_code {
            // They are counted by their filter alone.
            _ if info.health_check => {}
            // It was counted when it was sent, and nothing followed.
            Some(100 | 102..200) => {}
            // It was not answered.
            None => {}
            Some(code) => self.count_code(code),
        }
    }

    /// Counts what a client was told.
    pub(super) fn count_code(&self, code: u16) {
        self.stats.inc(stats::downstream_rq_completed);
        self.listener_stats.inc(listener_http::downstream_rq_completed);
        let (here, there) = match code / 100 {
            1 => (stats::downstream_rq_1xx, listener_http::downstream_rq_1xx),
            2 => (stats::downstream_rq_2xx, listener_http::downstream_rq_2xx),
            3 => (stats::downstream_rq_3xx, listener_http::downstream_rq_3xx),
            4 => (stats::downstream_rq_4xx, listener_http::downstream_rq_4xx),
            5 => (stats::downstream_rq_5xx, listener_http::downstream_rq_5xx),
            _ => return,
        };
        self.stats.inc(here);
        self.listener_stats.inc(there);
    }
}

/// A number from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a random share need not be exact")]
fn share(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// What the request wants to become.
fn upgrade_of(head: &Head) -> Option<&str> {
    match &head.protocol {
        Some(protocol) => Some(protocol),
        None if head.is_connect() => Some("connect"),
        None => None,
    }
}
