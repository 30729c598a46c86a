//! `envoy.filters.http.credential_injector`: requests get the proxy's own credentials.

mod oauth2;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, StatusCode};
use sail_proxy_config::http_filter::credential_injector::{Credential, CredentialInjector};
use sail_proxy_config::secret::Secret;

use self::oauth2::Tokens;
use super::{Build, Flow, HttpFilter, Request};
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_credential_injector as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<CredentialInjector>,
    stats: stats::Scope,
    tokens: Tokens,
}

impl Filter {
    pub(super) fn new(config: &Arc<CredentialInjector>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            stats: build.store.scope(build.prefix),
            tokens: Tokens::new(build.store.scope(build.prefix)),
        }
    }

    /// Puts the credential in; without one the request is refused, or goes on.
    fn inject(&self, head: &mut Head, name: &HeaderName, value: Option<HeaderValue>) -> Flow<'static> {
        if let Some(mut value) = value {
            value.set_sensitive(true);
            head.headers.insert(name, value);
            self.stats.inc(stats::injected);
            return Flow::Continue;
        }
        self.stats.inc(stats::failed);
        if self.config.allow_without {
            return Flow::Continue;
        }
        let reply = LocalReply::new(
            StatusCode::UNAUTHORIZED,
            "Failed to inject credential.",
            "failed_to_inject_credential",
        );
        Flow::Reply(Box::new(reply))
    }
}

/// A generic secret, if it has arrived.
fn secret(exchange: &Exchange, name: &str) -> Option<Bytes> {
    match exchange.active.snapshot.secrets.get(name)? {
        Secret::Generic(bytes) if !bytes.0.is_empty() => Some(Bytes::copy_from_slice(&bytes.0)),
        _ => None,
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, .. } = request;
        let header = match &self.config.credential {
            Credential::Generic { header, .. } => header,
            Credential::OAuth2(_) => &AUTHORIZATION,
        };
        if !self.config.overwrite && head.headers.contains_key(header) {
            self.stats.inc(stats::already_exists);
            return Flow::Continue;
        }
        match &self.config.credential {
            Credential::Generic { secret, prefix, .. } => {
                let value = self::secret(exchange, &secret.name)
                    .and_then(|bytes| HeaderValue::from_bytes(&[prefix.as_bytes(), &bytes].concat()).ok());
                self.inject(head, header, value)
            }
            Credential::OAuth2(config) => match self.tokens.at_hand() {
                Some(token) => self.inject(head, header, Some(token)),
                None => Flow::Wait(Box::pin(async move {
                    let token = self.tokens.fetch(exchange, config).await;
                    self.inject(head, &AUTHORIZATION, token)
                })),
            },
        }
    }
}
