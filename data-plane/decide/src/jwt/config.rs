//! The filter's configuration: providers, requirements, and which requests have which.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Jwks;
use crate::head::{HeaderKey, RequestHead};
use crate::matcher::StringMatcher;
use crate::route::{RouteContext, RouteMatch};

/// A provider's place in [`JwtAuthn::providers`].
pub type ProviderId = usize;

/// `JwtAuthentication`
#[derive(Debug)]
pub struct JwtAuthn {
    /// Who issues tokens.
    pub providers: Box<[Provider]>,
    /// Which requests must bring what; the first match decides.
    pub rules: Box<[Rule]>,
    /// Requirements by name, for routes that name one.
    pub requirement_map: Box<[(Arc<str>, Arc<Requirement>)]>,
    /// For requests that no rule takes: requirements by a value in filter state.
    pub filter_state_rules: Option<FilterStateRule>,
    /// Whether CORS preflights pass without a token.
    pub bypass_cors_preflight: bool,
    /// Whether clients are not told why.
    pub strip_failure_response: bool,
    /// Stands in the statistics' names.
    pub stat_prefix: Arc<str>,
}

/// `JwtProvider`
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// What `iss` must be; empty: anything.
    pub issuer: Box<str>,
    /// One of these must be in `aud`, if there are any; in their plain form (see [`plain_audience`]).
    pub audiences: Box<[Box<str>]>,
    /// What `sub` must be.
    pub subjects: Option<StringMatcher>,
    /// Whether `exp` must be there.
    pub require_expiration: bool,
    /// How far ahead `exp` may lie.
    pub max_lifetime: Option<Duration>,
    /// Where its keys are.
    pub jwks: JwksSource,
    /// Whether the token goes on to the upstream.
    pub forward: bool,
    /// Headers that may hold the token.
    pub from_headers: Box<[TokenHeader]>,
    /// Query parameters that may hold it.
    pub from_params: Box<[Box<str>]>,
    /// Cookies that may hold it.
    pub from_cookies: Box<[Box<str>]>,
    /// The header in which the payload goes on.
    pub forward_payload_header: Option<HeaderName>,
    /// Whether that header is padded.
    pub pad_forward_payload_header: bool,
    /// The metadata key of the payload; empty for none.
    pub payload_in_metadata: Box<str>,
    /// Claims that are lists written with spaces.
    pub space_delimited_claims: Box<[Box<str>]>,
    /// The metadata key of the token's header; empty for none.
    pub header_in_metadata: Box<str>,
    /// The metadata key of a failure; empty for none.
    pub failed_status_in_metadata: Box<str>,
    /// By how many seconds clocks may differ.
    pub clock_skew_seconds: u64,
    /// Whether verified tokens are kept (statistics count it).
    pub cached: bool,
    /// Claims that become headers.
    pub claim_to_headers: Box<[ClaimToHeader]>,
    /// Whether the route is looked up again after a token was accepted.
    pub clear_route_cache: bool,
}

/// Where keys are.
#[derive(Clone, Debug)]
pub enum JwksSource {
    /// Here; `None` if they could not be read, so that no token is believed.
    Local(Option<Arc<Jwks>>),
    /// To be fetched.
    Remote(Arc<RemoteJwks>),
}

/// `RemoteJwks`
#[derive(Debug)]
pub struct RemoteJwks {
    /// Whether its URI says `https`.
    pub https: bool,
    /// `:authority` of what is asked for.
    pub authority: http::uri::Authority,
    /// Its path.
    pub path: http::uri::PathAndQuery,
    /// The cluster that is asked.
    pub cluster: Arc<str>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long keys are good for.
    pub cache_duration: Duration,
    /// Keys are fetched ahead of need: how long to wait after a failure.
    pub async_fetch: Option<Duration>,
    /// How often a failed fetch is tried again.
    pub retries: u32,
}

/// `JwtHeader`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHeader {
    /// The header.
    pub name: HeaderKey,
    /// What stands before the token; empty if nothing does.
    pub prefix: Box<str>,
}

/// `JwtClaimToHeader`
#[derive(Clone, Debug)]
pub struct ClaimToHeader {
    /// The header.
    pub header: HeaderName,
    /// The claim, and what lies inside of it.
    pub path: Box<[Box<str>]>,
}

/// `RequirementRule`
#[derive(Debug)]
pub struct Rule {
    /// Which requests it takes.
    pub matching: RouteMatch,
    /// What they must bring; `None`: nothing.
    pub requirement: Option<Arc<Requirement>>,
}

/// `FilterStateRule`
#[derive(Debug)]
pub struct FilterStateRule {
    /// The filter state object.
    pub name: Box<str>,
    /// Requirements by its value.
    pub requires: Box<[(Box<str>, Arc<Requirement>)]>,
}

/// `JwtRequirement`
#[derive(Debug)]
pub enum Requirement {
    /// A token of this provider.
    Provider {
        /// The provider.
        provider: ProviderId,
        /// In place of the provider's audiences.
        audiences: Option<Box<[Box<str>]>>,
    },
    /// One of these.
    Any(Box<[Requirement]>),
    /// All of these.
    All(Box<[Requirement]>),
    /// No token, or good ones, in the places where these providers have theirs.
    AllowMissing(Box<[ProviderId]>),
    /// Anything; good tokens have their effects.
    AllowMissingOrFailed(Box<[ProviderId]>),
    /// Anything; good tokens have their effects, and a header says "false" where one was not.
    ExtractOnly {
        /// In whose places tokens are looked for.
        providers: Box<[ProviderId]>,
        /// The header.
        status: HeaderName,
    },
}

impl JwtAuthn {
    /// What the request must bring, where its route does not say; `None`: nothing.
    pub fn requirement<'a>(
        &self,
        head: &RequestHead<'_>,
        context: &RouteContext<'_>,
        filter_state: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Option<&Arc<Requirement>> {
        let path = head.path_only();
        if let Some(rule) = self.rules.iter().find(|rule| rule.matching.is_match(head, path, context)) {
            return rule.requirement.as_ref();
        }
        let rules = self.filter_state_rules.as_ref()?;
        let value = filter_state(&rules.name)?;
        rules.requires.iter().find(|(name, _)| **name == *value).map(|(_, requirement)| requirement)
    }

    /// A requirement by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Requirement>> {
        self.requirement_map.iter().find(|(known, _)| **known == *name).map(|(_, requirement)| requirement)
    }
}

impl Provider {
    /// Whether it issues tokens with this `iss`.
    pub(super) fn issues(&self, issuer: &str) -> bool {
        self.issuer.is_empty() || *self.issuer == *issuer
    }
}

/// An audience without its scheme and trailing slash, which Envoy does not tell apart.
pub fn plain_audience(audience: &str) -> &str {
    let bare = ["https://", "http://"].into_iter().find_map(|scheme| audience.strip_prefix(scheme));
    let bare = bare.unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

impl Requirement {
    /// The providers that it speaks of.
    pub fn providers(&self, found: &mut Vec<ProviderId>) {
        match self {
            Self::Provider { provider, .. } => found.push(*provider),
            Self::Any(all) | Self::All(all) => all.iter().for_each(|one| one.providers(found)),
            Self::AllowMissing(providers)
            | Self::AllowMissingOrFailed(providers)
            | Self::ExtractOnly { providers, .. } => found.extend(&**providers),
        }
    }
}
