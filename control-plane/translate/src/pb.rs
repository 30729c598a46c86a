//! Short ways to write Envoy's protobufs: wrappers, durations, addresses, matchers, structs.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use prost::{Message, Name};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::r#type::matcher::v3 as matcher;
use xds_api::envoy::r#type::v3 as kinds;
use xds_api::google::protobuf as g;

/// A wrapped integer.
pub(crate) fn u32v(value: u32) -> Option<g::UInt32Value> {
    Some(g::UInt32Value { value })
}

/// A wrapped long integer.
pub(crate) fn u64v(value: u64) -> Option<g::UInt64Value> {
    Some(g::UInt64Value { value })
}

/// A wrapped boolean.
pub(crate) fn boolv(value: bool) -> Option<g::BoolValue> {
    Some(g::BoolValue { value })
}

/// A duration.
pub(crate) fn duration(d: Duration) -> Option<g::Duration> {
    Some(g::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos() as i32,
    })
}

/// A duration of whole seconds.
pub(crate) fn seconds(seconds: u64) -> Option<g::Duration> {
    duration(Duration::from_secs(seconds))
}

/// A duration in whole seconds, rounded up, as keep-alive settings take it.
pub(crate) fn whole_seconds(d: Duration) -> u32 {
    let up = u64::from(d.subsec_nanos() > 0);
    u32::try_from(d.as_secs().saturating_add(up)).unwrap_or(u32::MAX)
}

/// A socket address from text: an IP address or, where the use allows it, a host name.
pub(crate) fn socket(address: &str, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    }
}

/// An address to listen on or connect to.
pub(crate) fn address(host: &str, port: u16) -> Option<core::Address> {
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket(host, port))) })
}

/// A Unix socket.
pub(crate) fn pipe(path: &str) -> Option<core::Address> {
    let pipe = core::Pipe { path: path.to_owned(), mode: 0 };
    Some(core::Address { address: Some(core::address::Address::Pipe(pipe)) })
}

/// A network.
pub(crate) fn cidr(net: IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: net.network().to_string(),
        prefix_len: u32v(u32::from(net.prefix_len())),
    }
}

/// A network or single address from text.
pub(crate) fn parse_net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// "From ADS", without a limit on the wait for the first answer.
pub(crate) fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        initial_fetch_timeout: seconds(0),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    })
}

/// A typed extension.
pub(crate) fn extension<M: Message + Name>(name: &str, config: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack(config)) }
}

/// A transport socket.
pub(crate) fn transport_socket<M: Message + Name>(name: &str, config: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack(config))),
    }
}

/// An RE2 expression.
pub(crate) fn regex(expression: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: expression.to_owned(), ..Default::default() }
}

/// Equality.
pub(crate) fn exact(text: &str) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::Exact(text.to_owned()))
}

/// A prefix.
pub(crate) fn prefix(text: &str) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::Prefix(text.to_owned()))
}

/// A suffix.
pub(crate) fn suffix(text: &str) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::Suffix(text.to_owned()))
}

/// An RE2 expression that the whole text matches.
pub(crate) fn safe_regex(expression: &str) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::SafeRegex(regex(expression)))
}

fn pattern(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
}

/// A string in a struct.
pub(crate) fn text(value: impl Into<String>) -> g::Value {
    g::Value { kind: Some(g::value::Kind::StringValue(value.into())) }
}

/// A struct in a struct.
pub(crate) fn nested(fields: g::Struct) -> g::Value {
    g::Value { kind: Some(g::value::Kind::StructValue(fields)) }
}

/// A list in a struct.
pub(crate) fn list(values: Vec<g::Value>) -> g::Value {
    g::Value { kind: Some(g::value::Kind::ListValue(g::ListValue { values })) }
}

/// A struct.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, g::Value)>) -> g::Struct {
    g::Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

/// Metadata under one filter's name.
pub(crate) fn metadata(filter: &str, fields: g::Struct) -> core::Metadata {
    core::Metadata {
        filter_metadata: [(filter.to_owned(), fields)].into_iter().collect(),
        typed_filter_metadata: Default::default(),
    }
}

/// Envoy's own client of a gRPC service in a cluster.
pub(crate) fn grpc(cluster: &str, authority: &str) -> core::GrpcService {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            authority: authority.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// A share in millionths.
pub(crate) fn millionths(numerator: u32) -> kinds::FractionalPercent {
    let denominator = kinds::fractional_percent::DenominatorType::Million as i32;
    kinds::FractionalPercent { numerator, denominator }
}

/// A JSON value as `google.protobuf.Value`.
pub(crate) fn json(value: &serde_json::Value) -> g::Value {
    use g::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(*flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            Kind::ListValue(g::ListValue { values: items.iter().map(json).collect() })
        }
        serde_json::Value::Object(map) => Kind::StructValue(g::Struct {
            fields: map.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        }),
    };
    g::Value { kind: Some(kind) }
}

/// `google.protobuf.Struct` as JSON.
pub(crate) fn to_json(value: &g::Value) -> serde_json::Value {
    use g::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(fields)) => {
            fields.fields.iter().map(|(key, value)| (key.clone(), to_json(value))).collect()
        }
    }
}
