//! Where the keys of tokens' issuers come from.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::request_authentication::JwtRule;

/// JSON Web Key sets that were fetched, by their source.
pub type Jwks = BTreeMap<JwksSource, String>;

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwksSource {
    /// At this URI.
    Uri(String),
    /// Where the issuer's OpenID configuration says.
    Issuer(String),
}

impl JwksSource {
    /// The source of a rule's keys; nothing if the rule holds them.
    pub fn of(rule: &JwtRule) -> Option<Self> {
        if !rule.jwks.is_empty() {
            return None;
        }
        Some(if rule.jwks_uri.is_empty() {
            Self::Issuer(rule.issuer.clone())
        } else {
            Self::Uri(rule.jwks_uri.clone())
        })
    }

    /// What is asked first.
    pub fn url(&self) -> String {
        match self {
            Self::Uri(uri) => uri.clone(),
            Self::Issuer(issuer) => {
                format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
            }
        }
    }
}

impl super::Mesh {
    /// Every source that a RequestAuthentication names.
    pub fn jwks_sources(&self) -> BTreeSet<JwksSource> {
        let policies = self.config().request_authentications.all().iter();
        policies.flat_map(|policy| &policy.spec.jwt_rules).filter_map(JwksSource::of).collect()
    }
}
