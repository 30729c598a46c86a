//! Entries for Envoy's access log service.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use sail_proxy_config::access_log::GrpcAccessLog;
use xds_api::envoy::config::core::v3::{
    Address, Metadata, Pipe, RequestMethod, SocketAddress, address, socket_address::PortSpecifier,
};
use xds_api::envoy::data::accesslog::v3::{
    AccessLogCommon, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
    ResponseFlags, TcpAccessLogEntry, TlsProperties,
    http_access_log_entry::HttpVersion,
    response_flags,
    tls_properties::{
        CertificateProperties, TlsVersion,
        certificate_properties::{SubjectAltName, subject_alt_name::San},
    },
};
use xds_api::google::protobuf;

use super::LogType;
use super::fields::{upstream_received, upstream_sent};
use crate::stream_info::{Protocol, ResponseFlag, StreamInfo, TlsInfo, UpstreamAddress};

/// An entry for a request.
pub(super) fn http(config: &GrpcAccessLog, info: &StreamInfo, kind: LogType) -> HttpAccessLogEntry {
    let version = match info.protocol {
        Some(Protocol::Http10) => HttpVersion::Http10,
        Some(Protocol::Http11) => HttpVersion::Http11,
        Some(Protocol::Http2) => HttpVersion::Http2,
        Some(Protocol::Http3) => HttpVersion::Http3,
        None => HttpVersion::ProtocolUnspecified,
    };
    HttpAccessLogEntry {
        common_properties: Some(common(config, info, kind)),
        protocol_version: version as i32,
        request: Some(request(config, info)),
        response: Some(response(config, info)),
    }
}

/// An entry for a connection.
pub(super) fn tcp(config: &GrpcAccessLog, info: &StreamInfo, kind: LogType) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(common(config, info, kind)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: info.bytes.received,
            sent_bytes: info.bytes.sent,
        }),
    }
}

fn request(config: &GrpcAccessLog, info: &StreamInfo) -> HttpRequestProperties {
    let header = |name: &str| info.captured.request(name).unwrap_or_default().to_owned();
    let method =
        info.request.method.as_ref().and_then(|method| RequestMethod::from_str_name(method.as_str()));
    let authority = info.request.authority();
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u32>().ok());
    let original = info.request.original_path.as_ref().map(|_| info.request.path_before_rewrite());
    HttpRequestProperties {
        request_method: method.unwrap_or(RequestMethod::MethodUnspecified) as i32,
        scheme: info.request.scheme.unwrap_or_default().to_owned(),
        authority: authority.to_owned(),
        port: port.map(|value| protobuf::UInt32Value { value }),
        path: info.request.path().to_owned(),
        user_agent: header("user-agent"),
        referer: header("referer"),
        forwarded_for: header("x-forwarded-for"),
        request_id: text(info.request_id.as_deref()),
        original_path: original.unwrap_or_default().to_owned(),
        request_headers_bytes: info.bytes.request_headers,
        request_body_bytes: info.bytes.received,
        request_headers: chosen(&config.request_headers, |name| info.captured.request(name)),
        upstream_header_bytes_sent: info.bytes.upstream_request_headers,
        downstream_header_bytes_received: info.bytes.request_headers,
    }
}

fn response(config: &GrpcAccessLog, info: &StreamInfo) -> HttpResponseProperties {
    HttpResponseProperties {
        response_code: info.response_code.map(|code| protobuf::UInt32Value { value: code.into() }),
        response_headers_bytes: info.bytes.response_headers,
        response_body_bytes: info.bytes.sent,
        response_headers: chosen(&config.response_headers, |name| info.captured.response(name)),
        response_trailers: chosen(&config.response_trailers, |name| info.captured.trailer(name)),
        response_code_details: info.code_details.as_deref().unwrap_or_default().to_owned(),
        upstream_header_bytes_received: info.bytes.upstream_response_headers,
        downstream_header_bytes_sent: info.bytes.response_headers,
    }
}

fn chosen<'a>(
    names: &[http::HeaderName],
    get: impl Fn(&str) -> Option<&'a str>,
) -> std::collections::HashMap<String, String> {
    names.iter().filter_map(|name| Some((name.to_string(), get(name.as_str())?.to_owned()))).collect()
}

fn common(config: &GrpcAccessLog, info: &StreamInfo, kind: LogType) -> AccessLogCommon {
    let down = &info.downstream;
    let up = info.upstream.as_ref();
    let timing = &info.timing;
    let since = |moment: Option<Instant>| moment.map(|at| duration(at.saturating_duration_since(info.start)));
    let states = config.filter_state_objects_to_log.iter().filter_map(|key| {
        let value = protobuf::StringValue { value: info.filter_state(key)?.to_owned() };
        let type_url = "type.googleapis.com/google.protobuf.StringValue".to_owned();
        Some((key.to_string(), protobuf::Any { type_url, value: value.encode_to_vec() }))
    });
    AccessLogCommon {
        downstream_remote_address: Some(socket(down.remote_address)),
        downstream_local_address: Some(socket(down.local_address)),
        downstream_direct_remote_address: Some(socket(down.direct_remote_address)),
        tls_properties: down.tls.as_deref().map(tls),
        start_time: timestamp(info.start_time),
        time_to_last_rx_byte: since(timing.last_downstream_rx),
        time_to_first_upstream_tx_byte: since(timing.first_upstream_tx),
        time_to_last_upstream_tx_byte: since(timing.last_upstream_tx),
        time_to_first_upstream_rx_byte: since(timing.first_upstream_rx),
        time_to_last_upstream_rx_byte: since(timing.last_upstream_rx),
        time_to_first_downstream_tx_byte: since(timing.first_downstream_tx),
        time_to_last_downstream_tx_byte: since(timing.last_downstream_tx),
        upstream_remote_address: up.and_then(|up| up.host.as_ref()).map(host),
        upstream_local_address: up.and_then(|up| up.local_address).map(socket),
        upstream_cluster: info
            .cluster
            .as_ref()
            .map(|cluster| cluster.observability_name.to_string())
            .unwrap_or_default(),
        response_flags: (!info.flags.is_empty()).then(|| flags(info)),
        metadata: metadata(info),
        upstream_transport_failure_reason: up
            .and_then(|up| up.transport_failure.as_deref())
            .unwrap_or_default()
            .to_owned(),
        route_name: info.route_name.as_deref().unwrap_or_default().to_owned(),
        filter_state_objects: states.collect(),
        // What goes on has none yet.
        duration: info.timing.end.map(|_| duration(info.duration())),
        upstream_request_attempt_count: info.attempt_count,
        connection_termination_details: info.termination_details.as_deref().unwrap_or_default().to_owned(),
        stream_id: text(info.request_id.as_deref()),
        downstream_transport_failure_reason: down
            .state
            .life
            .transport_failure
            .get()
            .map(ToString::to_string)
            .unwrap_or_default(),
        downstream_wire_bytes_sent: info.bytes.response_headers + info.bytes.sent,
        downstream_wire_bytes_received: info.bytes.request_headers + info.bytes.received,
        upstream_wire_bytes_sent: upstream_sent(info),
        upstream_wire_bytes_received: upstream_received(info),
        access_log_type: kind.number(),
        custom_tags: config
            .custom_tags
            .iter()
            .filter_map(|tag| Some((tag.tag.to_string(), crate::trace::tag_value(&tag.source, info)?)))
            .collect(),
        ..AccessLogCommon::default()
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

pub(super) fn timestamp(time: SystemTime) -> Option<protobuf::Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(protobuf::Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 })
}

fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

fn socket(at: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn host(host: &UpstreamAddress) -> Address {
    match host {
        UpstreamAddress::Socket(at) => socket(*at),
        UpstreamAddress::Pipe(path) => {
            let pipe = Pipe { path: path.to_string(), ..Pipe::default() };
            Address { address: Some(address::Address::Pipe(pipe)) }
        }
    }
}

fn tls(tls: &TlsInfo) -> TlsProperties {
    let version = match tls.version {
        "TLSv1.2" => TlsVersion::TlSv12,
        "TLSv1.3" => TlsVersion::TlSv13,
        _ => TlsVersion::VersionUnspecified,
    };
    let uri = |uri: &str| SubjectAltName { san: Some(San::Uri(uri.to_owned())) };
    let dns = |name: &str| SubjectAltName { san: Some(San::Dns(name.to_owned())) };
    TlsProperties {
        tls_version: version as i32,
        tls_sni_hostname: tls.server_name.as_deref().unwrap_or_default().to_owned(),
        local_certificate_properties: Some(CertificateProperties {
            subject_alt_name: tls.local_uri_sans.iter().map(|san| uri(san)).collect(),
            subject: tls.local_subject.as_deref().unwrap_or_default().to_owned(),
            issuer: String::new(),
        }),
        peer_certificate_properties: tls.peer_certificate_presented.then(|| CertificateProperties {
            subject_alt_name: tls
                .peer_uri_sans
                .iter()
                .map(|san| uri(san))
                .chain(tls.peer_dns_sans.iter().map(|san| dns(san)))
                .collect(),
            subject: tls.peer_subject.as_deref().unwrap_or_default().to_owned(),
            issuer: tls.peer_issuer.as_deref().unwrap_or_default().to_owned(),
        }),
        ..TlsProperties::default()
    }
}

fn flags(info: &StreamInfo) -> ResponseFlags {
    let has = |flag| info.flags.has(flag);
    let unauthorized =
        response_flags::Unauthorized { reason: response_flags::unauthorized::Reason::ExternalService as i32 };
    ResponseFlags {
        failed_local_healthcheck: has(ResponseFlag::FailedLocalHealthCheck),
        no_healthy_upstream: has(ResponseFlag::NoHealthyUpstream),
        upstream_request_timeout: has(ResponseFlag::UpstreamRequestTimeout),
        local_reset: has(ResponseFlag::LocalReset),
        upstream_remote_reset: has(ResponseFlag::UpstreamRemoteReset),
        upstream_connection_failure: has(ResponseFlag::UpstreamConnectionFailure),
        upstream_connection_termination: has(ResponseFlag::UpstreamConnectionTermination),
        upstream_overflow: has(ResponseFlag::UpstreamOverflow),
        no_route_found: has(ResponseFlag::NoRouteFound),
        delay_injected: has(ResponseFlag::DelayInjected),
        fault_injected: has(ResponseFlag::FaultInjected),
        rate_limited: has(ResponseFlag::RateLimited),
        unauthorized_details: has(ResponseFlag::UnauthorizedExternalService).then_some(unauthorized),
        rate_limit_service_error: has(ResponseFlag::RateLimitServiceError),
        downstream_connection_termination: has(ResponseFlag::DownstreamConnectionTermination),
        upstream_retry_limit_exceeded: has(ResponseFlag::UpstreamRetryLimitExceeded),
        stream_idle_timeout: has(ResponseFlag::StreamIdleTimeout),
        invalid_envoy_request_headers: has(ResponseFlag::InvalidEnvoyRequestHeaders),
        downstream_protocol_error: has(ResponseFlag::DownstreamProtocolError),
        upstream_max_stream_duration_reached: has(ResponseFlag::UpstreamMaxStreamDurationReached),
        response_from_cache_filter: has(ResponseFlag::ResponseFromCacheFilter),
        no_filter_config_found: has(ResponseFlag::NoFilterConfigFound),
        duration_timeout: has(ResponseFlag::DurationTimeout),
        upstream_protocol_error: has(ResponseFlag::UpstreamProtocolError),
        no_cluster_found: has(ResponseFlag::NoClusterFound),
        overload_manager: has(ResponseFlag::OverloadManagerTerminated),
        dns_resolution_failure: has(ResponseFlag::DnsResolutionFailed),
        downstream_remote_reset: has(ResponseFlag::DownstreamRemoteReset),
    }
}

fn metadata(info: &StreamInfo) -> Option<Metadata> {
    if info.dynamic_metadata.is_empty() {
        return None;
    }
    let objects = info.dynamic_metadata.all().iter();
    let filter_metadata =
        objects.filter_map(|(name, value)| Some((name.clone(), object(value.as_object()?)))).collect();
    Some(Metadata { filter_metadata, ..Metadata::default() })
}

fn object(fields: &serde_json::Map<String, serde_json::Value>) -> protobuf::Struct {
    protobuf::Struct {
        fields: fields.iter().map(|(key, value)| (key.clone(), protobuf_value(value))).collect(),
    }
}

fn protobuf_value(value: &serde_json::Value) -> protobuf::Value {
    use protobuf::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            Kind::ListValue(protobuf::ListValue { values: items.iter().map(protobuf_value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(object(fields)),
    };
    protobuf::Value { kind: Some(kind) }
}
