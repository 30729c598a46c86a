//! HTTP protocol options, of connection managers and of clusters.

use std::time::Duration;

use xds_api::envoy::extensions::http::header_formatters::preserve_case::v3 as preserve_case;

use super::{HeaderCase, Http1Options, Http2Keepalive, Http2Limits, Http2Options, Spelling, Underscores};
use crate::convert::{Cx, type_name, values};
use crate::pb;

/// `HttpProtocolOptions`
pub(crate) struct Common {
    pub(crate) max_connection_duration_jitter: f64,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) max_headers_count: usize,
    pub(crate) max_response_headers_kb: Option<u32>,
    pub(crate) max_requests_per_connection: Option<u32>,
    pub(crate) underscores: Underscores,
}

pub(crate) fn common(cx: &mut Cx<'_>, value: pb::core::HttpProtocolOptions) -> Common {
    use pb::core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    let pb::core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = value;
    let max_response_headers_kb = max_response_headers_kb.map(|value| value.value);
    if max_response_headers_kb.is_some_and(|value| !(1..=8192).contains(&value)) {
        cx.error("max_response_headers_kb", "it must be between 1 and 8192");
    }
    Common {
        max_connection_duration_jitter: values::percent(
            cx,
            "max_connection_duration_jitter",
            max_connection_duration_jitter,
            0.0,
        ),
        idle_timeout: values::limit(cx, "idle_timeout", idle_timeout, Some(Duration::from_secs(3600))),
        max_connection_duration: values::limit(cx, "max_connection_duration", max_connection_duration, None),
        max_stream_duration: values::limit(cx, "max_stream_duration", max_stream_duration, None),
        max_headers_count: values::u32_or(max_headers_count, 100) as usize,
        max_response_headers_kb,
        max_requests_per_connection: max_requests_per_connection
            .map(|value| value.value)
            .filter(|limit| *limit > 0),
        underscores: match Action::try_from(headers_with_underscores_action) {
            Ok(Action::Allow) => Underscores::Allow,
            Ok(Action::DropHeader) => Underscores::DropHeader,
            _ => Underscores::RejectRequest,
        },
    }
}

const INVALID_MESSAGE: &str = "the codec decides what an invalid message ends";

/// `Http1ProtocolOptions`
pub(crate) fn http1(cx: &mut Cx<'_>, value: pb::core::Http1ProtocolOptions) -> Http1Options {
    let pb::core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        // A parser of Envoy's own.
        use_balsa_parser: _,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = value;
    let goes_on = override_stream_error_on_invalid_http_message.is_some_and(|value| value.value);
    cx.ignore("override_stream_error_on_invalid_http_message", &goes_on, INVALID_MESSAGE);
    cx.refuse("ignore_http_11_upgrade", &ignore_http_11_upgrade);
    if allow_absolute_url == Some(pb::BoolValue { value: false }) {
        cx.warn(
            "allow_absolute_url",
            "absolute URLs are taken all the same, as Envoy's documentation wishes",
        );
    }
    Http1Options {
        accept_http_10,
        default_host_for_http_10: (!default_host_for_http_10.is_empty())
            .then(|| default_host_for_http_10.into()),
        enable_trailers,
        allow_chunked_length,
        allow_custom_methods,
        send_fully_qualified_url,
        header_case: cx
            .option("header_key_format", header_key_format, header_case)
            .unwrap_or(HeaderCase::Lower),
    }
}

fn header_case(
    cx: &mut Cx<'_>,
    value: pb::core::http1_protocol_options::HeaderKeyFormat,
) -> Option<HeaderCase> {
    use pb::core::http1_protocol_options::header_key_format::HeaderFormat;
    use preserve_case::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders::ProperCase;
    match value.header_format {
        Some(HeaderFormat::ProperCaseWords(_)) => Some(HeaderCase::Proper),
        Some(HeaderFormat::StatefulFormatter(value)) => {
            let any = value.typed_config.unwrap_or_default();
            if type_name(&any)
                != "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
            {
                cx.error(
                    "stateful_formatter",
                    format_args!("there is no header formatter {:?}", type_name(&any)),
                );
                return None;
            }
            cx.within("stateful_formatter", |cx| {
                let preserve_case::PreserveCaseFormatterConfig {
                    forward_reason_phrase,
                    formatter_type_on_envoy_headers,
                } = cx.unpack(&any)?;
                Some(HeaderCase::Preserve(Spelling {
                    others_proper: formatter_type_on_envoy_headers == ProperCase as i32,
                    reason: forward_reason_phrase,
                }))
            })
        }
        None => None,
    }
}

/// What a window is where nobody says anything: no smaller one may be asked for.
const DEFAULT_WINDOW: u32 = 65_535;

/// The largest window, and the largest number of streams, that the protocol has.
const LARGEST: u32 = i32::MAX as u32;

/// `Http2ProtocolOptions`
pub(crate) fn http2(cx: &mut Cx<'_>, value: pb::core::Http2ProtocolOptions) -> Http2Options {
    let pb::core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        // A codec of Envoy's own.
        use_oghttp2_codec: _,
        // Metadata frames are refused.
        max_metadata_size: _,
        enable_huffman_encoding,
        max_header_field_size_kb,
        // Heeded by that one alone.
        disallow_obs_text: _,
        stream_reset_burst,
        stream_reset_rate,
    } = value;
    cx.refuse("allow_metadata", &allow_metadata);
    cx.refuse("custom_settings_parameters", &custom_settings_parameters);
    let defaults = Http2Limits::default();
    let mut bounded = |field, value, bounds| values::bounded(cx, field, value, bounds);
    let mut limit = |field, value, least: u32| bounded(field, value, least..=u32::MAX);
    let limits = Http2Limits {
        outbound: limit("max_outbound_frames", max_outbound_frames, 1).unwrap_or(defaults.outbound),
        outbound_control: limit("max_outbound_control_frames", max_outbound_control_frames, 1)
            .unwrap_or(defaults.outbound_control),
        empty: limit(
            "max_consecutive_inbound_frames_with_empty_payload",
            max_consecutive_inbound_frames_with_empty_payload,
            0,
        )
        .unwrap_or(defaults.empty),
        priorities: limit(
            "max_inbound_priority_frames_per_stream",
            max_inbound_priority_frames_per_stream,
            0,
        )
        .unwrap_or(defaults.priorities),
        updates: limit(
            "max_inbound_window_update_frames_per_data_frame_sent",
            max_inbound_window_update_frames_per_data_frame_sent,
            1,
        )
        .unwrap_or(defaults.updates),
        reset_burst: stream_reset_burst.map_or(defaults.reset_burst, |burst| burst.value),
        reset_rate: stream_reset_rate.map_or(defaults.reset_rate, |rate| rate.value),
    };
    let window = DEFAULT_WINDOW..=LARGEST;
    let field_kb = bounded("max_header_field_size_kb", max_header_field_size_kb, 64..=256);
    Http2Options {
        hpack_table_size: hpack_table_size.map(|value| value.value),
        max_concurrent_streams: bounded("max_concurrent_streams", max_concurrent_streams, 1..=LARGEST),
        initial_stream_window_size: bounded(
            "initial_stream_window_size",
            initial_stream_window_size,
            window.clone(),
        ),
        initial_connection_window_size: bounded(
            "initial_connection_window_size",
            initial_connection_window_size,
            window,
        ),
        allow_connect,
        max_header_field_bytes: field_kb.unwrap_or(64) as usize * 1024,
        keepalive: cx.option("connection_keepalive", connection_keepalive, keepalive),
        stream_errors: override_stream_error_on_invalid_http_message
            .map_or(stream_error_on_invalid_http_messaging, |value| value.value),
        huffman: enable_huffman_encoding.is_some_and(|value| value.value),
        limits,
    }
}

fn keepalive(cx: &mut Cx<'_>, value: pb::core::KeepaliveSettings) -> Option<Http2Keepalive> {
    let pb::core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = value;
    for (field, value) in [
        ("interval", &interval),
        ("timeout", &timeout),
        ("connection_idle_interval", &connection_idle_interval),
    ] {
        let too_short = |value: &pb::Duration| (value.seconds, value.nanos) < (0, 1_000_000);
        if value.as_ref().is_some_and(too_short) {
            cx.error(field, "it must be at least 1ms");
        }
    }
    let Some(timeout) = values::duration(cx, "timeout", timeout) else {
        cx.error("timeout", "it must be set");
        return None;
    };
    let interval = values::limit(cx, "interval", interval, None);
    let jitter = values::percent(cx, "interval_jitter", interval_jitter, 15.0);
    Some(Http2Keepalive {
        interval,
        interval_jitter: interval.unwrap_or_default().mul_f64(jitter / 100.0),
        connection_idle_interval: values::limit(
            cx,
            "connection_idle_interval",
            connection_idle_interval,
            None,
        ),
        timeout,
    })
}
