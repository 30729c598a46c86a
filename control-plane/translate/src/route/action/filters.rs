//! What a route tells filters: faults and CORS.

use std::collections::HashMap;

use mesh_api::virtual_service::{AbortCode, CorsPolicy, Fault, HttpRoute, UnmatchedPreflights, grpc_status};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3::RuntimeFractionalPercent;
use xds_api::envoy::extensions::filters::common::fault::v3 as common;
use xds_api::envoy::extensions::filters::http::cors::v3 as cors;
use xds_api::envoy::extensions::filters::http::fault::v3 as fault;
use xds_api::google::protobuf::Any;

use super::super::matcher;
use crate::pb;

/// The gRPC status of what has no name.
const UNKNOWN: u32 = 2;

/// The settings of filters for one route.
pub(super) fn per_route(route: &HttpRoute) -> HashMap<String, Any> {
    let mut out = HashMap::new();
    if let Some(settings) = &route.fault {
        out.insert("envoy.filters.http.fault".to_owned(), pack(&http_fault(settings)));
    }
    if let Some(policy) = &route.cors_policy {
        out.insert("envoy.filters.http.cors".to_owned(), pack(&cors_policy(policy)));
    }
    out
}

fn http_fault(settings: &Fault) -> fault::HttpFault {
    let mut out = fault::HttpFault::default();
    if let Some(delay) = &settings.delay {
        out.delay = Some(common::FaultDelay {
            percentage: Some(pb::millionths(delay.percentage.unwrap_or_default().per_million())),
            fault_delay_secifier: delay
                .fixed_delay
                .and_then(pb::duration)
                .map(common::fault_delay::FaultDelaySecifier::FixedDelay),
        });
    }
    if let Some(abort) = &settings.abort {
        out.abort = Some(fault::FaultAbort {
            percentage: Some(pb::millionths(abort.percentage.unwrap_or_default().per_million())),
            error_type: Some(match &abort.code {
                AbortCode::Http(status) => fault::fault_abort::ErrorType::HttpStatus(*status),
                AbortCode::Grpc(name) => {
                    fault::fault_abort::ErrorType::GrpcStatus(grpc_status(name).unwrap_or(UNKNOWN))
                }
            }),
            ..Default::default()
        });
    }
    out
}

fn cors_policy(policy: &CorsPolicy) -> cors::CorsPolicy {
    let always = || {
        Some(RuntimeFractionalPercent {
            default_value: Some(pb::millionths(1_000_000)),
            ..Default::default()
        })
    };
    let forward = match policy.unmatched_preflights {
        UnmatchedPreflights::Ignore => pb::boolv(false),
        UnmatchedPreflights::Forward => pb::boolv(true),
        UnmatchedPreflights::Unspecified => None,
    };
    cors::CorsPolicy {
        allow_origin_string_match: policy
            .allow_origins
            .iter()
            .map(|origin| matcher::string(origin).unwrap_or_else(|| pb::safe_regex(".*")))
            .collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.and_then(pb::boolv),
        filter_enabled: always(),
        forward_not_matching_preflights: forward,
        ..Default::default()
    }
}
