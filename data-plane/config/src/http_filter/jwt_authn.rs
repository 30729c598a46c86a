//! `jwt_authn`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::jwt::{
    ClaimToHeader, FilterStateRule, Jwks, JwksSource, JwtAuthn, Provider, ProviderId, RemoteJwks,
    Requirement, Rule, TokenHeader, plain_audience,
};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, matchers, values};
use crate::pb::filters::http::jwt_authn::v3 as proto;
use crate::{callout, pb, route};

/// What says that a token was not verified, where the configuration names nothing else.
const VERIFICATION_STATUS: &str = "x-jwt-signature-verified";

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        Some(HttpFilterKind::JwtAuthn(Arc::new(read(cx, value))))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        convert: read_per_route,
    }),
};

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::per_route_config::RequirementSpecifier;
    let proto::PerRouteConfig { requirement_specifier } = cx.unpack(any)?;
    match requirement_specifier {
        Some(RequirementSpecifier::RequirementName(name)) => {
            Some(PerFilterConfig::JwtRequirement(Some(arc(name))))
        }
        Some(RequirementSpecifier::Disabled(_)) | None => Some(PerFilterConfig::JwtRequirement(None)),
    }
}

fn read(cx: &mut Cx<'_>, value: proto::JwtAuthentication) -> JwtAuthn {
    let proto::JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = value;
    let named = sorted(providers);
    let names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
    let each = named.into_iter().filter_map(|(name, value)| {
        cx.within(format_args!("providers[{name}]"), |cx| provider(cx, &name, value))
    });
    let providers: Box<[Provider]> = each.collect();
    let map = sorted(requirement_map).into_iter().filter_map(|(name, value)| {
        let found =
            cx.within(format_args!("requirement_map[{name}]"), |cx| requirement(cx, &names, value))?;
        Some((arc(name), Arc::new(found)))
    });
    let requirement_map: Box<[_]> = map.collect();
    JwtAuthn {
        providers,
        rules: cx.each("rules", rules, |cx, value| rule(cx, &names, &requirement_map, value)).into(),
        filter_state_rules: cx.option("filter_state_rules", filter_state_rules, |cx, value| {
            let proto::FilterStateRule { name, requires } = value;
            let each = sorted(requires).into_iter().filter_map(|(key, value)| {
                let field = format!("requires[{key}]");
                let found = cx.within(field, |cx| requirement(cx, &names, value))?;
                Some((Box::from(key), Arc::new(found)))
            });
            Some(FilterStateRule { requires: each.collect(), name: name.into() })
        }),
        requirement_map,
        bypass_cors_preflight,
        strip_failure_response,
        stat_prefix: arc(stat_prefix),
    }
}

/// Maps have no order in protobuf; here they have one.
fn sorted<T>(map: HashMap<String, T>) -> Vec<(String, T)> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    entries
}

fn rule(
    cx: &mut Cx<'_>,
    names: &[String],
    map: &[(Arc<str>, Arc<Requirement>)],
    value: proto::RequirementRule,
) -> Option<Rule> {
    use proto::requirement_rule::RequirementType;
    let proto::RequirementRule { r#match, requirement_type } = value;
    let requirement = match requirement_type {
        None => None,
        Some(RequirementType::Requires(value)) => {
            let found = cx.within("requires", |cx| requirement(cx, names, value))?;
            // A requirement that says nothing asks for nothing.
            Some(Arc::new(found))
        }
        Some(RequirementType::RequirementName(name)) => {
            let found = map.iter().find(|(known, _)| **known == *name);
            if found.is_none() {
                cx.error("requirement_name", format_args!("requirement_map has no {name:?}"));
            }
            Some(found?.1.clone())
        }
    };
    let matching = cx.required("match", r#match, route::matching::route_match)?;
    Some(Rule { matching, requirement })
}

fn requirement(cx: &mut Cx<'_>, names: &[String], value: proto::JwtRequirement) -> Option<Requirement> {
    use proto::jwt_requirement::RequiresType;
    let all = || (0..names.len()).collect();
    match value.requires_type {
        // As in Envoy, a requirement that says nothing asks for nothing.
        None => Some(Requirement::All(Box::default())),
        Some(RequiresType::ProviderName(name)) => {
            let provider = known(cx, names, "provider_name", &name)?;
            Some(Requirement::Provider { provider, audiences: None })
        }
        Some(RequiresType::ProviderAndAudiences(value)) => {
            let proto::ProviderWithAudiences { provider_name, audiences } = value;
            let provider = known(cx, names, "provider_and_audiences.provider_name", &provider_name)?;
            Some(Requirement::Provider { provider, audiences: Some(self::audiences(audiences)) })
        }
        Some(RequiresType::RequiresAny(list)) => any(cx, names, list.requirements),
        Some(RequiresType::RequiresAll(list)) => {
            let each = |cx: &mut Cx<'_>, value| requirement(cx, names, value);
            Some(Requirement::All(cx.each("requires_all.requirements", list.requirements, each).into()))
        }
        Some(RequiresType::AllowMissing(_)) => Some(Requirement::AllowMissing(all())),
        Some(RequiresType::AllowMissingOrFailed(_)) => Some(Requirement::AllowMissingOrFailed(all())),
        Some(RequiresType::ExtractOnlyWithoutValidation(value)) => {
            let proto::ExtractOnlyWithoutValidation { verification_status_header: name } = value;
            let name = if name.is_empty() { VERIFICATION_STATUS } else { &name };
            let status = header(cx, "extract_only_without_validation.verification_status_header", name)?;
            Some(Requirement::ExtractOnly { providers: all(), status })
        }
    }
}

/// Of the list, what lets requests without a token pass comes last, and looks at the others' places alone.
fn any(cx: &mut Cx<'_>, names: &[String], list: Vec<proto::JwtRequirement>) -> Option<Requirement> {
    let each = |cx: &mut Cx<'_>, value| requirement(cx, names, value);
    let all = cx.each("requires_any.requirements", list, each);
    let is_lenient = |one: &Requirement| {
        use Requirement as R;
        matches!(one, R::AllowMissing(_) | R::AllowMissingOrFailed(_) | R::ExtractOnly { .. })
    };
    let (lenient, mut strict): (Vec<_>, Vec<_>) = all.into_iter().partition(is_lenient);
    let mut used = Vec::new();
    strict.iter().for_each(|one| one.providers(&mut used));
    used.sort_unstable();
    used.dedup();
    let used: Box<[ProviderId]> = if used.is_empty() { (0..names.len()).collect() } else { used.into() };
    let status = lenient.iter().find_map(|one| match one {
        Requirement::ExtractOnly { status, .. } => Some(status.clone()),
        _ => None,
    });
    if let Some(status) = status {
        strict.push(Requirement::ExtractOnly { providers: used, status });
    } else if lenient.iter().any(|one| matches!(one, Requirement::AllowMissingOrFailed(_))) {
        strict.push(Requirement::AllowMissingOrFailed(used));
    } else if !lenient.is_empty() {
        strict.push(Requirement::AllowMissing(used));
    }
    Some(Requirement::Any(strict.into()))
}

fn known(cx: &mut Cx<'_>, names: &[String], field: &str, name: &str) -> Option<ProviderId> {
    let found = names.iter().position(|known| known == name);
    if found.is_none() {
        cx.error(field, format_args!("there is no provider {name:?}"));
    }
    found
}

fn audiences(values: Vec<String>) -> Box<[Box<str>]> {
    values.iter().map(|audience| plain_audience(audience).into()).collect()
}

fn provider(cx: &mut Cx<'_>, name: &str, value: proto::JwtProvider) -> Option<Provider> {
    let proto::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = value;
    let defaults = from_headers.is_empty() && from_params.is_empty() && from_cookies.is_empty();
    let mut from_headers = cx.each("from_headers", from_headers, token_header);
    let mut from_params: Vec<Box<str>> = from_params.into_iter().map(Box::from).collect();
    if defaults {
        let name = HeaderKey::Name(http::header::AUTHORIZATION);
        from_headers.push(TokenHeader { name, prefix: "Bearer ".into() });
        from_params.push("access_token".into());
    }
    let normalized = normalize_payload_in_metadata.map(|value| value.space_delimited_claims);
    Some(Provider {
        name: name.into(),
        issuer: issuer.into(),
        audiences: self::audiences(audiences),
        subjects: cx.option("subjects", subjects, matchers::string),
        require_expiration,
        max_lifetime: values::duration(cx, "max_lifetime", max_lifetime),
        jwks: jwks(cx, jwks_source_specifier)?,
        forward,
        from_headers: from_headers.into(),
        from_params: from_params.into(),
        from_cookies: from_cookies.into_iter().map(Box::from).collect(),
        forward_payload_header: match forward_payload_header.as_str() {
            "" => None,
            name => header(cx, "forward_payload_header", name),
        },
        pad_forward_payload_header,
        payload_in_metadata: payload_in_metadata.into(),
        space_delimited_claims: normalized.into_iter().flatten().map(Box::from).collect(),
        header_in_metadata: header_in_metadata.into(),
        failed_status_in_metadata: failed_status_in_metadata.into(),
        clock_skew_seconds: if clock_skew_seconds == 0 { 60 } else { u64::from(clock_skew_seconds) },
        cached: jwt_cache_config.is_some(),
        claim_to_headers: cx.each("claim_to_headers", claim_to_headers, claim_to_header).into(),
        clear_route_cache,
    })
}

fn header(cx: &mut Cx<'_>, field: &str, name: &str) -> Option<HeaderName> {
    cx.ok(field, HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header's name")))
}

fn token_header(cx: &mut Cx<'_>, value: proto::JwtHeader) -> Option<TokenHeader> {
    let proto::JwtHeader { name, value_prefix } = value;
    let key = HeaderKey::parse(&name).map_err(|_| format!("{name:?} is not a header's name"));
    Some(TokenHeader { name: cx.ok("name", key)?, prefix: value_prefix.into() })
}

fn claim_to_header(cx: &mut Cx<'_>, value: proto::JwtClaimToHeader) -> Option<ClaimToHeader> {
    let proto::JwtClaimToHeader { header_name, claim_name, claim_path } = value;
    let path: Box<[Box<str>]> = if claim_path.is_empty() {
        claim_name.split('.').map(Box::from).collect()
    } else {
        claim_path.into_iter().map(|segment| segment.key.into()).collect()
    };
    Some(ClaimToHeader { header: header(cx, "header_name", &header_name)?, path })
}

fn jwks(cx: &mut Cx<'_>, value: Option<proto::jwt_provider::JwksSourceSpecifier>) -> Option<JwksSource> {
    use proto::jwt_provider::JwksSourceSpecifier as Source;
    match value {
        Some(Source::LocalJwks(value)) => cx.within("local_jwks", |cx| {
            let (bytes, _) = values::data(cx, value)?;
            let keys = Jwks::parse(&bytes).map_err(|failure| {
                cx.warn("", format_args!("no token of this provider will be believed: {failure}"));
            });
            Some(JwksSource::Local(keys.ok().map(Arc::new)))
        }),
        Some(Source::RemoteJwks(value)) => {
            let remote = cx.within("remote_jwks", |cx| remote(cx, value))?;
            Some(JwksSource::Remote(Arc::new(remote)))
        }
        None => {
            cx.error("jwks_source_specifier", "it must be set");
            None
        }
    }
}

fn remote(cx: &mut Cx<'_>, value: proto::RemoteJwks) -> Option<RemoteJwks> {
    let proto::RemoteJwks { http_uri, cache_duration, async_fetch, retry_policy } = value;
    let target = cx.required("http_uri", http_uri, callout::http_uri)?;
    let failed_refetch = |cx: &mut Cx<'_>, value: proto::JwksAsyncFetch| {
        // Requests wait for keys that are not there yet: a listener need not.
        let wait = values::duration(cx, "failed_refetch_duration", value.failed_refetch_duration);
        Some(wait.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100)))
    };
    Some(RemoteJwks {
        https: target.https,
        authority: target.authority,
        path: target.path,
        cluster: target.cluster,
        timeout: target.timeout.unwrap_or(Duration::from_secs(5)),
        cache_duration: values::duration(cx, "cache_duration", cache_duration)
            .unwrap_or(Duration::from_secs(600)),
        async_fetch: cx.option("async_fetch", async_fetch, failed_refetch),
        retries: retry_policy.map_or(0, |policy| values::u32_or(policy.num_retries, 1)),
    })
}
