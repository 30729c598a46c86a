//! `RequestAuthentication`: which JSON Web Tokens a workload accepts.

use std::time::Duration;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// `security.istio.io/RequestAuthentication`.
    pub struct RequestAuthentication {
        selector: Option<WorkloadSelector>,
        /// Deprecated: `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// One issuer and where its tokens are found.
    pub struct JwtRule {
        issuer: String,
        audiences: Vec<String>,
        jwks_uri: String,
        jwks: String,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<String>,
        from_cookies: Vec<String>,
        output_payload_to_header: String,
        forward_original_token: bool,
        output_claim_to_headers: Vec<ClaimToHeader>,
        /// Absent: 5s.
        timeout: Option<Duration>,
        space_delimited_claims: Vec<String>,
        presence: JwtPresence,
    }
}

message! {
    /// A header that holds a token.
    pub struct JwtHeader {
        name: String,
        prefix: String,
    }
}

message! {
    /// A claim copied to a header.
    pub struct ClaimToHeader {
        header: String,
        claim: String,
    }
}

enumeration! {
    /// Whether a request without a token passes.
    pub enum JwtPresence {
        #[default]
        Optional = "OPTIONAL" = 0,
        Required = "REQUIRED" = 1,
    }
}

impl Spec for RequestAuthentication {
    const KIND: Kind = Kind::RequestAuthentication;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        check::selector("selector", self.selector.as_ref(), cx);
        check::targets(self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs, cx);
        cx.each("jwtRules", &self.jwt_rules, jwt_rule);
    }
}

fn jwt_rule(cx: &mut Cx, rule: &JwtRule) {
    if rule.issuer.is_empty() {
        cx.error_at("issuer", "must be set");
    }
    if rule.audiences.iter().any(String::is_empty) {
        cx.error_at("audiences", "must not hold an empty name");
    }
    if !rule.jwks.is_empty() && !rule.jwks_uri.is_empty() {
        cx.error("only one of jwks and jwksUri may be set");
    }
    if !rule.jwks_uri.is_empty() {
        let fits = url::Url::parse(&rule.jwks_uri)
            .is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        if !fits {
            cx.error_at("jwksUri", format!("{:?} is not an http or https URL", rule.jwks_uri));
        }
    }
    if !rule.jwks.is_empty() {
        let keys = serde_json::from_str::<serde_json::Value>(&rule.jwks).ok();
        if !keys.is_some_and(|set| set.get("keys").is_some_and(serde_json::Value::is_array)) {
            cx.error_at("jwks", "is not a JSON Web Key set ({\"keys\": […]})");
        }
    }
    cx.each("fromHeaders", &rule.from_headers, |cx, header| {
        cx.field("name", |cx| check::header_name(&header.name, cx))
    });
    for (field, list) in [("fromParams", &rule.from_params), ("fromCookies", &rule.from_cookies)] {
        cx.each(field, list, |cx, name| {
            if name.is_empty() {
                cx.error("must not be empty");
            }
        });
    }
    cx.each("outputClaimToHeaders", &rule.output_claim_to_headers, |cx, copy| {
        cx.field("header", |cx| check::header_name(&copy.header, cx));
        if copy.claim.is_empty() {
            cx.error_at("claim", "must be set");
        }
    });
    check::positive("timeout", rule.timeout, cx);
}
