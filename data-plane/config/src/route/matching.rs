//! `RouteMatch`

use sail_proxy_decide::address::AddressMatch;
use sail_proxy_decide::path_template::PathTemplate;
use sail_proxy_decide::route::{CookieMatcher, FilterStateMatch, FilterStateMatcher, PathMatch, RouteMatch};
use xds_api::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use crate::convert::{Cx, address, matchers, type_name, values};
use crate::pb;

pub(crate) fn route_match(cx: &mut Cx<'_>, value: pb::route::RouteMatch) -> Option<RouteMatch> {
    let pb::route::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = value;
    let path = path(cx, path_specifier)?;
    Some(RouteMatch {
        path,
        case_sensitive: values::bool_or(case_sensitive, true),
        headers: matchers::headers(cx, "headers", headers),
        query_parameters: cx.each("query_parameters", query_parameters, matchers::query).into(),
        cookies: cx.each("cookies", cookies, cookie).into(),
        dynamic_metadata: cx.each("dynamic_metadata", dynamic_metadata, matchers::metadata).into(),
        filter_state: cx.each("filter_state", filter_state, self::filter_state).into(),
        grpc: grpc.is_some(),
        tls_presented: tls_context.and_then(|tls| tls.presented).map(|value| value.value),
        tls_validated: tls_context.and_then(|tls| tls.validated).map(|value| value.value),
        fraction: cx.option("runtime_fraction", runtime_fraction, values::runtime_fraction),
    })
}

fn path(cx: &mut Cx<'_>, value: Option<pb::route::route_match::PathSpecifier>) -> Option<PathMatch> {
    use pb::route::route_match::PathSpecifier as Kind;
    Some(match value {
        Some(Kind::Prefix(prefix)) => PathMatch::Prefix(prefix.into()),
        Some(Kind::Path(path)) => PathMatch::Exact(path.into()),
        Some(Kind::PathSeparatedPrefix(prefix)) => {
            if prefix.ends_with('/') || !prefix.starts_with('/') || prefix.contains(['?', '#']) {
                cx.error("path_separated_prefix", "it must begin with a / and not end with one");
            }
            PathMatch::PathSeparatedPrefix(prefix.into())
        }
        Some(Kind::SafeRegex(value)) => {
            PathMatch::Regex(cx.within("safe_regex", |cx| matchers::regex(cx, value))?)
        }
        Some(Kind::ConnectMatcher(_)) => PathMatch::Connect,
        Some(Kind::PathMatchPolicy(value)) => {
            PathMatch::Template(cx.within("path_match_policy.typed_config", |cx| template(cx, value))?)
        }
        None => {
            cx.error("path_specifier", "it must be set");
            return None;
        }
    })
}

pub(crate) fn template(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<PathTemplate> {
    let any = value.typed_config.unwrap_or_default();
    if type_name(&any) != "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig" {
        cx.error("", format_args!("the path matcher {:?} is not supported", type_name(&any)));
        return None;
    }
    let config: UriTemplateMatchConfig = cx.unpack(&any)?;
    cx.ok("path_template", PathTemplate::new(&config.path_template))
}

fn cookie(cx: &mut Cx<'_>, value: pb::route::CookieMatcher) -> Option<CookieMatcher> {
    let pb::route::CookieMatcher { name, string_match, invert_match } = value;
    let value = cx.required("string_match", string_match, matchers::string)?;
    Some(CookieMatcher { name: name.into(), value, invert: invert_match })
}

fn filter_state(cx: &mut Cx<'_>, value: pb::matcher::FilterStateMatcher) -> Option<FilterStateMatcher> {
    use pb::matcher::filter_state_matcher::Matcher;
    let pb::matcher::FilterStateMatcher { key, matcher } = value;
    let value = match matcher {
        Some(Matcher::StringMatch(value)) => {
            FilterStateMatch::String(cx.within("string_match", |cx| matchers::string(cx, value))?)
        }
        Some(Matcher::AddressMatch(value)) => {
            let AddressMatch { ranges, invert } =
                cx.within("address_match", |cx| address::matcher(cx, value));
            FilterStateMatch::Address(ranges, invert)
        }
        None => {
            cx.error("matcher", "it must be set");
            return None;
        }
    };
    Some(FilterStateMatcher { key: key.into(), value })
}
