//! The decision on a request: does it bring what it must, and what becomes of the tokens that it brings.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::config::{JwksSource, JwtAuthn, Provider, ProviderId, Requirement, plain_audience};
use super::extract::{self, Found, Place};
use super::{Failure, Jwks, Token};
use crate::head::{HeaderKey, RequestHead};

/// Keys that must be fetched, and tokens that were verified before. The I/O side keeps both.
pub trait Keys {
    /// The keys of a provider whose keys are remote.
    fn remote(&self, provider: ProviderId) -> KeysState;

    /// The token, if these very keys verified it before.
    fn verified(&self, text: &str, jwks: &Arc<Jwks>) -> Option<Arc<Token>>;

    /// Notes a token that these keys verified.
    fn remember(&self, text: &str, jwks: &Arc<Jwks>, token: &Arc<Token>);
}

/// What is known of a provider's remote keys.
#[derive(Clone, Debug)]
pub enum KeysState {
    /// They are here.
    Ready(Arc<Jwks>),
    /// They cannot be had.
    Failed,
    /// They were not asked for yet.
    Unknown,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Verdict {
    /// It passes.
    Pass(Effects),
    /// It does not.
    Deny(Failure, Effects),
    /// The keys of this provider must be fetched; then the request is to be checked again.
    Fetch(ProviderId),
}

/// What becomes of the request.
#[derive(Debug, Default)]
pub struct Effects {
    /// Headers that clients may not set: they go, before others are set.
    pub sanitize: Vec<HeaderName>,
    /// Headers that held tokens: they go.
    pub remove_headers: Vec<HeaderKey>,
    /// Query parameters that held tokens: they go.
    pub remove_params: Vec<Box<str>>,
    /// Headers that are added.
    pub add_headers: Vec<(HeaderName, HeaderValue)>,
    /// Dynamic metadata in the filter's namespace.
    pub metadata: Map<String, Value>,
    /// Whether the route is to be looked up again.
    pub clear_route_cache: bool,
    /// How many tokens of providers with a cache were in it.
    pub cache_hits: u32,
    /// How many were not.
    pub cache_misses: u32,
}

enum Stop {
    Failed(Failure),
    Fetch(ProviderId),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl JwtAuthn {
    /// Checks a request at a moment in seconds since 1970.
    pub fn check(
        &self,
        requirement: &Requirement,
        head: &RequestHead<'_>,
        now: u64,
        keys: &dyn Keys,
    ) -> Verdict {
        let mut check =
            Check { config: self, head, now, keys, effects: Effects::default(), removed: Vec::new() };
        check.sanitize(requirement);
        match check.requirement(requirement) {
            Ok(()) => Verdict::Pass(check.effects),
            Err(Stop::Failed(failure)) => Verdict::Deny(failure, check.effects),
            Err(Stop::Fetch(provider)) => Verdict::Fetch(provider),
        }
    }
}

struct Check<'a> {
    config: &'a JwtAuthn,
    head: &'a RequestHead<'a>,
    now: u64,
    keys: &'a dyn Keys,
    effects: Effects,
    /// Places whose tokens were taken out by an earlier part of the requirement.
    removed: Vec<Place<'a>>,
}

impl<'a> Check<'a> {
    /// What providers tell upstreams in headers, clients must not.
    fn sanitize(&mut self, requirement: &Requirement) {
        let mut providers = Vec::new();
        requirement.providers(&mut providers);
        for provider in providers.into_iter().filter_map(|id| self.config.providers.get(id)) {
            let claims = provider.claim_to_headers.iter().map(|claim| &claim.header);
            self.effects.sanitize.extend(provider.forward_payload_header.iter().chain(claims).cloned());
        }
    }

    fn requirement(&mut self, requirement: &Requirement) -> Result<(), Stop> {
        match requirement {
            Requirement::Provider { provider, audiences } => {
                let found = self.tokens(&[*provider]);
                if found.is_empty() {
                    self.note_failure(*provider, Failure::Missing);
                    return Err(Failure::Missing.into());
                }
                found.iter().try_for_each(|found| self.token(found, Some(*provider), audiences.as_deref()))
            }
            Requirement::All(all) => all.iter().try_for_each(|one| self.requirement(one)),
            Requirement::Any(any) => self.any(any),
            Requirement::AllowMissing(providers) => {
                self.tokens(providers).iter().try_for_each(|found| self.token(found, None, None))
            }
            Requirement::AllowMissingOrFailed(providers) => self.lenient(providers).map(drop),
            Requirement::ExtractOnly { providers, status } => {
                if !self.lenient(providers)? {
                    // Whatever a client says of its token, this is known.
                    self.effects.sanitize.push(status.clone());
                    self.effects.add_headers.push((status.clone(), HeaderValue::from_static("false")));
                }
                Ok(())
            }
        }
    }

    /// Good tokens have their effects, others none. Whether all were good.
    fn lenient(&mut self, providers: &[ProviderId]) -> Result<bool, Stop> {
        let mut good = true;
        for found in self.tokens(providers) {
            match self.token(&found, None, None) {
                Ok(()) => {}
                Err(Stop::Failed(_)) => good = false,
                Err(fetch @ Stop::Fetch(_)) => return Err(fetch),
            }
        }
        Ok(good)
    }

    fn any(&mut self, any: &[Requirement]) -> Result<(), Stop> {
        let mut worst = Failure::Missing;
        for one in any {
            match self.requirement(one) {
                Err(Stop::Failed(failure)) => {
                    if failure.weight() >= worst.weight() {
                        worst = failure;
                    }
                }
                done => return done,
            }
        }
        Err(worst.into())
    }

    fn tokens(&self, providers: &[ProviderId]) -> Vec<Found<'a>> {
        let mut found = extract::tokens(self.head, &self.config.providers, providers);
        found.retain(|found| !self.removed.contains(&found.place));
        found
    }

    /// Checks one token, and puts its effects down.
    fn token(
        &mut self,
        found: &Found<'a>,
        provider: Option<ProviderId>,
        audiences: Option<&[Box<str>]>,
    ) -> Result<(), Stop> {
        // Tokens that were verified before need not be parsed again; only local keys can be asked for without a provider.
        let token = match provider.and_then(|id| self.cached(found, id)) {
            Some(token) => token,
            None => match Token::parse(&found.text) {
                Ok(token) => Arc::new(token),
                Err(failure) => {
                    if let Some(id) = provider {
                        self.note_failure(id, failure);
                    }
                    return Err(failure.into());
                }
            },
        };
        let id = match provider {
            Some(id) => Some(id).filter(|id| self.config.providers[*id].issues(&token.issuer)),
            None => self.by_issuer(found, &token.issuer),
        };
        let Some(id) = id else {
            if let Some(id) = provider {
                self.note_failure(id, Failure::UnknownIssuer);
            }
            return Err(Failure::UnknownIssuer.into());
        };
        let config = self.config;
        let provider = &config.providers[id];
        let checked = allowed(provider, &token, self.now, audiences)
            .map_err(Stop::Failed)
            .and_then(|()| self.signature(found, &token, id));
        match checked {
            Ok(token) => {
                self.accept(found, provider, &token);
                Ok(())
            }
            Err(stop) => {
                if let Stop::Failed(failure) = stop {
                    self.note_failure(id, failure);
                }
                Err(stop)
            }
        }
    }

    /// The provider of this issuer among those that keep their tokens where this one was.
    fn by_issuer(&self, found: &Found<'_>, issuer: &str) -> Option<ProviderId> {
        let providers = || found.providers.iter().copied();
        let named = providers().find(|id| *self.config.providers[*id].issuer == *issuer);
        named.or_else(|| providers().find(|id| self.config.providers[*id].issuer.is_empty()))
    }

    fn keys_of(&self, provider: ProviderId) -> Result<Arc<Jwks>, Stop> {
        match &self.config.providers[provider].jwks {
            JwksSource::Local(Some(jwks)) => Ok(jwks.clone()),
            JwksSource::Local(None) => Err(Failure::JwksNoValidKeys.into()),
            JwksSource::Remote(_) => match self.keys.remote(provider) {
                KeysState::Ready(jwks) => Ok(jwks),
                KeysState::Failed => Err(Failure::JwksFetchFail.into()),
                KeysState::Unknown => Err(Stop::Fetch(provider)),
            },
        }
    }

    fn cached(&self, found: &Found<'_>, provider: ProviderId) -> Option<Arc<Token>> {
        self.keys.verified(&found.text, &self.keys_of(provider).ok()?)
    }

    fn signature(
        &mut self,
        found: &Found<'_>,
        token: &Arc<Token>,
        provider: ProviderId,
    ) -> Result<Arc<Token>, Stop> {
        let jwks = self.keys_of(provider)?;
        let counted = u32::from(self.config.providers[provider].cached);
        if let Some(known) = self.keys.verified(&found.text, &jwks) {
            self.effects.cache_hits += counted;
            return Ok(known);
        }
        self.effects.cache_misses += counted;
        jwks.verify(token, &found.text)?;
        self.keys.remember(&found.text, &jwks, token);
        Ok(token.clone())
    }

    fn note_failure(&mut self, provider: ProviderId, failure: Failure) {
        let key = &self.config.providers[provider].failed_status_in_metadata;
        if !key.is_empty() {
            let status = serde_json::json!({ "code": failure.code(), "message": failure.text() });
            self.effects.metadata.insert(key.to_string(), status);
        }
    }

    fn accept(&mut self, found: &Found<'a>, provider: &Provider, token: &Token) {
        let effects = &mut self.effects;
        let mut added = false;
        for claim in &provider.claim_to_headers {
            let value = self::claim(&token.payload, &claim.path).and_then(header_value);
            if let Some(value) = value {
                effects.add_headers.push((claim.header.clone(), value));
                added = true;
            }
        }
        if let Some(header) = &provider.forward_payload_header
            && let Ok(value) = HeaderValue::try_from(payload(token, provider.pad_forward_payload_header))
        {
            effects.add_headers.push((header.clone(), value));
        }
        if !provider.payload_in_metadata.is_empty() {
            let payload = normalized(&token.payload, &provider.space_delimited_claims);
            effects.metadata.insert(provider.payload_in_metadata.to_string(), Value::Object(payload));
        }
        if !provider.header_in_metadata.is_empty() {
            let header = Value::Object(token.header.clone());
            effects.metadata.insert(provider.header_in_metadata.to_string(), header);
        }
        effects.clear_route_cache |=
            provider.clear_route_cache && (added || !provider.payload_in_metadata.is_empty());
        if !provider.forward {
            self.removed.push(found.place);
            match found.place {
                Place::Header(header) => effects.remove_headers.push(header.name.clone()),
                Place::Param(name) => effects.remove_params.push(name.into()),
                Place::Cookie(_) => {}
            }
        }
    }
}

/// Everything but the signature.
fn allowed(
    provider: &Provider,
    token: &Token,
    now: u64,
    audiences: Option<&[Box<str>]>,
) -> Result<(), Failure> {
    if provider.subjects.as_ref().is_some_and(|matcher| !matcher.is_match(token.subject.as_bytes())) {
        return Err(Failure::VerificationFail);
    }
    let expires = token.expires.filter(|end| *end > 0);
    let too_long = provider
        .max_lifetime
        .is_some_and(|most| expires.is_none_or(|end| end.saturating_sub(now) > most.as_secs()));
    if too_long || (provider.require_expiration && expires.is_none()) {
        return Err(Failure::VerificationFail);
    }
    token.check_time(now, provider.clock_skew_seconds)?;
    let wanted = audiences.unwrap_or(&provider.audiences);
    let is_wanted = |audience: &str| wanted.iter().any(|wanted| **wanted == *plain_audience(audience));
    if wanted.is_empty() || token.audiences.iter().any(|audience| is_wanted(audience)) {
        Ok(())
    } else {
        Err(Failure::AudienceNotAllowed)
    }
}

fn claim<'t>(payload: &'t Map<String, Value>, path: &[Box<str>]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    crate::matcher::lookup(payload.get(&**first)?, rest)
}

/// Plain values as they are, structures as base64url of their JSON.
fn header_value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::Null => return None,
        Value::String(text) => return HeaderValue::from_str(text).ok(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        structure => URL_SAFE_NO_PAD.encode(structure.to_string()),
    };
    HeaderValue::try_from(text).ok()
}

fn payload(token: &Token, padded: bool) -> String {
    let plain = token.payload_base64.trim_end_matches('=');
    match super::token::decode(plain) {
        Some(bytes) if padded => URL_SAFE.encode(bytes),
        _ => plain.to_owned(),
    }
}

fn normalized(payload: &Map<String, Value>, space_delimited: &[Box<str>]) -> Map<String, Value> {
    let mut payload = payload.clone();
    for claim in space_delimited {
        if let Some(value) = payload.get_mut(&**claim)
            && let Value::String(text) = value
        {
            let words = text.split(' ').filter(|word| !word.is_empty());
            *value = Value::Array(words.map(|word| Value::String(word.to_owned())).collect());
        }
    }
    payload
}

#[cfg(test)]
mod tests;
