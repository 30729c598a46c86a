//! `grpc_json_transcoder`

use std::sync::Arc;

use sail_proxy_decide::route::PerFilterConfig;
use sail_proxy_decide::transcoder::{Framing, Input, Print, Transcoder, Unescape};

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::Cx;
use crate::pb;
use crate::pb::filters::http::grpc_json_transcoder::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        transcoder(cx, value).map(|config| HttpFilterKind::GrpcJsonTranscoder(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: NAME,
        convert: |cx, any| {
            let value = cx.unpack(any)?;
            transcoder(cx, value).map(PerFilterConfig::typed)
        },
    }),
};

/// As much of a body as is held where nothing is said.
const LIMIT: u32 = 1024 * 1024;

/// `GrpcJsonTranscoder`
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are Envoy's")]
pub struct GrpcJsonTranscoder {
    /// The methods, and the requests that mean them.
    pub transcoder: Arc<Transcoder>,
    /// Whether the route stays the one of the request as it came.
    pub match_incoming_request_route: bool,
    /// Whether a failure's status becomes the body.
    pub convert_grpc_status: bool,
    /// Whether requests that mean no method are refused.
    pub reject_unknown_method: bool,
    /// Whether requests with query parameters that are no fields are refused.
    pub reject_unknown_query_parameters: bool,
    /// The most bytes of a request that are held.
    pub max_request_body_size: usize,
    /// The most bytes of a response that are held.
    pub max_response_body_size: usize,
}

fn transcoder(cx: &mut Cx<'_>, value: proto::GrpcJsonTranscoder) -> Option<GrpcJsonTranscoder> {
    use proto::grpc_json_transcoder::{DescriptorSet, PrintOptions, RequestValidationOptions};
    let proto::GrpcJsonTranscoder {
        services,
        print_options,
        match_incoming_request_route,
        ignored_query_parameters,
        auto_mapping,
        ignore_unknown_query_parameters,
        convert_grpc_status,
        url_unescape_spec,
        query_param_unescape_plus,
        match_unregistered_custom_verb,
        request_validation_options,
        case_insensitive_enum_parsing,
        max_request_body_size,
        max_response_body_size,
        capture_unknown_query_parameters,
        descriptor_set,
    } = value;
    let descriptors = match descriptor_set {
        Some(DescriptorSet::ProtoDescriptor(path)) => {
            let read = cx.sources.file(&path);
            cx.ok("proto_descriptor", read)?
        }
        Some(DescriptorSet::ProtoDescriptorBin(bytes)) => bytes,
        None => {
            cx.error("descriptor_set", "it must be set");
            return None;
        }
    };
    let PrintOptions {
        add_whitespace,
        always_print_primitive_fields,
        always_print_enums_as_ints,
        preserve_proto_field_names,
        stream_newline_delimited,
        stream_sse_style_delimited,
    } = print_options.unwrap_or_default();
    let print = Print {
        add_whitespace,
        always_print_primitive_fields,
        always_print_enums_as_ints,
        preserve_proto_field_names,
        stream: match (stream_sse_style_delimited, stream_newline_delimited) {
            (true, _) => Framing::Events,
            (false, true) => Framing::Lines,
            (false, false) => Framing::Array,
        },
    };
    let RequestValidationOptions {
        reject_unknown_method,
        reject_unknown_query_parameters,
        reject_binding_body_field_collisions,
    } = request_validation_options.unwrap_or_default();
    let input = Input {
        ignored: ignored_query_parameters,
        ignore_unknown: ignore_unknown_query_parameters,
        capture_unknown: capture_unknown_query_parameters,
        unescape_plus: query_param_unescape_plus,
        case_insensitive_enums: case_insensitive_enum_parsing,
        reject_collisions: reject_binding_body_field_collisions,
        unescape: match url_unescape_spec {
            1 => Unescape::AllExceptSlash,
            2 => Unescape::All,
            _ => Unescape::AllExceptReserved,
        },
        unregistered_verbs: match_unregistered_custom_verb,
    };
    let limit = |value: Option<pb::UInt32Value>| value.map_or(LIMIT, |value| value.value) as usize;
    let transcoder = Transcoder::new(&descriptors, &services, auto_mapping, print, input);
    Some(GrpcJsonTranscoder {
        transcoder: Arc::new(cx.ok("services", transcoder)?),
        match_incoming_request_route,
        convert_grpc_status,
        reject_unknown_method,
        reject_unknown_query_parameters,
        max_request_body_size: limit(max_request_body_size),
        max_response_body_size: limit(max_response_body_size),
    })
}
