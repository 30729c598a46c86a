//! Durations, percentages, structs, data sources, durations' kin.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::fraction::{Fraction, RuntimeFlag, RuntimeFraction};
use sail_proxy_decide::route::Metadata;
use serde_json::{Map, Number, Value};

use super::{Cx, arc};
use crate::pb;
use crate::source::{ApiSource, ConfigSource, ResourceRef};

/// A duration that is not negative.
pub(crate) fn duration(cx: &mut Cx<'_>, field: &str, value: Option<pb::Duration>) -> Option<Duration> {
    let value = value?;
    let seconds = u64::try_from(value.seconds).ok();
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        // Longer than a process can live; keeps later sums from running over.
        (Some(seconds), Some(nanos)) if seconds <= 315_576_000_000 => Some(Duration::new(seconds, nanos)),
        _ => {
            cx.error(field, "it must be a duration between 0 and 10,000 years");
            None
        }
    }
}

/// A duration of which zero means "without limit".
pub(crate) fn limit(
    cx: &mut Cx<'_>,
    field: &str,
    value: Option<pb::Duration>,
    default: Option<Duration>,
) -> Option<Duration> {
    if value.is_none() {
        return default;
    }
    duration(cx, field, value).filter(|value| !value.is_zero())
}

pub(crate) fn u32_or(value: Option<pb::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A number between these two.
pub(crate) fn bounded(
    cx: &mut Cx<'_>,
    field: &str,
    value: Option<pb::UInt32Value>,
    bounds: RangeInclusive<u32>,
) -> Option<u32> {
    let value = value?.value;
    if bounds.contains(&value) {
        return Some(value);
    }
    let (least, most) = bounds.into_inner();
    match most {
        u32::MAX => cx.error(field, format_args!("it must be at least {least}")),
        _ => cx.error(field, format_args!("it must be between {least} and {most}")),
    }
    None
}

pub(crate) fn bool_or(value: Option<pb::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// `RuntimeFeatureFlag`
pub(crate) fn feature_flag(value: Option<pb::core::RuntimeFeatureFlag>, default: bool) -> RuntimeFlag {
    let pb::core::RuntimeFeatureFlag { default_value, runtime_key } = value.unwrap_or_default();
    RuntimeFlag { default: bool_or(default_value, default), runtime_key: arc(runtime_key) }
}

pub(crate) fn port(cx: &mut Cx<'_>, field: &str, port: u32) -> Option<u16> {
    cx.ok(field, u16::try_from(port).map_err(|_| format!("{port} is not a port")))
}

/// `FractionalPercent`
pub(crate) fn fraction(cx: &mut Cx<'_>, value: pb::ty::FractionalPercent) -> Option<Fraction> {
    use pb::ty::fractional_percent::DenominatorType;
    let pb::ty::FractionalPercent { numerator, denominator } = value;
    let denominator = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => {
            cx.error("denominator", format_args!("{denominator} is not a denominator"));
            return None;
        }
    };
    Some(Fraction { numerator, denominator })
}

/// `RuntimeFractionalPercent`
pub(crate) fn runtime_fraction(
    cx: &mut Cx<'_>,
    value: pb::core::RuntimeFractionalPercent,
) -> Option<RuntimeFraction> {
    let pb::core::RuntimeFractionalPercent { default_value, runtime_key } = value;
    let default = match default_value {
        Some(value) => cx.within("default_value", |cx| fraction(cx, value))?,
        // Envoy takes a missing default as 0 per cent.
        None => Fraction::NEVER,
    };
    Some(RuntimeFraction { default, runtime_key: arc(runtime_key) })
}

/// `Percent`, between 0 and 100.
pub(crate) fn percent(cx: &mut Cx<'_>, field: &str, value: Option<pb::ty::Percent>, default: f64) -> f64 {
    let Some(pb::ty::Percent { value }) = value else { return default };
    if (0.0..=100.0).contains(&value) {
        return value;
    }
    cx.error(field, format_args!("{value} is not between 0 and 100"));
    default
}

/// A `Struct` as JSON.
pub(crate) fn object(value: pb::Struct) -> Map<String, Value> {
    // Sorted, because protobuf maps have no order and JSON logs should have one.
    let mut fields: Vec<_> = value.fields.into_iter().collect();
    fields.sort_by(|(left, _), (right, _)| left.cmp(right));
    fields.into_iter().map(|(key, value)| (key, json(value))).collect()
}

/// A `Value` as JSON.
pub fn json(value: pb::Value) -> Value {
    use xds_api::google::protobuf::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => self::number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StructValue(value)) => Value::Object(object(value)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json).collect()),
    }
}

/// Whole numbers as integers: `1`, not `1.0`.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked: whole and below 2^53")]
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// `Metadata`. Typed metadata are kept by filters that know them; none does.
pub(crate) fn metadata(cx: &mut Cx<'_>, field: &str, value: Option<pb::core::Metadata>) -> Metadata {
    let pb::core::Metadata { filter_metadata, typed_filter_metadata } = value?;
    cx.within(field, |cx| {
        cx.ignore("typed_filter_metadata", &typed_filter_metadata, "nothing here reads typed metadata");
    });
    let mut all: Vec<_> = filter_metadata.into_iter().collect();
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    let all: Map<_, _> = all.into_iter().map(|(key, value)| (key, Value::Object(object(value)))).collect();
    (!all.is_empty()).then(|| Arc::new(all))
}

/// `DataSource`: its bytes, and the file that they came from.
pub(crate) fn data(cx: &mut Cx<'_>, value: pb::core::DataSource) -> Option<(Vec<u8>, Option<String>)> {
    use pb::core::data_source::Specifier;
    let pb::core::DataSource { watched_directory, specifier } = value;
    cx.ignore("watched_directory", &watched_directory, "the file itself is watched");
    match specifier {
        Some(Specifier::InlineBytes(bytes)) => Some((bytes, None)),
        Some(Specifier::InlineString(text)) => Some((text.into_bytes(), None)),
        Some(Specifier::Filename(path)) => {
            let read = cx.sources.file(&path);
            Some((cx.ok("filename", read)?, Some(path)))
        }
        Some(Specifier::EnvironmentVariable(name)) => {
            let found = cx.sources.environment(&name).ok_or(format!("the environment has no {name}"));
            Some((cx.ok("environment_variable", found)?.into_bytes(), None))
        }
        None => {
            cx.error("", "it is empty");
            None
        }
    }
}

/// `DataSource` as text.
pub(crate) fn text(cx: &mut Cx<'_>, value: pb::core::DataSource) -> Option<String> {
    let (bytes, _) = data(cx, value)?;
    cx.ok("", String::from_utf8(bytes).map_err(|_| "it is not UTF-8"))
}

/// `ConfigSource`
pub(crate) fn config_source(cx: &mut Cx<'_>, value: pb::core::ConfigSource) -> Option<ConfigSource> {
    use pb::core::config_source::ConfigSourceSpecifier;
    let pb::core::ConfigSource {
        authorities,
        initial_fetch_timeout: _,
        resource_api_version,
        config_source_specifier,
    } = value;
    cx.refuse("authorities", &authorities);
    version(cx, "resource_api_version", resource_api_version);
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Some(ConfigSource::Ads),
        Some(ConfigSourceSpecifier::Self_(value)) => {
            version(cx, "self.transport_api_version", value.transport_api_version);
            Some(ConfigSource::SelfSource)
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(value)) => cx
            .within("api_config_source", |cx| api_source(cx, value))
            .map(|api| ConfigSource::Api(Arc::new(api))),
        Some(ConfigSourceSpecifier::PathConfigSource(value)) => {
            let pb::core::PathConfigSource { path, watched_directory, poll_interval } = value;
            cx.ignore(
                "path_config_source.watched_directory",
                &watched_directory,
                "the file itself is watched",
            );
            cx.ignore("path_config_source.poll_interval", &poll_interval, "the file is watched, not polled");
            Some(ConfigSource::Path(arc(path)))
        }
        Some(ConfigSourceSpecifier::Path(path)) => Some(ConfigSource::Path(arc(path))),
        None => {
            cx.error("", "it names no source");
            None
        }
    }
}

fn version(cx: &mut Cx<'_>, field: &str, version: i32) {
    if version == pb::core::ApiVersion::V2 as i32 {
        cx.error(field, "version 2 of the API is gone; version 3 is spoken");
    }
}

fn api_source(cx: &mut Cx<'_>, value: pb::core::ApiConfigSource) -> Option<ApiSource> {
    use pb::core::api_config_source::ApiType;
    let pb::core::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        // Of REST alone.
        refresh_delay: _,
        request_timeout: _,
        rate_limit_settings,
        // Servers must cope with either: the node is told in the first message.
        set_node_on_first_message_only: _,
        config_validators,
    } = value;
    cx.ignore("rate_limit_settings", &rate_limit_settings, "requests are few: one for each change");
    version(cx, "transport_api_version", transport_api_version);
    cx.refuse("config_validators", &config_validators);
    cx.refuse("cluster_names", &cluster_names);
    let delta = match ApiType::try_from(api_type) {
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => false,
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => true,
        _ => {
            cx.error("api_type", "only gRPC and incremental gRPC are spoken");
            return None;
        }
    };
    let services = cx.each("grpc_services", grpc_services, crate::access_log::grpc_target);
    let Some(service) = services.into_iter().next() else {
        cx.error("grpc_services", "it names no server");
        return None;
    };
    Some(ApiSource { cluster: service.cluster, delta, initial_metadata: service.initial_metadata.into_vec() })
}

/// `SdsSecretConfig`
pub(crate) fn sds(cx: &mut Cx<'_>, value: pb::tls::SdsSecretConfig) -> Option<ResourceRef> {
    let pb::tls::SdsSecretConfig { name, sds_config } = value;
    if name.is_empty() {
        cx.error("name", "it must be set");
    }
    let source = match sds_config {
        Some(source) => cx.within("sds_config", |cx| config_source(cx, source))?,
        // Without a source, the secret is one of the bootstrap's.
        None => ConfigSource::Path(Arc::from("")),
    };
    Some(ResourceRef { name: arc(name), source })
}
