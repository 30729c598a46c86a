//! One value of an attribute as an RBAC principal or permission: exact, `prefix*`, `*suffix` or `*`.

use xds_api::envoy::config::rbac::v3 as rbac;
use xds_api::envoy::config::rbac::v3::permission::Rule as PermissionRule;
use xds_api::envoy::config::rbac::v3::principal::Identifier;
use xds_api::envoy::config::route::v3 as route;
use xds_api::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds_api::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use xds_api::envoy::r#type::matcher::v3 as matcher;
use xds_api::envoy::r#type::matcher::v3::StringMatcher;

use super::rule::{Context, and_ids, permission as permitted, principal};
use crate::pb;

const JWT: &str = "envoy.filters.http.jwt_authn";

/// The principals of which one is meant by a value: several where the trust domain has aliases.
pub(super) fn principals(context: &Context<'_>, key: &str, value: &str) -> Vec<rbac::Principal> {
    let address = |make: fn(_) -> Identifier| pb::parse_net(value).map(|net| principal(make(pb::cidr(net))));
    let one = match key {
        "source.principal" => {
            return expanded(value, context.trust_domains).iter().map(|v| authenticated(spiffe(v))).collect();
        }
        "source.namespace" => Some(authenticated(pb::safe_regex(&format!(".*/ns/{}/.*", glob(value))))),
        "source.serviceAccount" => {
            let (namespace, name) = value.split_once('/').unwrap_or((context.namespace, value));
            let expression = format!("spiffe://.+/ns/{}/sa/{}", glob(namespace), glob(name));
            Some(authenticated(pb::safe_regex(&expression)))
        }
        "source.trustDomain" => Some(authenticated(pb::safe_regex(&format!("spiffe://{}/.*", glob(value))))),
        "source.ip" => address(Identifier::DirectRemoteIp),
        "remote.ip" => address(Identifier::RemoteIp),
        "request.auth.principal" => Some(request_principal(value)),
        "request.auth.audiences" => Some(claim(&["aud"], value)),
        "request.auth.presenter" => Some(claim(&["azp"], value)),
        key => {
            if let Some(name) = bracketed(key, "request.headers") {
                Some(principal(Identifier::Header(header(name.first().copied().unwrap_or_default(), value))))
            } else {
                bracketed(key, "request.auth.claims").map(|path| claim(&path, value))
            }
        }
    };
    one.into_iter().collect()
}

/// The permission that a value means.
pub(super) fn permission(key: &str, value: &str) -> Option<rbac::Permission> {
    Some(permitted(match key {
        "hosts" => {
            let mut matcher = header(":authority", value);
            if let Some(HeaderMatchSpecifier::StringMatch(text)) = &mut matcher.header_match_specifier {
                text.ignore_case = true;
            }
            PermissionRule::Header(matcher)
        }
        "methods" => PermissionRule::Header(header(":method", value)),
        "paths" if value.contains('{') => {
            let config = UriTemplateMatchConfig { path_template: template(value) };
            PermissionRule::UriTemplate(pb::extension("uri-template", &config))
        }
        "paths" => {
            let rule = matcher::path_matcher::Rule::Path(string(value));
            PermissionRule::UrlPath(matcher::PathMatcher { rule: Some(rule) })
        }
        "destination.port" => PermissionRule::DestinationPort(value.parse().ok()?),
        "destination.ip" => PermissionRule::DestinationIp(pb::cidr(pb::parse_net(value)?)),
        "connection.sni" => PermissionRule::RequestedServerName(string(value)),
        key => {
            let (filter, rest) = key.strip_prefix("experimental.")?.split_once('[')?;
            PermissionRule::SourcedMetadata(metadata(
                filter,
                &[rest.trim_end_matches(']')],
                text_or_list(value),
            ))
        }
    }))
}

/// `{*}` and `{**}` as Envoy's URI templates write them.
fn template(value: &str) -> String {
    value.replace("{**}", "**").replace("{*}", "*")
}

/// The names in `prefix[a][b]`.
fn bracketed<'a>(key: &'a str, prefix: &str) -> Option<Vec<&'a str>> {
    let rest = key.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?;
    Some(rest.split("][").collect())
}

fn string(value: &str) -> StringMatcher {
    if value == "*" {
        return pb::safe_regex(".+");
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return pb::suffix(suffix);
    }
    match value.strip_suffix('*') {
        Some(prefix) => pb::prefix(prefix),
        None => pb::exact(value),
    }
}

/// A part of a SPIFFE id, with `*` at either end.
fn glob(value: &str) -> String {
    if value == "*" {
        return "[^/]+".to_owned();
    }
    let (head, rest) = value.strip_prefix('*').map_or(("", value), |rest| (".*", rest));
    let (rest, tail) = rest.strip_suffix('*').map_or((rest, ""), |rest| (rest, ".*"));
    format!("{head}{}{tail}", regex::escape(rest))
}

fn header(name: &str, value: &str) -> route::HeaderMatcher {
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(string(value))
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

fn authenticated(name: StringMatcher) -> rbac::Principal {
    principal(Identifier::Authenticated(rbac::principal::Authenticated { principal_name: Some(name) }))
}

/// `cluster.local/ns/a/sa/b` as it stands in a certificate.
fn spiffe(value: &str) -> StringMatcher {
    if value == "*" {
        return pb::safe_regex(".+");
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return pb::safe_regex(&format!("spiffe://.*{}", regex::escape(suffix)));
    }
    match value.strip_suffix('*') {
        Some(prefix) => pb::prefix(&format!("spiffe://{prefix}")),
        None => pb::exact(&format!("spiffe://{value}")),
    }
}

/// A principal of the mesh's trust domain, in that and each alias.
fn expanded(value: &str, trust_domains: &[String]) -> Vec<String> {
    let Some((domain, rest)) = value.split_once('/') else { return vec![value.to_owned()] };
    let own = domain == "cluster.local" || trust_domains.iter().any(|known| known == domain);
    if !own {
        return vec![value.to_owned()];
    }
    trust_domains.iter().map(|domain| format!("{domain}/{rest}")).collect()
}

/// `issuer/subject` of a request's token.
fn request_principal(value: &str) -> rbac::Principal {
    let part = |name: &str, value: &str| {
        let matcher = matcher::value_matcher::MatchPattern::StringMatch(string(value));
        principal(Identifier::SourcedMetadata(metadata(JWT, &["payload", name], of_pattern(matcher))))
    };
    if value == "*" {
        return and_ids(vec![part("iss", "*"), part("sub", "*")]);
    }
    match value.rsplit_once('/') {
        Some((issuer, subject)) => and_ids(vec![part("iss", issuer), part("sub", subject)]),
        // Without a slash a wildcard stands for the other half.
        None if value.starts_with('*') => and_ids(vec![part("iss", "*"), part("sub", value)]),
        None => and_ids(vec![part("iss", value), part("sub", "*")]),
    }
}

fn claim(path: &[&str], value: &str) -> rbac::Principal {
    let path: Vec<&str> = ["payload"].into_iter().chain(path.iter().copied()).collect();
    principal(Identifier::SourcedMetadata(metadata(JWT, &path, text_or_list(value))))
}

fn of_pattern(pattern: matcher::value_matcher::MatchPattern) -> matcher::ValueMatcher {
    matcher::ValueMatcher { match_pattern: Some(pattern) }
}

/// A text that matches, or a list with one that does.
fn text_or_list(value: &str) -> matcher::ValueMatcher {
    use matcher::value_matcher::MatchPattern;
    let text = || of_pattern(MatchPattern::StringMatch(string(value)));
    let one_of = matcher::list_matcher::MatchPattern::OneOf(Box::new(text()));
    let list =
        of_pattern(MatchPattern::ListMatch(Box::new(matcher::ListMatcher { match_pattern: Some(one_of) })));
    of_pattern(MatchPattern::OrMatch(matcher::OrMatcher { value_matchers: vec![text(), list] }))
}

fn metadata(filter: &str, path: &[&str], value: matcher::ValueMatcher) -> rbac::SourcedMetadata {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    let path = path.iter().map(|key| PathSegment { segment: Some(Segment::Key((*key).to_owned())) });
    let matcher = matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: path.collect(),
        value: Some(value),
        ..Default::default()
    };
    rbac::SourcedMetadata {
        metadata_matcher: Some(matcher),
        metadata_source: rbac::MetadataSource::Dynamic as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_expanded_to_aliases() {
        let domains = ["new".to_owned(), "old".to_owned()];
        assert_eq!(expanded("cluster.local/ns/a/sa/b", &domains), ["new/ns/a/sa/b", "old/ns/a/sa/b"]);
        assert_eq!(expanded("other/ns/a/sa/b", &domains), ["other/ns/a/sa/b"]);
    }

    #[test]
    fn namespaces_are_matched_as_a_whole() {
        assert_eq!(glob("a.b"), "a\\.b");
        assert_eq!(glob("a*"), "a.*");
        assert_eq!(bracketed("request.auth.claims[a][b]", "request.auth.claims"), Some(vec!["a", "b"]));
    }
}
