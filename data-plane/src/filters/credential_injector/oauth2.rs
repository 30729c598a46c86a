//! Access tokens of OAuth 2: one at a time, fetched when the first request needs it and shared until it expires.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sail_proxy_config::http_filter::credential_injector::OAuth2;
use serde_json::Value;

use crate::callout;
use crate::http::exchange::Exchange;
use crate::stats::sets::http_credential_oauth2 as stats;

/// What forms escape.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Before a token ends, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub(super) struct Tokens {
    stats: stats::Scope,
    current: RefCell<Current>,
    /// Held by whoever fetches.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Current {
    token: Option<(HeaderValue, Instant)>,
    /// Nobody asks before that.
    retry: Option<Instant>,
}

impl Tokens {
    pub(super) fn new(stats: stats::Scope) -> Self {
        Self { stats, current: RefCell::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The token, while it is good.
    pub(super) fn at_hand(&self) -> Option<HeaderValue> {
        let current = self.current.borrow();
        let (token, end) = current.token.as_ref()?;
        (Instant::now() < *end).then(|| token.clone())
    }

    /// The token; it is fetched unless somebody else did meanwhile.
    pub(super) async fn fetch(&self, exchange: &Exchange, config: &OAuth2) -> Option<HeaderValue> {
        let _turn = self.turn.lock().await;
        if let Some(token) = self.at_hand() {
            return Some(token);
        }
        let now = Instant::now();
        if self.current.borrow().retry.is_some_and(|retry| now < retry) {
            return None;
        }
        let fetched = self.ask(exchange, config).await;
        let mut current = self.current.borrow_mut();
        if let Some((token, lifetime)) = fetched {
            self.stats.inc(stats::token_fetched);
            let end = Instant::now() + lifetime.saturating_sub(MARGIN).max(Duration::from_secs(1));
            *current = Current { token: Some((token.clone(), end)), retry: None };
            return Some(token);
        }
        current.retry = Some(Instant::now() + config.retry);
        None
    }

    async fn ask(&self, exchange: &Exchange, config: &OAuth2) -> Option<(HeaderValue, Duration)> {
        let Some(secret) = super::secret(exchange, &config.client_secret.name) else {
            self.stats.inc(stats::token_fetch_failed_on_client_secret);
            return None;
        };
        let secret = String::from_utf8_lossy(&secret).into_owned();
        let worker = &exchange.connection.worker;
        if worker.active().cluster(&config.endpoint.cluster).is_none() {
            self.stats.inc(stats::token_fetch_failed_on_cluster_not_found);
            return None;
        }
        let (headers, body) = form(config, &secret);
        let head = callout::head(&config.endpoint, Method::POST, headers);
        self.stats.inc(stats::token_requested);
        match callout::http(worker, &config.endpoint, head, body.into()).await {
            Err(error) => {
                tracing::warn!("a token cannot be fetched: {error}");
                self.stats.inc(stats::token_fetch_failed_on_stream_reset);
                None
            }
            Ok(answer) if answer.status() != StatusCode::OK => {
                tracing::warn!("a token cannot be fetched: the answer is {}", answer.status());
                self.stats.inc(stats::token_fetch_failed_on_bad_response_code);
                None
            }
            Ok(answer) => {
                let token = token(answer.body());
                if token.is_none() {
                    tracing::warn!("a token cannot be fetched: the answer has none, or no end of it");
                    self.stats.inc(stats::token_fetch_failed_on_bad_token);
                }
                token
            }
        }
    }
}

/// The request's headers and body.
fn form(config: &OAuth2, secret: &str) -> (HeaderMap, String) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let mut body = "grant_type=client_credentials".to_owned();
    let mut add = |name: &str, value: &str| {
        body.push('&');
        body.extend(utf8_percent_encode(name, FORM));
        body.push('=');
        body.extend(utf8_percent_encode(value, FORM));
    };
    if config.in_body {
        add("client_id", &config.client_id);
        add("client_secret", secret);
    } else {
        let pair = STANDARD.encode(format!("{}:{secret}", config.client_id));
        if let Ok(value) = HeaderValue::try_from(format!("Basic {pair}")) {
            headers.insert(AUTHORIZATION, value);
        }
    }
    if !config.scopes.is_empty() {
        add("scope", &config.scopes);
    }
    for (name, value) in &config.params {
        add(name, value);
    }
    (headers, body)
}

fn token(answer: &[u8]) -> Option<(HeaderValue, Duration)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let token = answer.get("access_token")?.as_str()?;
    let lifetime = Duration::from_secs(answer.get("expires_in")?.as_u64()?);
    Some((HeaderValue::try_from(format!("Bearer {token}")).ok()?, lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read() {
        let (value, lifetime) = token(br#"{"access_token": "abc", "expires_in": 60}"#).unwrap();
        assert_eq!((value.to_str().unwrap(), lifetime.as_secs()), ("Bearer abc", 60));
        assert!(token(br#"{"access_token": "abc"}"#).is_none());
    }
}
