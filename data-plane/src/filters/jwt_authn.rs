//! `envoy.filters.http.jwt_authn`: requests bring tokens that hold, or are refused.

mod remote;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::jwt::{
    self, Effects, Failure, Jwks, JwksSource, JwtAuthn, Keys, KeysState, ProviderId, Requirement, Token,
    Verdict,
};
use sail_proxy_decide::route::{PerFilterConfig, RouteContext};

use super::{Build, Flow, HttpFilter, Request};
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::http::scan::Present;
use crate::stats::sets::http_jwt_authn as stats;
use crate::stream_info::details;
use remote::Remote;

/// The namespace of what it writes into dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// So many verified tokens are kept by a worker.
const CACHED: usize = 100;

/// Longer tokens are not.
const CACHED_LENGTH: usize = 4096;

/// As much of the path as goes into a refusal.
const REALM_PATH: usize = 256;

/// The keys that verified a token, and the token.
type Verified = (Arc<Jwks>, Arc<Token>);

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<JwtAuthn>,
    stats: stats::Scope,
    /// For each provider whose keys are remote.
    remotes: Box<[Option<Rc<Remote>>]>,
    /// Tokens that were verified, with the keys that did.
    verified: RefCell<HashMap<Box<str>, Verified>>,
}

impl Filter {
    pub(super) fn new(config: &Arc<JwtAuthn>, build: &Build<'_>) -> Self {
        let stats: stats::Scope = build.store.prefixed(build.prefix, &config.stat_prefix);
        let remotes = config.providers.iter().map(|provider| match &provider.jwks {
            JwksSource::Local(_) => None,
            JwksSource::Remote(remote) => Some(Remote::of(remote, &stats)),
        });
        Self { remotes: remotes.collect(), config: config.clone(), stats, verified: RefCell::default() }
    }

    /// What the request must bring; `Err` if its route names what there is not.
    fn requirement(
        &self,
        name: &str,
        exchange: &Exchange,
        head: &Head,
    ) -> Result<Option<Arc<Requirement>>, LocalReply> {
        let wanted = match exchange.per_filter(name) {
            Some(PerFilterConfig::JwtRequirement(Some(wanted))) => wanted,
            Some(PerFilterConfig::JwtRequirement(None)) => return Ok(None),
            _ => return Ok(self.by_rules(exchange, head)),
        };
        match self.config.named(&wanted) {
            Some(requirement) => Ok(Some(requirement.clone())),
            None => Err(wrong_name(&self.config, &wanted)),
        }
    }

    fn by_rules(&self, exchange: &Exchange, head: &Head) -> Option<Arc<Requirement>> {
        let info = exchange.info.borrow();
        let tls = exchange.connection.accepted.tls.as_ref();
        let presented = tls.is_some_and(|peer| peer.info.peer_certificate_presented);
        let context = RouteContext {
            random: exchange.random(),
            peer_presented: presented,
            peer_validated: tls.is_some_and(|peer| peer.info.peer_certificate_validated),
            dynamic_metadata: (!info.dynamic_metadata.is_empty()).then(|| info.dynamic_metadata.all()),
            filter_state: &info.filter_state,
            runtime: exchange.connection.worker.runtime(),
        };
        self.config.requirement(&head.view(), &context, |name| info.filter_state(name)).cloned()
    }

    fn check(&self, requirement: &Requirement, head: &Head, fetched: &[ProviderId]) -> Verdict {
        // A clock before 1970 makes every token one of the future.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.config.check(requirement, &head.view(), now, &View { filter: self, fetched })
    }

    /// Fetches keys until they decide.
    async fn wait<'a>(
        &'a self,
        exchange: &'a Rc<Exchange>,
        head: &'a mut Head,
        requirement: Arc<Requirement>,
        first: ProviderId,
    ) -> Flow<'static> {
        let mut fetched = Vec::new();
        let mut provider = first;
        loop {
            if let Some(remote) = self.remotes.get(provider).and_then(Option::as_ref) {
                remote.fetch(&exchange.connection.worker).await;
            }
            // Keys that were fetched in vain are not asked for again, so this ends.
            fetched.push(provider);
            match self.check(&requirement, head, &fetched) {
                Verdict::Fetch(next) => provider = next,
                Verdict::Pass(effects) => return self.pass(exchange, head, effects),
                Verdict::Deny(failure, effects) => return self.deny(exchange, head, failure, effects),
            }
        }
    }

    fn pass(&self, exchange: &Exchange, head: &mut Head, effects: Effects) -> Flow<'static> {
        self.stats.inc(stats::allowed);
        self.count_cache(&effects);
        for name in &effects.sanitize {
            head.headers.remove(name);
        }
        for key in &effects.remove_headers {
            if let HeaderKey::Name(name) = key {
                head.headers.remove(name);
            }
        }
        for name in &effects.remove_params {
            if let Ok(path) = PathAndQuery::try_from(super::without_param(head.path.as_str(), name)) {
                head.path = path;
            }
        }
        for (name, value) in effects.add_headers {
            head.headers.append(name, value);
        }
        // What is decided by the headers that there are looks at them again.
        head.present = Present::of(&head.headers);
        if !effects.metadata.is_empty() {
            exchange.info.borrow_mut().dynamic_metadata.merge(NAMESPACE, effects.metadata);
        }
        if effects.clear_route_cache {
            exchange.find_route(head);
        }
        Flow::Continue
    }

    fn deny(&self, exchange: &Exchange, head: &Head, failure: Failure, effects: Effects) -> Flow<'static> {
        self.stats.inc(stats::denied);
        self.count_cache(&effects);
        if !effects.metadata.is_empty() {
            exchange.info.borrow_mut().dynamic_metadata.merge(NAMESPACE, effects.metadata);
        }
        let strip = self.config.strip_failure_response;
        let details = format!("{}{{{}}}", details::JWT_AUTHN_ACCESS_DENIED, failure.text().replace(' ', "_"));
        let body = if strip { "" } else { failure.text() };
        let mut reply = LocalReply::new(failure.status(), body, details);
        let mut challenge = format!("Bearer realm=\"{}\"", realm(head));
        if !strip && failure != Failure::Missing {
            challenge.push_str(", error=\"invalid_token\"");
        }
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            reply = reply.header(WWW_AUTHENTICATE, challenge);
        }
        Flow::Reply(Box::new(reply))
    }

    fn count_cache(&self, effects: &Effects) {
        if effects.cache_hits > 0 {
            self.stats.add(stats::jwt_cache_hit, u64::from(effects.cache_hits));
        }
        if effects.cache_misses > 0 {
            self.stats.add(stats::jwt_cache_miss, u64::from(effects.cache_misses));
        }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        if self.config.bypass_cors_preflight && jwt::is_cors_preflight(&head.view()) {
            self.stats.inc(stats::cors_preflight_bypassed);
            return Flow::Continue;
        }
        for remote in self.remotes.iter().flatten() {
            remote.keep_fresh(&exchange.connection.worker);
        }
        let requirement = match self.requirement(name, exchange, head) {
            Ok(Some(requirement)) => requirement,
            Ok(None) => {
                self.stats.inc(stats::allowed);
                return Flow::Continue;
            }
            Err(reply) => {
                self.stats.inc(stats::denied);
                return Flow::Reply(Box::new(reply));
            }
        };
        match self.check(&requirement, head, &[]) {
            Verdict::Pass(effects) => self.pass(exchange, head, effects),
            Verdict::Deny(failure, effects) => self.deny(exchange, head, failure, effects),
            Verdict::Fetch(provider) => {
                Flow::Wait(Box::pin(self.wait(exchange, head, requirement, provider)))
            }
        }
    }
}

/// What a worker has at hand, for one request.
struct View<'a> {
    filter: &'a Filter,
    /// Providers whose keys were fetched for this request, well or in vain.
    fetched: &'a [ProviderId],
}

impl Keys for View<'_> {
    fn remote(&self, provider: ProviderId) -> KeysState {
        let Some(remote) = self.filter.remotes.get(provider).and_then(Option::as_ref) else {
            return KeysState::Failed;
        };
        if let Some(keys) = remote.fresh() {
            return KeysState::Ready(keys);
        }
        if !self.fetched.contains(&provider) {
            return KeysState::Unknown;
        }
        // Keys that could not be renewed are better than none.
        remote.last_good().map_or(KeysState::Failed, KeysState::Ready)
    }

    fn verified(&self, text: &str, jwks: &Arc<Jwks>) -> Option<Arc<Token>> {
        let cache = self.filter.verified.borrow();
        let (by, token) = cache.get(text)?;
        Arc::ptr_eq(by, jwks).then(|| token.clone())
    }

    fn remember(&self, text: &str, jwks: &Arc<Jwks>, token: &Arc<Token>) {
        if text.len() > CACHED_LENGTH {
            return;
        }
        let mut cache = self.filter.verified.borrow_mut();
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(text.into(), (jwks.clone(), token.clone()));
    }
}

fn wrong_name(config: &JwtAuthn, wanted: &str) -> LocalReply {
    let names: Vec<&str> = config.requirement_map.iter().map(|(name, _)| &**name).collect();
    let problem = format!("Wrong requirement_name: {wanted}. Correct names are: {}", names.join(","));
    let details = format!("{}{{{}}}", details::JWT_AUTHN_ACCESS_DENIED, problem.replace(' ', "_"));
    let mut reply = LocalReply::new(StatusCode::FORBIDDEN, "", details);
    reply.body = format!("Failed JWT authentication: {problem}").into();
    reply
}

/// Where the client wanted to go.
fn realm(head: &Head) -> String {
    let path = head.path.as_str();
    let end = (0..=REALM_PATH.min(path.len())).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
    format!("{}://{}{}", head.scheme, head.authority(), &path[..end])
}
