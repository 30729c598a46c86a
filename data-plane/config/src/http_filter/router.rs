//! `router`: the last filter of every chain.

use std::sync::Arc;
use std::time::Duration;

use super::{Entry, HttpFilter, HttpFilterKind};
use crate::access_log::{self, AccessLog};
use crate::convert::{Cx, values};
use crate::pb;
use crate::pb::filters::http::router::v3 as proto;
use sail_proxy_decide::route::ControlHeader;

pub(super) const ENTRY: Entry =
    Entry { name: "envoy.extensions.filters.http.router.v3.Router", convert: read, per_route: None };

/// `Router`
#[derive(Debug, Default)]
pub struct Router {
    /// Whether `x-envoy-*` headers are not added.
    pub suppress_envoy_headers: bool,
    /// Whether a child span is made for each try.
    pub start_child_span: bool,
    /// Whether `x-envoy-expected-rq-timeout-ms` of the request is heeded.
    pub respect_expected_rq_timeout: bool,
    /// Headers whose values must be such as the router understands.
    pub strict_check_headers: Box<[ControlHeader]>,
    /// Where each try is logged.
    pub upstream_log: Box<[Arc<AccessLog>]>,
    /// When tries are logged besides at their end.
    pub upstream_log_options: UpstreamLogOptions,
    /// What each try passes on its way to a cluster that has no filters of its own.
    pub upstream_filters: Arc<[HttpFilter]>,
}

/// `UpstreamAccessLogOptions`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamLogOptions {
    /// When a try has its connection.
    pub flush_on_upstream_stream: bool,
    /// So often while it goes on.
    pub flush_interval: Option<Duration>,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let value = cx.unpack(any)?;
    Some(HttpFilterKind::Router(Arc::new(router(cx, value))))
}

fn router(cx: &mut Cx<'_>, value: proto::Router) -> Router {
    let proto::Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    let upstream_log_options = cx.option("upstream_log_options", upstream_log_options, log_options);
    let upstream_log = access_log::all(cx, "upstream_log", upstream_log);
    let uncounted = !values::bool_or(dynamic_stats, true);
    cx.ignore("dynamic_stats", &uncounted, "responses are counted by code in any case");
    cx.ignore(
        "suppress_grpc_request_failure_code_stats",
        &suppress_grpc_request_failure_code_stats,
        "responses are counted by code in any case",
    );
    let strict_check_headers = cx.each("strict_check_headers", strict_check_headers, |cx, name| {
        let found = ControlHeader::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(&name));
        if found.is_none() {
            cx.error("", format_args!("{name:?} is not one that is checked"));
        }
        found
    });
    let upstream_filters = super::upstream::all(cx, "upstream_http_filters", upstream_http_filters);
    cx.refuse("reject_connect_request_early_data", &reject_connect_request_early_data);
    Router {
        suppress_envoy_headers,
        start_child_span,
        respect_expected_rq_timeout,
        strict_check_headers: strict_check_headers.into(),
        upstream_log,
        upstream_log_options: upstream_log_options.unwrap_or_default(),
        upstream_filters,
    }
}

fn log_options(
    cx: &mut Cx<'_>,
    value: proto::router::UpstreamAccessLogOptions,
) -> Option<UpstreamLogOptions> {
    let proto::router::UpstreamAccessLogOptions {
        flush_upstream_log_on_upstream_stream,
        upstream_log_flush_interval,
    } = value;
    let flush_interval = upstream_log_flush_interval
        .is_some()
        .then(|| values::duration(cx, "upstream_log_flush_interval", upstream_log_flush_interval))
        .flatten();
    if flush_interval.is_some_and(|interval| interval < Duration::from_millis(1)) {
        cx.error("upstream_log_flush_interval", "it must be 1 ms at least");
    }
    Some(UpstreamLogOptions {
        flush_on_upstream_stream: flush_upstream_log_on_upstream_stream,
        flush_interval,
    })
}
