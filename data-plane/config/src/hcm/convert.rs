//! `HttpConnectionManager`

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::{
    BodyFormat, Codec, Hcm, HcmLimits, HcmTimeouts, HcmUpgrade, HostOptions, LocalReply, PathOptions,
    ReplyMapper, RequestId, RouteSource, SchemeTransformation, ServerHeader, client, protocol, scope,
};
use crate::convert::{Cx, arc, hash, headers, type_name, values};
use crate::pb;
use crate::pb::hcm::HttpConnectionManager;
use crate::source::ResourceRef;
use crate::{access_log, http_filter, route, tracing};

#[expect(clippy::too_many_lines, reason = "one message of eighty fields, taken apart field by field")]
pub(crate) fn manager(cx: &mut Cx<'_>, value: HttpConnectionManager) -> Option<Hcm> {
    let HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        // A connection ends between two requests in any case.
        http1_safe_max_connection_duration: _,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        // Upstreams are told the address that the listener found in any case.
        add_proxy_protocol_connection_state: _,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = value;
    cx.refuse("http3_protocol_options", &http3_protocol_options);
    cx.refuse("forward_client_cert_matcher", &forward_client_cert_matcher);
    cx.refuse(
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        &represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
    );
    cx.refuse("path_normalization_options", &path_normalization_options);
    cx.refuse("proxy_status_config", &proxy_status_config);
    cx.refuse("typed_header_validation_config", &typed_header_validation_config);
    cx.refuse("forward_proto_config", &forward_proto_config);

    cx.ignore(
        "stream_error_on_invalid_http_message",
        &values::bool_or(stream_error_on_invalid_http_message, false),
        "over HTTP/1 an invalid message ends its connection",
    );

    let common = cx.within("common_http_protocol_options", |cx| {
        let options = common_http_protocol_options.unwrap_or_default();
        if options.max_response_headers_kb.is_some() {
            cx.error("max_response_headers_kb", "it bounds what clusters answer: it has its place there");
        }
        protocol::common(cx, options)
    });
    let strip_any = matches!(
        strip_port_mode,
        Some(pb::hcm::http_connection_manager::StripPortMode::StripAnyHostPort(true))
    );
    if strip_matching_host_port && strip_any {
        cx.error("strip_matching_host_port", "it excludes strip_any_host_port");
    }
    for (field, set) in [
        ("flush_access_log_on_new_request", flush_access_log_on_new_request),
        ("access_log_flush_interval", access_log_flush_interval.is_some()),
    ] {
        if set && access_log_options.is_some() {
            cx.error(field, "it excludes access_log_options, which has it, too");
        }
    }
    for (field, set) in [
        ("use_remote_address", values::bool_or(use_remote_address, false)),
        ("xff_num_trusted_hops", xff_num_trusted_hops > 0),
    ] {
        if set && !original_ip_detection_extensions.is_empty() {
            cx.error(field, "it excludes original_ip_detection_extensions");
        }
    }
    let options = access_log_options.unwrap_or_default();
    cx.refuse(
        "access_log_options.flush_log_on_tunnel_successfully_established",
        &options.flush_log_on_tunnel_successfully_established,
    );
    let codec = codec(cx, codec_type);
    let routes = route_source(cx, route_specifier);
    let name = if server_name.is_empty() { "envoy" } else { server_name.as_str() };
    let server_name = headers::value(cx, "server_name", name);
    let client_address =
        client::address(cx, use_remote_address, original_ip_detection_extensions, internal_address_config);
    let request_id = RequestId {
        generate: values::bool_or(generate_request_id, true),
        preserve_external: preserve_external_request_id,
        always_set_in_response: always_set_request_id_in_response,
        ..cx.option("request_id_extension", request_id_extension, self::request_id).unwrap_or(UUID)
    };
    let scheme = cx.option("scheme_header_transformation", scheme_header_transformation, self::scheme);
    let timeouts = HcmTimeouts {
        idle: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        stream_idle: values::limit(
            cx,
            "stream_idle_timeout",
            stream_idle_timeout,
            Some(Duration::from_secs(300)),
        ),
        stream_flush: values::duration(cx, "stream_flush_timeout", stream_flush_timeout),
        request: values::limit(cx, "request_timeout", request_timeout, None),
        request_headers: values::limit(cx, "request_headers_timeout", request_headers_timeout, None),
        delayed_close: values::duration(cx, "delayed_close_timeout", delayed_close_timeout)
            .unwrap_or(Duration::from_secs(1)),
        drain: values::duration(cx, "drain_timeout", drain_timeout).unwrap_or(Duration::from_secs(5)),
    };
    let head_kb = values::u32_or(max_request_headers_kb, 60);
    let field_kb = http2_protocol_options.as_ref().and_then(|options| options.max_header_field_size_kb);
    if field_kb.is_some_and(|field| field.value > head_kb) {
        cx.error(
            "http2_protocol_options.max_header_field_size_kb",
            "it must not exceed max_request_headers_kb",
        );
    }
    let flush_interval = options.access_log_flush_interval.or(access_log_flush_interval);
    Some(Hcm {
        stat_prefix: arc(stat_prefix),
        http_filters: http_filter::all(cx, "http_filters", http_filters),
        access_logs: access_log::all(cx, "access_log", access_log),
        access_log_flush_interval: values::limit(cx, "access_log_flush_interval", flush_interval, None),
        flush_access_log_on_new_request: options.flush_access_log_on_new_request
            || flush_access_log_on_new_request,
        timeouts,
        max_connection_duration_jitter: common.max_connection_duration_jitter,
        drain_timeout_jitter: values::percent(cx, "drain_timeout_jitter", drain_timeout_jitter, 0.0),
        limits: HcmLimits {
            max_request_headers_bytes: head_kb as usize * 1024,
            max_headers_count: common.max_headers_count,
            max_requests_per_connection: common.max_requests_per_connection,
        },
        http1: cx.within("http_protocol_options", |cx| {
            protocol::http1(cx, http_protocol_options.unwrap_or_default())
        }),
        http2: cx.within("http2_protocol_options", |cx| {
            let mut options = http2_protocol_options.unwrap_or_default();
            if options.override_stream_error_on_invalid_http_message.is_none() {
                options.override_stream_error_on_invalid_http_message = stream_error_on_invalid_http_message;
            }
            protocol::http2(cx, options)
        }),
        client_address: {
            let address = client_address?;
            // The extension's number and the old field's exclude each other.
            let hops = xff_num_trusted_hops.max(address.xff_num_trusted_hops);
            super::ClientAddress { xff_num_trusted_hops: hops, skip_xff_append, ..address }
        },
        forward_client_cert: client::forward(cx, forward_client_cert_details),
        client_cert_details: client::details(cx, set_current_client_cert_details),
        server_header: server_header(cx, server_header_transformation),
        server_name: server_name?,
        via: if via.is_empty() { None } else { headers::value(cx, "via", &via) },
        scheme: scheme.unwrap_or_default(),
        path: PathOptions {
            normalize: values::bool_or(normalize_path, false),
            merge_slashes,
            escaped_slashes: client::escaped_slashes(cx, path_with_escaped_slashes_action),
        },
        host: HostOptions {
            strip_matching_port: strip_matching_host_port,
            strip_any_port: strip_any,
            strip_trailing_dot: strip_trailing_host_dot,
        },
        request_id,
        upgrades: upgrades(cx, upgrade_configs).into(),
        tracing: cx.option("tracing", tracing, tracing::convert::tracing).map(Box::new),
        local_reply: cx.option("local_reply_config", local_reply_config, local_reply).map(Box::new),
        append_x_forwarded_port,
        append_local_overload,
        proxy_100_continue,
        underscores: common.underscores,
        add_user_agent: values::bool_or(add_user_agent, false),
        early_mutations: cx
            .each("early_header_mutation_extensions", early_header_mutation_extensions, early_mutations)
            .into_iter()
            .flatten()
            .collect(),
        codec: codec?,
        routes: routes?,
    })
}

fn codec(cx: &mut Cx<'_>, value: i32) -> Option<Codec> {
    use pb::hcm::http_connection_manager::CodecType;
    match CodecType::try_from(value) {
        Ok(CodecType::Auto) => Some(Codec::Auto),
        Ok(CodecType::Http1) => Some(Codec::Http1),
        Ok(CodecType::Http2) => Some(Codec::Http2),
        _ => {
            cx.error("codec_type", "only AUTO, HTTP1 and HTTP2 are supported");
            None
        }
    }
}

fn route_source(
    cx: &mut Cx<'_>,
    value: Option<pb::hcm::http_connection_manager::RouteSpecifier>,
) -> Option<RouteSource> {
    use pb::hcm::http_connection_manager::RouteSpecifier;
    match value {
        Some(RouteSpecifier::RouteConfig(value)) => {
            let version = hash(&prost::Message::encode_to_vec(&value));
            cx.within("route_config", |cx| route::table(cx, value, version))
                .map(|table| RouteSource::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::Rds(value)) => cx.within("rds", |cx| {
            let pb::hcm::Rds { config_source, route_config_name } = value;
            if route_config_name.is_empty() {
                cx.error("route_config_name", "it must be set");
            }
            let source = cx.required("config_source", config_source, values::config_source)?;
            Some(RouteSource::Rds(ResourceRef { name: arc(route_config_name), source }))
        }),
        Some(RouteSpecifier::ScopedRoutes(value)) => cx
            .within("scoped_routes", |cx| scope::routes(cx, value))
            .map(|routes| RouteSource::Scoped(Arc::new(routes))),
        None => {
            cx.error("route_specifier", "it must be set");
            None
        }
    }
}

fn server_header(cx: &mut Cx<'_>, value: i32) -> ServerHeader {
    use pb::hcm::http_connection_manager::ServerHeaderTransformation as Kind;
    match Kind::try_from(value) {
        Ok(Kind::Overwrite) => ServerHeader::Overwrite,
        Ok(Kind::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
        Ok(Kind::PassThrough) => ServerHeader::PassThrough,
        Err(_) => {
            cx.error("server_header_transformation", "it is not known");
            ServerHeader::Overwrite
        }
    }
}

fn scheme(cx: &mut Cx<'_>, value: pb::core::SchemeHeaderTransformation) -> Option<SchemeTransformation> {
    use pb::core::scheme_header_transformation::Transformation;
    let pb::core::SchemeHeaderTransformation { match_upstream, transformation } = value;
    cx.ignore("match_upstream", &match_upstream, "the scheme stays the client's");
    let overwrite =
        transformation.map(|Transformation::SchemeToOverwrite(scheme)| scheme.to_ascii_lowercase());
    if overwrite.as_ref().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        cx.error("scheme_to_overwrite", "only http and https are schemes here");
    }
    let overwrite = overwrite.map(Into::into);
    Some(SchemeTransformation { overwrite })
}

const UUID: RequestId = RequestId {
    generate: true,
    preserve_external: false,
    always_set_in_response: false,
    pack_trace_reason: true,
    use_for_trace_sampling: true,
};

pub(crate) fn request_id(cx: &mut Cx<'_>, value: pb::hcm::RequestIdExtension) -> Option<RequestId> {
    use xds_api::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
    let any = value.typed_config?;
    if type_name(&any) != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
        cx.error("typed_config", format_args!("there is no request id extension {:?}", type_name(&any)));
        return None;
    }
    let config: UuidRequestIdConfig = cx.unpack(&any)?;
    Some(RequestId {
        pack_trace_reason: values::bool_or(config.pack_trace_reason, true),
        use_for_trace_sampling: values::bool_or(config.use_request_id_for_trace_sampling, true),
        ..UUID
    })
}

fn early_mutations(
    cx: &mut Cx<'_>,
    value: pb::core::TypedExtensionConfig,
) -> Option<Vec<sail_proxy_decide::headers::Mutation>> {
    use xds_api::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
    let any = value.typed_config.unwrap_or_default();
    if type_name(&any) != "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation" {
        cx.error("typed_config", format_args!("there is no early header mutation {:?}", type_name(&any)));
        return None;
    }
    let HeaderMutation { mutations } = cx.unpack(&any)?;
    Some(cx.each("typed_config.mutations", mutations, http_filter::header_mutation::mutation))
}

fn upgrades(
    cx: &mut Cx<'_>,
    values: Vec<pb::hcm::http_connection_manager::UpgradeConfig>,
) -> Vec<HcmUpgrade> {
    let all: Vec<HcmUpgrade> = cx.each("upgrade_configs", values, upgrade);
    route::action::each_once(cx, all.iter().map(|config| &*config.upgrade_type));
    all
}

fn upgrade(cx: &mut Cx<'_>, value: pb::hcm::http_connection_manager::UpgradeConfig) -> Option<HcmUpgrade> {
    let pb::hcm::http_connection_manager::UpgradeConfig { upgrade_type, filters, enabled } = value;
    let filters = if filters.is_empty() { None } else { Some(http_filter::all(cx, "filters", filters)) };
    Some(HcmUpgrade {
        upgrade_type: route::action::upgrade_kind(cx, &upgrade_type),
        enabled: values::bool_or(enabled, true),
        filters,
    })
}

fn local_reply(cx: &mut Cx<'_>, value: pb::hcm::LocalReplyConfig) -> Option<LocalReply> {
    let pb::hcm::LocalReplyConfig { mappers, body_format } = value;
    Some(LocalReply {
        mappers: cx.each("mappers", mappers, mapper).into(),
        body_format: cx.option("body_format", body_format, self::body_format),
    })
}

fn mapper(cx: &mut Cx<'_>, value: pb::hcm::ResponseMapper) -> Option<ReplyMapper> {
    let pb::hcm::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = value;
    let filter = cx.required("filter", filter, access_log::filter)?;
    let status = match status_code {
        Some(value) => Some(cx.ok("status_code", route::action::status_code(value.value))?),
        None => None,
    };
    Some(ReplyMapper {
        filter,
        status,
        body: cx.option("body", body, values::data).map(|(bytes, _)| bytes.into()),
        body_format: cx.option("body_format_override", body_format_override, body_format),
        headers: sail_proxy_decide::headers::HeaderOps {
            add: cx.each("headers_to_add", headers_to_add, headers::add).into(),
            remove: Box::default(),
        },
    })
}

pub(crate) fn body_format(
    cx: &mut Cx<'_>,
    mut value: pb::core::SubstitutionFormatString,
) -> Option<BodyFormat> {
    let content_type = std::mem::take(&mut value.content_type);
    let format = access_log::format(cx, value)?;
    let content_type = match (content_type.as_str(), &format) {
        ("", access_log::LogFormat::Json { .. }) => HeaderValue::from_static("application/json"),
        ("", access_log::LogFormat::Text { .. }) => HeaderValue::from_static("text/plain"),
        (given, _) => headers::value(cx, "content_type", given)?,
    };
    Some(BodyFormat { format, content_type })
}
