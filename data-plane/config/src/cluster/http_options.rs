//! How HTTP is spoken upstream: `HttpProtocolOptions`, and the cluster's older fields.

use std::collections::HashMap;
use std::sync::Arc;

use xds_api::envoy::extensions::upstreams::http::v3 as upstreams;

use super::{UpstreamHttp, UpstreamProtocol};
use crate::convert::{Cx, headers, type_name};
use crate::hcm::protocol;
use crate::hcm::{Http1Options, Http2Options};
use crate::http_filter::{self, HttpFilter};
use crate::pb;

/// The older fields.
pub(super) struct OldFields {
    pub(super) max_requests_per_connection: Option<pb::UInt32Value>,
    pub(super) upstream: Option<pb::core::UpstreamHttpProtocolOptions>,
    pub(super) common: Option<pb::core::HttpProtocolOptions>,
    pub(super) http1: Option<pb::core::Http1ProtocolOptions>,
    pub(super) http2: Option<pb::core::Http2ProtocolOptions>,
    pub(super) protocol_selection: i32,
}

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The options, and the filters before an upstream's connection.
pub(super) fn options(
    cx: &mut Cx<'_>,
    typed: HashMap<String, pb::Any>,
    old: OldFields,
) -> Option<(UpstreamHttp, Arc<[HttpFilter]>)> {
    let mut found = None;
    for (key, any) in typed {
        let path = format!("typed_extension_protocol_options[{key}]");
        found = Some(cx.within(path, |cx| {
            if type_name(&any) != KEY {
                cx.error("", format_args!("there are no protocol options {:?}", type_name(&any)));
                return None;
            }
            cx.unpack::<upstreams::HttpProtocolOptions>(&any)
        })?);
    }
    match found {
        Some(value) => {
            cx.within(format_args!("typed_extension_protocol_options[{KEY}]"), |cx| new(cx, value))
        }
        None => Some((from_old(cx, old), Arc::default())),
    }
}

fn from_old(cx: &mut Cx<'_>, old: OldFields) -> UpstreamHttp {
    use pb::cluster::cluster::ClusterProtocolSelection as Selection;
    let protocol = if old.protocol_selection == Selection::UseDownstreamProtocol as i32 {
        UpstreamProtocol::UseDownstream
    } else if old.http2.is_some() {
        UpstreamProtocol::Http2
    } else {
        UpstreamProtocol::Http1
    };
    let http1 = cx.within("http_protocol_options", |cx| protocol::http1(cx, old.http1.unwrap_or_default()));
    let http2 = cx.within("http2_protocol_options", |cx| protocol::http2(cx, old.http2.unwrap_or_default()));
    let mut result = build(cx, protocol, (http1, http2), old.common, old.upstream);
    if let Some(limit) = old.max_requests_per_connection {
        result.max_requests_per_connection = Some(limit.value).filter(|limit| *limit > 0);
    }
    result
}

fn new(cx: &mut Cx<'_>, value: upstreams::HttpProtocolOptions) -> Option<(UpstreamHttp, Arc<[HttpFilter]>)> {
    use upstreams::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstreams::http_protocol_options::{
        AutoHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    };
    let upstreams::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = value;
    let filters = http_filter::upstream::all(cx, "http_filters", http_filters);
    cx.refuse("header_validation_config", &header_validation_config);
    cx.refuse("outlier_detection", &outlier_detection);
    cx.refuse("request_mirror_policies", &request_mirror_policies);
    cx.refuse("hash_policy", &hash_policy);
    cx.refuse("retry_policy", &retry_policy);
    let mut both = |field: &str,
                    http1: Option<pb::core::Http1ProtocolOptions>,
                    http2: Option<pb::core::Http2ProtocolOptions>| {
        cx.within(field, |cx| {
            let http1 =
                cx.within("http_protocol_options", |cx| protocol::http1(cx, http1.unwrap_or_default()));
            let http2 =
                cx.within("http2_protocol_options", |cx| protocol::http2(cx, http2.unwrap_or_default()));
            (http1, http2)
        })
    };
    let (protocol, codecs) = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(value)) => match value.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(value)) => {
                (UpstreamProtocol::Http1, both("explicit_http_config", Some(value), None))
            }
            Some(ProtocolConfig::Http2ProtocolOptions(value)) => {
                (UpstreamProtocol::Http2, both("explicit_http_config", None, Some(value)))
            }
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                cx.error("explicit_http_config.http3_protocol_options", "it is not supported");
                return None;
            }
            None => {
                cx.error("explicit_http_config", "it names no protocol");
                return None;
            }
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(value)) => {
            let UseDownstreamHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options,
            } = value;
            let field = "use_downstream_protocol_config";
            let codecs = both(field, http_protocol_options, http2_protocol_options);
            cx.refuse("use_downstream_protocol_config.http3_protocol_options", &http3_protocol_options);
            (UpstreamProtocol::UseDownstream, codecs)
        }
        Some(UpstreamProtocolOptions::AutoConfig(value)) => {
            let AutoHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options,
                alternate_protocols_cache_options,
            } = value;
            let codecs = both("auto_config", http_protocol_options, http2_protocol_options);
            cx.refuse("auto_config.http3_protocol_options", &http3_protocol_options);
            cx.refuse("auto_config.alternate_protocols_cache_options", &alternate_protocols_cache_options);
            (UpstreamProtocol::Auto, codecs)
        }
        None => {
            cx.error("upstream_protocol_options", "it must be set");
            return None;
        }
    };
    let options = build(cx, protocol, codecs, common_http_protocol_options, upstream_http_protocol_options);
    Some((options, filters))
}

fn build(
    cx: &mut Cx<'_>,
    protocol: UpstreamProtocol,
    (http1, http2): (Http1Options, Http2Options),
    common: Option<pb::core::HttpProtocolOptions>,
    upstream: Option<pb::core::UpstreamHttpProtocolOptions>,
) -> UpstreamHttp {
    let common =
        cx.within("common_http_protocol_options", |cx| protocol::common(cx, common.unwrap_or_default()));
    let pb::core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        upstream.unwrap_or_default();
    UpstreamHttp {
        protocol,
        http1,
        http2,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        max_response_headers_count: common.max_headers_count,
        max_response_headers_kb: common.max_response_headers_kb,
        auto_sni,
        auto_san_validation,
        override_auto_sni_header: match override_auto_sni_header.as_str() {
            "" | ":authority" => None,
            name => headers::name(cx, "upstream_http_protocol_options.override_auto_sni_header", name),
        },
    }
}
