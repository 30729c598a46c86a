//! `typed_per_filter_config`

use std::collections::HashMap;
use std::sync::Arc;

use sail_proxy_decide::route::{PerFilter, PerFilterConfig};

use super::{cors, fault};
use crate::convert::{Cx, arc, type_name};
use crate::pb;
use crate::{http_filter, rbac};

/// All entries, sorted by filter name.
pub(super) fn all(cx: &mut Cx<'_>, entries: HashMap<String, pb::Any>) -> PerFilter {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    let converted = entries.into_iter().filter_map(|(name, any)| {
        let config = cx.within(format_args!("typed_per_filter_config[{name}]"), |cx| one(cx, &any))?;
        Some((arc(name), config))
    });
    PerFilter::new(converted.collect())
}

fn one(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use pb::filters::http;
    match type_name(any) {
        "envoy.config.route.v3.FilterConfig" => wrapped(cx, any),
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let value = cx.unpack(any)?;
            fault::fault(cx, value).map(|config| PerFilterConfig::Fault(Arc::new(config)))
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            let value = cx.unpack(any)?;
            cors::filter_policy(cx, value).map(|policy| PerFilterConfig::Cors(Arc::new(policy)))
        }
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
            let http::rbac::v3::RbacPerRoute { rbac } = cx.unpack(any)?;
            match rbac {
                None => Some(PerFilterConfig::Rbac(None)),
                Some(value) => cx
                    .within("rbac", |cx| rbac::http(cx, value))
                    .map(|config| PerFilterConfig::Rbac(Some(Arc::new(config)))),
            }
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            let value = cx.unpack(any)?;
            http_filter::local_rate_limit(cx, value)
                .map(|config| PerFilterConfig::LocalRateLimit(Arc::new(config)))
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
            let http::header_mutation::v3::HeaderMutationPerRoute { mutations } = cx.unpack(any)?;
            let mutations = cx.option("mutations", mutations, http_filter::mutations)?;
            Some(PerFilterConfig::HeaderMutation(Arc::new(mutations)))
        }
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute" => {
            use http::buffer::v3::buffer_per_route::Override;
            let value: http::buffer::v3::BufferPerRoute = cx.unpack(any)?;
            match value.r#override {
                Some(Override::Buffer(buffer)) => {
                    Some(PerFilterConfig::Buffer(buffer.max_request_bytes.map(|value| value.value)))
                }
                Some(Override::Disabled(_)) | None => Some(PerFilterConfig::Buffer(None)),
            }
        }
        "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" => {
            use http::jwt_authn::v3::per_route_config::RequirementSpecifier;
            let value: http::jwt_authn::v3::PerRouteConfig = cx.unpack(any)?;
            match value.requirement_specifier {
                Some(RequirementSpecifier::RequirementName(name)) => {
                    Some(PerFilterConfig::JwtRequirement(Some(arc(name))))
                }
                Some(RequirementSpecifier::Disabled(_)) | None => Some(PerFilterConfig::JwtRequirement(None)),
            }
        }
        other => {
            cx.error("", format_args!("there is no filter with a route configuration of type {other:?}"));
            None
        }
    }
}

fn wrapped(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let pb::route::FilterConfig { config, is_optional, disabled } = cx.unpack(any)?;
    if disabled {
        return Some(PerFilterConfig::Disabled);
    }
    let config = cx.required("config", config, |_, config| Some(config))?;
    if is_optional && !KNOWN.contains(&type_name(&config)) {
        cx.warn(
            "config",
            format_args!("the optional {:?} is not supported and left out", type_name(&config)),
        );
        return None;
    }
    cx.within("config", |cx| one(cx, &config))
}

const KNOWN: &[&str] = &[
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
];
