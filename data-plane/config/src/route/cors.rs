//! CORS policies, in their old place and in the filter's.

use http::HeaderValue;
use sail_proxy_decide::fraction::{Fraction, RuntimeFraction};
use sail_proxy_decide::matcher::StringMatcher;
use sail_proxy_decide::route::cors::CorsPolicy;

use crate::convert::{Cx, headers, matchers, values};
use crate::pb;

type FilterPolicy = pb::filters::http::cors::v3::CorsPolicy;

/// `envoy.config.route.v3.CorsPolicy`
pub(super) fn route_policy(cx: &mut Cx<'_>, value: pb::route::CorsPolicy) -> Option<CorsPolicy> {
    use pb::route::cors_policy::EnabledSpecifier;
    let pb::route::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = value;
    let filter_enabled = enabled_specifier.map(|EnabledSpecifier::FilterEnabled(value)| value);
    filter_policy(
        cx,
        FilterPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        },
    )
}

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`
pub(crate) fn filter_policy(cx: &mut Cx<'_>, value: FilterPolicy) -> Option<CorsPolicy> {
    let FilterPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = value;
    let origins: Vec<StringMatcher> =
        cx.each("allow_origin_string_match", allow_origin_string_match, matchers::string);
    let text = |cx: &mut Cx<'_>, field: &str, text: String| -> Option<HeaderValue> {
        if text.is_empty() { None } else { headers::value(cx, field, &text) }
    };
    let share = |cx: &mut Cx<'_>, field: &str, value, default| {
        cx.option(field, value, values::runtime_fraction).unwrap_or(RuntimeFraction::fixed(default))
    };
    Some(CorsPolicy {
        allow_origin: origins.into(),
        allow_methods: text(cx, "allow_methods", allow_methods),
        allow_headers: text(cx, "allow_headers", allow_headers),
        expose_headers: text(cx, "expose_headers", expose_headers),
        max_age: text(cx, "max_age", max_age),
        allow_credentials: values::bool_or(allow_credentials, false),
        allow_private_network_access: values::bool_or(allow_private_network_access, false),
        forward_not_matching_preflights: values::bool_or(forward_not_matching_preflights, true),
        enabled: share(cx, "filter_enabled", filter_enabled, Fraction::ALWAYS),
        shadow: share(cx, "shadow_enabled", shadow_enabled, Fraction::NEVER),
    })
}
