//! Listener filters from their `Any`s.

use std::sync::Arc;

use super::{ListenerFilter, ListenerFilterKind, ListenerLocalRateLimit, predicate, proxy_protocol};
use crate::convert::{Cx, arc, type_name, values};
use crate::pb::filters::listener as filters;
use crate::{discovered, network_filter, pb};

pub(super) const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
pub(super) const LOCAL_RATE_LIMIT: &str =
    "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit";
pub(super) const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
pub(super) const ORIGINAL_SRC: &str = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc";
pub(super) const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
pub(super) const SET_FILTER_STATE: &str = "envoy.extensions.filters.listener.set_filter_state.v3.Config";
pub(super) const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

/// A hello may have as much where the configuration says nothing.
const MAX_HELLO: u32 = 16 * 1024;

/// `ListenerFilter`
pub(crate) fn listener_filter(
    cx: &mut Cx<'_>,
    value: pb::listener::ListenerFilter,
) -> Option<ListenerFilter> {
    use pb::listener::listener_filter::ConfigType;
    let pb::listener::ListenerFilter { name, filter_disabled, config_type } = value;
    let disabled = cx.option("filter_disabled", filter_disabled, predicate::predicate);
    let kind = match config_type {
        Some(ConfigType::TypedConfig(any)) => cx.within("typed_config", |cx| kind(cx, &any))?,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let found =
                cx.within("config_discovery", |cx| discovered::discovered(cx, &name, source, kind))?;
            ListenerFilterKind::Discovered(Arc::new(found))
        }
        None => {
            cx.error("typed_config", "it must be set");
            return None;
        }
    };
    Some(ListenerFilter { name: arc(name), disabled, kind })
}

/// What a filter's configuration says, wherever it comes from.
pub(crate) fn kind(cx: &mut Cx<'_>, any: &pb::Any) -> Option<ListenerFilterKind> {
    Some(match type_name(any) {
        ORIGINAL_DST => ListenerFilterKind::OriginalDst,
        HTTP_INSPECTOR => ListenerFilterKind::HttpInspector,
        TLS_INSPECTOR => {
            let value = cx.unpack(any)?;
            tls_inspector(cx, value)
        }
        ORIGINAL_SRC => {
            let filters::original_src::v3::OriginalSrc { bind_port, mark } = cx.unpack(any)?;
            ListenerFilterKind::OriginalSrc { bind_port, mark }
        }
        PROXY_PROTOCOL => {
            let value = cx.unpack(any)?;
            ListenerFilterKind::ProxyProtocol(Arc::new(proxy_protocol::proxy_protocol(cx, value)?))
        }
        SET_FILTER_STATE => {
            let filters::set_filter_state::v3::Config { on_accept } = cx.unpack(any)?;
            ListenerFilterKind::SetFilterState(network_filter::filter_states(cx, "on_accept", on_accept))
        }
        LOCAL_RATE_LIMIT => {
            let value = cx.unpack(any)?;
            ListenerFilterKind::LocalRateLimit(Arc::new(local_rate_limit(cx, value)?))
        }
        other => {
            cx.error("", format_args!("there is no listener filter {other:?}"));
            return None;
        }
    })
}

fn tls_inspector(cx: &mut Cx<'_>, value: filters::tls_inspector::v3::TlsInspector) -> ListenerFilterKind {
    let filters::tls_inspector::v3::TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = value;
    let max = values::u32_or(max_client_hello_size, MAX_HELLO);
    if max > MAX_HELLO {
        cx.error("max_client_hello_size", format_args!("it is above {MAX_HELLO}"));
    }
    ListenerFilterKind::TlsInspector {
        initial_read_buffer_size: initial_read_buffer_size.map(|value| value.value),
        max_client_hello_size: max.min(MAX_HELLO) as usize,
        close_on_parse_error: close_connection_on_client_hello_parsing_errors,
        ja3: values::bool_or(enable_ja3_fingerprinting, false),
        ja4: values::bool_or(enable_ja4_fingerprinting, false),
    }
}

fn local_rate_limit(
    cx: &mut Cx<'_>,
    value: filters::local_ratelimit::v3::LocalRateLimit,
) -> Option<ListenerLocalRateLimit> {
    let filters::local_ratelimit::v3::LocalRateLimit { stat_prefix, token_bucket, runtime_enabled } = value;
    Some(ListenerLocalRateLimit {
        stat_prefix: arc(stat_prefix),
        bucket: cx.required("token_bucket", token_bucket, crate::network_filter::token_bucket)?,
        enabled: values::feature_flag(runtime_enabled, true),
    })
}
