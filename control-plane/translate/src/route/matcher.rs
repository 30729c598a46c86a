//! Conditions on requests.

use std::collections::BTreeMap;

use mesh_api::StringMatch;
use mesh_api::virtual_service::HttpMatch;
use xds_api::envoy::config::route::v3 as rds;
use xds_api::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds_api::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use xds_api::envoy::config::route::v3::route_match::PathSpecifier;
use xds_api::envoy::r#type::matcher::v3 as matcher;

use crate::pb;

/// The prefix of header names that mean claims of a token.
const CLAIMS: &str = "@request.auth.claims";

/// Every request.
pub(super) fn everything() -> rds::RouteMatch {
    rds::RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// The requests that a match is for.
pub(super) fn route_match(inputs: Option<&HttpMatch>) -> rds::RouteMatch {
    let Some(inputs) = inputs else { return everything() };
    let mut out = everything();
    if let Some(uri) = &inputs.uri {
        out.path_specifier = Some(match uri {
            StringMatch::Present => PathSpecifier::Prefix("/".to_owned()),
            StringMatch::Exact(path) => PathSpecifier::Path(path.clone()),
            StringMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
            StringMatch::Regex(regex) => PathSpecifier::SafeRegex(pb::regex(regex)),
        });
    }
    if inputs.ignore_uri_case {
        out.case_sensitive = pb::boolv(false);
    }
    let pseudo =
        [(":method", &inputs.method), (":authority", &inputs.authority), (":scheme", &inputs.scheme)];
    for (name, value) in pseudo {
        out.headers.extend(value.as_ref().map(|value| header(name, value)));
    }
    for (name, value) in &inputs.headers {
        match name.strip_prefix(CLAIMS) {
            Some(path) => out.dynamic_metadata.push(claim(path, value, false)),
            None => out.headers.push(header(name, value)),
        }
    }
    without_headers(&inputs.without_headers, &mut out);
    for (name, value) in &inputs.query_params {
        let specifier = match string(value) {
            Some(text) => QueryParameterMatchSpecifier::StringMatch(text),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        };
        out.query_parameters.push(rds::QueryParameterMatcher {
            name: name.clone(),
            query_parameter_match_specifier: Some(specifier),
        });
    }
    out
}

fn without_headers(headers: &BTreeMap<String, StringMatch>, out: &mut rds::RouteMatch) {
    for (name, value) in headers {
        if let Some(path) = name.strip_prefix(CLAIMS) {
            out.dynamic_metadata.push(claim(path, value, true));
            continue;
        }
        let mut matcher = header(name, value);
        matcher.invert_match = true;
        // A header that is not there has no value that could be the unwanted one.
        matcher.treat_missing_header_as_empty = *value != StringMatch::Present;
        out.headers.push(matcher);
    }
}

fn header(name: &str, value: &StringMatch) -> rds::HeaderMatcher {
    let specifier = match string(value) {
        Some(text) => HeaderMatchSpecifier::StringMatch(text),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    rds::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

/// A matcher of text; nothing where presence is enough.
pub(super) fn string(value: &StringMatch) -> Option<matcher::StringMatcher> {
    match value {
        StringMatch::Present => None,
        StringMatch::Exact(text) => Some(pb::exact(text)),
        StringMatch::Prefix(text) => Some(pb::prefix(text)),
        StringMatch::Regex(expression) => Some(pb::safe_regex(expression)),
    }
}

/// `.group` or `[group][sub]` of a token's claims, which may be a text or a list.
fn claim(path: &str, value: &StringMatch, invert: bool) -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    use matcher::value_matcher::MatchPattern;
    let names: Vec<&str> = match path.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => path.trim_start_matches('[').trim_end_matches(']').split("][").collect(),
    };
    let segments = ["payload"].into_iter().chain(names);
    let of = |pattern| matcher::ValueMatcher { match_pattern: Some(pattern) };
    let pattern = match string(value) {
        None => MatchPattern::PresentMatch(true),
        Some(text) => {
            let one_of = matcher::list_matcher::MatchPattern::OneOf(Box::new(of(MatchPattern::StringMatch(
                text.clone(),
            ))));
            let list = matcher::ListMatcher { match_pattern: Some(one_of) };
            MatchPattern::OrMatch(matcher::OrMatcher {
                value_matchers: vec![
                    of(MatchPattern::StringMatch(text)),
                    of(MatchPattern::ListMatch(Box::new(list))),
                ],
            })
        }
    };
    matcher::MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path: segments.map(|name| PathSegment { segment: Some(Segment::Key(name.to_owned())) }).collect(),
        value: Some(of(pattern)),
        invert,
    }
}
