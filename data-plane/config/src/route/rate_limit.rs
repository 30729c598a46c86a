//! `RateLimit`: what of a request is counted.

use sail_proxy_decide::format::Format;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::rate_limit::descriptor::{Action, Hits, Limit, Override, RateLimit, Source, Text};

use crate::convert::{Cx, address, arc, headers, matchers, values};
use crate::pb;
use crate::pb::route::rate_limit as proto;

/// All of a level.
pub(crate) fn all(cx: &mut Cx<'_>, field: &str, values: Vec<pb::route::RateLimit>) -> Box<[RateLimit]> {
    cx.each(field, values, rate_limit).into()
}

fn rate_limit(cx: &mut Cx<'_>, value: pb::route::RateLimit) -> Option<RateLimit> {
    let pb::route::RateLimit {
        stage,
        disable_key,
        actions,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option,
    } = value;
    cx.refuse("apply_on_stream_done", &apply_on_stream_done);
    Some(RateLimit {
        stage: values::u32_or(stage, 0),
        disable_key: arc(disable_key),
        actions: cx.each("actions", actions, action).into(),
        limit: cx.option("limit", limit, self::limit),
        hits: cx.option("hits_addend", hits_addend, hits).flatten(),
        told: match pb::route::rate_limit::XRateLimitOption::try_from(x_ratelimit_option) {
            Ok(pb::route::rate_limit::XRateLimitOption::Unspecified) => None,
            Ok(pb::route::rate_limit::XRateLimitOption::Off) => Some(false),
            Ok(pb::route::rate_limit::XRateLimitOption::DraftVersion03) => Some(true),
            Err(_) => {
                cx.error("x_ratelimit_option", "it is not known");
                None
            }
        },
    })
}

#[expect(clippy::option_option, reason = "the outer says whether it could be read")]
fn hits(cx: &mut Cx<'_>, value: proto::HitsAddend) -> Option<Option<Hits>> {
    let proto::HitsAddend { number, format, is_negative_hits } = value;
    cx.refuse("is_negative_hits", &is_negative_hits);
    if !format.is_empty() {
        let format = cx.within("format", |cx| headers::format(cx, &format))?;
        return Some(Some(Hits::Format(format)));
    }
    Some(number.map(|number| Hits::Number(number.value)))
}

fn limit(cx: &mut Cx<'_>, value: proto::Override) -> Option<Override> {
    use proto::r#override::OverrideSpecifier as Kind;
    match value.override_specifier {
        Some(Kind::RateLimit(limit)) => {
            Some(Override::Fixed(Limit { requests_per_unit: limit.requests_per_unit, unit: limit.unit }))
        }
        Some(Kind::DynamicMetadata(value)) => {
            let (namespace, path) = cx.required("dynamic_metadata.metadata_key", value.metadata_key, key)?;
            Some(Override::Metadata(namespace, path))
        }
        None => {
            cx.error("override_specifier", "it must be set");
            None
        }
    }
}

type Key = (std::sync::Arc<str>, Box<[Box<str>]>);

fn key(cx: &mut Cx<'_>, value: xds_api::envoy::r#type::metadata::v3::MetadataKey) -> Option<Key> {
    use xds_api::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    let path = cx.each("path", value.path, |cx, segment| match segment.segment {
        Some(Segment::Key(key)) => Some(Box::from(key)),
        Some(Segment::Index(_)) => {
            cx.error("index", "it is not supported");
            None
        }
        None => {
            cx.error("key", "it must be set");
            None
        }
    });
    Some((arc(value.key), path.into()))
}

fn text(cx: &mut Cx<'_>, value: &str, default: String) -> Option<Text> {
    let format: Format = cx.within("descriptor_value", |cx| headers::format(cx, value))?;
    Some(Text { format, default: default.into() })
}

fn or(text: String, default: &str) -> Box<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

fn action(cx: &mut Cx<'_>, value: proto::Action) -> Option<Action> {
    use proto::action::ActionSpecifier as Kind;
    let Some(kind) = value.action_specifier else {
        cx.error("action_specifier", "it must be set");
        return None;
    };
    Some(match kind {
        Kind::SourceCluster(_) => Action::SourceCluster,
        Kind::DestinationCluster(_) => Action::DestinationCluster,
        Kind::RequestHeaders(value) => {
            let name = HeaderKey::parse(&value.header_name)
                .map_err(|_| format!("{:?} is not a header's name", value.header_name));
            Action::RequestHeader {
                name: cx.ok("request_headers.header_name", name)?,
                key: value.descriptor_key.into(),
                skip_if_absent: value.skip_if_absent,
            }
        }
        Kind::QueryParameters(value) => Action::QueryParameter {
            name: value.query_parameter_name.into(),
            key: value.descriptor_key.into(),
            skip_if_absent: value.skip_if_absent,
        },
        Kind::RemoteAddress(_) => Action::RemoteAddress,
        Kind::MaskedRemoteAddress(value) => {
            let bits = |value: Option<pb::UInt32Value>, most: u8| {
                value.map_or(most, |value| u8::try_from(value.value).unwrap_or(most).min(most))
            };
            Action::MaskedRemoteAddress {
                v4: bits(value.v4_prefix_mask_len, 32),
                v6: bits(value.v6_prefix_mask_len, 128),
            }
        }
        Kind::GenericKey(value) => Action::GenericKey {
            value: cx.within("generic_key", |cx| text(cx, &value.descriptor_value, value.default_value))?,
            key: or(value.descriptor_key, "generic_key"),
        },
        Kind::HeaderValueMatch(value) => cx.within("header_value_match", |cx| header_match(cx, value))?,
        Kind::QueryParameterValueMatch(value) => {
            cx.within("query_parameter_value_match", |cx| query_match(cx, value))?
        }
        Kind::DynamicMetadata(value) => {
            let found = cx.required("dynamic_metadata.metadata_key", value.metadata_key, key)?;
            metadata(found, value.descriptor_key, value.default_value, Source::Dynamic, false)
        }
        Kind::Metadata(value) => {
            use proto::action::meta_data::Source as From;
            let source = match From::try_from(value.source) {
                Ok(From::Dynamic) => Source::Dynamic,
                Ok(From::RouteEntry) => Source::Route,
                _ => {
                    cx.error("metadata.source", "it is not supported");
                    return None;
                }
            };
            let found = cx.required("metadata.metadata_key", value.metadata_key, key)?;
            metadata(found, value.descriptor_key, value.default_value, source, value.skip_if_absent)
        }
        Kind::Extension(value) => {
            cx.error("extension", format_args!("{:?} is not supported", value.name));
            return None;
        }
        Kind::RemoteAddressMatch(value) => {
            cx.within("remote_address_match", |cx| address_match(cx, value))?
        }
    })
}

fn metadata(found: Key, key: String, default: String, source: Source, skip_if_absent: bool) -> Action {
    let (namespace, path) = found;
    Action::Metadata { key: key.into(), source, namespace, path, default: default.into(), skip_if_absent }
}

fn address_match(cx: &mut Cx<'_>, value: proto::action::RemoteAddressMatch) -> Option<Action> {
    let proto::action::RemoteAddressMatch {
        descriptor_value,
        descriptor_key,
        default_value,
        address_matcher,
    } = value;
    Some(Action::RemoteAddressMatch {
        key: or(descriptor_key, "remote_address_match"),
        value: text(cx, &descriptor_value, default_value)?,
        addresses: cx
            .required("address_matcher", address_matcher, |cx, value| Some(address::matcher(cx, value)))?,
    })
}

fn header_match(cx: &mut Cx<'_>, value: proto::action::HeaderValueMatch) -> Option<Action> {
    let proto::action::HeaderValueMatch {
        descriptor_value,
        default_value,
        descriptor_key,
        expect_match,
        headers,
    } = value;
    Some(Action::HeaderMatch {
        key: or(descriptor_key, "header_match"),
        value: text(cx, &descriptor_value, default_value)?,
        expect: values::bool_or(expect_match, true),
        headers: matchers::headers(cx, "headers", headers),
    })
}

fn query_match(cx: &mut Cx<'_>, value: proto::action::QueryParameterValueMatch) -> Option<Action> {
    let proto::action::QueryParameterValueMatch {
        descriptor_value,
        default_value,
        descriptor_key,
        expect_match,
        query_parameters,
    } = value;
    Some(Action::QueryMatch {
        key: or(descriptor_key, "query_match"),
        value: text(cx, &descriptor_value, default_value)?,
        expect: values::bool_or(expect_match, true),
        parameters: cx.each("query_parameters", query_parameters, matchers::query).into(),
    })
}
