//! RequestAuthentication as the `jwt_authn` filter.

use mesh_api::request_authentication::{JwtPresence, JwtRule};
use saild_model::mesh::{Attachment, JwksSource};
use saild_model::{Mesh, ProxyType, ProxyView};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::route::v3 as route;
use xds_api::envoy::extensions::filters::http::jwt_authn::v3 as jwt;

use crate::warning::Warning;

/// The rules for a workload, with the keys of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwtInputs {
    /// Each issuer's rule and the JSON Web Key set that its tokens are checked with.
    pub rules: Vec<(JwtRule, String)>,
    /// A gateway routes by claims: the route is chosen again once they are known.
    pub clear_route_cache: bool,
}

/// The rules that apply to a workload; nothing if there are none.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView) -> Option<JwtInputs> {
    let policies = &mesh.config().request_authentications;
    let root = mesh.root_namespace();
    let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
    let mut rules = Vec::new();
    for namespace in [root].into_iter().chain(own) {
        for object in policies.in_namespace(namespace) {
            if Attachment::from(&object.spec).is_for(namespace, proxy) {
                rules.extend(object.spec.jwt_rules.iter().map(|rule| (rule.clone(), keys(mesh, rule))));
            }
        }
    }
    // The order of providers is part of their names.
    rules.sort_by(|(a, _), (b, _)| a.issuer.cmp(&b.issuer));
    let clear_route_cache = proxy.kind == ProxyType::Router;
    (!rules.is_empty()).then_some(JwtInputs { rules, clear_route_cache })
}

/// Rules for a proxy whose keys are not known.
pub(crate) fn problems(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let mut out = Vec::new();
    for object in mesh.config().request_authentications.all() {
        let namespace = object.meta.namespace.as_str();
        if namespace != proxy.namespace && namespace != mesh.root_namespace() {
            continue;
        }
        if !Attachment::from(&object.spec).is_for(namespace, proxy) {
            continue;
        }
        for (index, rule) in object.spec.jwt_rules.iter().enumerate() {
            if let Some(source) = JwksSource::of(rule).filter(|source| mesh.jwks(source).is_none()) {
                let message = format!(
                    "jwtRules[{index}]: the keys of issuer {:?} could not be fetched from {} (yet): its tokens are refused",
                    rule.issuer,
                    source.url()
                );
                out.push(Warning::of("RequestAuthentication", &object.meta, message));
            }
        }
    }
    out
}

/// The key set: inline, or as fetched. Where it is not known, one that no token was signed with: tokens are refused, not
/// believed.
fn keys(mesh: &Mesh, rule: &JwtRule) -> String {
    let Some(source) = JwksSource::of(rule) else { return rule.jwks.clone() };
    mesh.jwks(&source).unwrap_or(NOBODYS_KEYS).to_owned()
}

/// A key that nobody has the other half of: its x is the SHA-256 of "ironsail: nobody's key 0", and its y the even one.
/// (Istio's stand-in, an RSA modulus that spells an error, is not accepted by every Envoy.)
const NOBODYS_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"unknown","x":"dWbrNbbKpZ5JI8Cx5sPnkwaa74V1Ub4vSddMA142NI0","y":"2AyNW7iwwRl3wWvVyPFYW9EfkvKd9MwXMiBy0GVgLio"}]}"#;

/// The filter of these rules.
pub(crate) fn filter(inputs: &JwtInputs) -> jwt::JwtAuthentication {
    let name = |index: usize| format!("origins-{index}");
    let requirements: Vec<jwt::JwtRequirement> = inputs
        .rules
        .iter()
        .enumerate()
        .map(|(index, (rule, _))| {
            let provider = requires(jwt::jwt_requirement::RequiresType::ProviderName(name(index)));
            if rule.presence == JwtPresence::Required {
                provider
            } else {
                any(vec![
                    provider,
                    requires(jwt::jwt_requirement::RequiresType::AllowMissing(Default::default())),
                ])
            }
        })
        .collect();
    let requirement = match <[jwt::JwtRequirement; 1]>::try_from(requirements) {
        Ok([one]) => one,
        Err(_) => all_issuers(inputs, name),
    };
    jwt::JwtAuthentication {
        providers: inputs
            .rules
            .iter()
            .enumerate()
            .map(|(index, (rule, keys))| (name(index), provider(rule, keys, inputs.clear_route_cache)))
            .collect(),
        rules: vec![jwt::RequirementRule {
            r#match: Some(route::RouteMatch {
                path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
                ..Default::default()
            }),
            requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(requirement)),
        }],
        bypass_cors_preflight: true,
        ..Default::default()
    }
}

/// A token of any of the issuers passes; none passes too, unless one is required; a bad one never does.
fn all_issuers(inputs: &JwtInputs, name: impl Fn(usize) -> String) -> jwt::JwtRequirement {
    use jwt::jwt_requirement::RequiresType;
    let providers = (0..inputs.rules.len()).map(|index| requires(RequiresType::ProviderName(name(index))));
    let missing = requires(RequiresType::AllowMissing(Default::default()));
    let optional = inputs.rules.iter().all(|(rule, _)| rule.presence != JwtPresence::Required);
    any(providers.chain(optional.then_some(missing)).collect())
}

fn requires(requirement: jwt::jwt_requirement::RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement { requires_type: Some(requirement) }
}

fn any(requirements: Vec<jwt::JwtRequirement>) -> jwt::JwtRequirement {
    requires(jwt::jwt_requirement::RequiresType::RequiresAny(jwt::JwtRequirementOrList { requirements }))
}

fn provider(rule: &JwtRule, keys: &str, clear_route_cache: bool) -> jwt::JwtProvider {
    let specifier = core::data_source::Specifier::InlineString(keys.to_owned());
    let source = core::DataSource { specifier: Some(specifier), ..Default::default() };
    let mut space_delimited = vec!["scope".to_owned(), "permission".to_owned()];
    for claim in &rule.space_delimited_claims {
        if !space_delimited.contains(claim) {
            space_delimited.push(claim.clone());
        }
    }
    jwt::JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: "payload".to_owned(),
        normalize_payload_in_metadata: Some(jwt::jwt_provider::NormalizePayload {
            space_delimited_claims: space_delimited,
        }),
        from_headers: rule
            .from_headers
            .iter()
            .map(|header| jwt::JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() })
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        claim_to_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|copy| jwt::JwtClaimToHeader {
                header_name: copy.header.clone(),
                claim_name: copy.claim.clone(),
                ..Default::default()
            })
            .collect(),
        clear_route_cache,
        jwks_source_specifier: Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(source)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_be_missing_but_not_wrong() {
        let rule = JwtRule { issuer: "a".to_owned(), ..JwtRule::default() };
        let inputs = JwtInputs { rules: vec![(rule, "{}".to_owned())], clear_route_cache: false };
        let filter = filter(&inputs);
        assert!(filter.providers.contains_key("origins-0"));
        assert!(filter.bypass_cors_preflight);
    }
}
