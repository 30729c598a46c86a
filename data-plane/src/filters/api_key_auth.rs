//! `envoy.filters.http.api_key_auth`: clients with keys.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;
use http::uri::PathAndQuery;
use sail_proxy_decide::credentials::{ApiKeys, KeySource, KeyVerdict};
use sail_proxy_decide::head::HeaderKey;

use super::{Build, Flow, HttpFilter, Request};
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_api_key_auth as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<ApiKeys>,
    stats: stats::Scope,
}

impl Filter {
    pub(super) fn new(config: &Arc<ApiKeys>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.scope(build.prefix) }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let route = exchange.per_filter(name).and_then(|config| config.get::<ApiKeys>());
        let route = route.as_deref();
        let reply = |status, body, details| Flow::Reply(Box::new(LocalReply::new(status, body, details)));
        match ApiKeys::judge(route, &self.config, &head.view()) {
            KeyVerdict::Client(client) => {
                self.stats.inc(stats::allowed);
                let forwarding = route.and_then(|route| route.forwarding.as_ref());
                let Some(forwarding) = forwarding.or(self.config.forwarding.as_ref()) else {
                    return Flow::Continue;
                };
                if forwarding.hide_credentials {
                    let sources = route.and_then(|route| route.sources.as_ref());
                    let sources = sources.or(self.config.sources.as_ref());
                    sources.into_iter().flatten().for_each(|source| hide(head, source));
                }
                if let Some(header) = &forwarding.header
                    && let Ok(value) = HeaderValue::from_str(&client)
                {
                    head.headers.insert(header, value);
                }
                Flow::Continue
            }
            KeyVerdict::Missing => {
                self.stats.inc(stats::unauthorized);
                reply(StatusCode::UNAUTHORIZED, "Client authentication failed.", "missing_api_key")
            }
            KeyVerdict::Unknown => {
                self.stats.inc(stats::unauthorized);
                reply(StatusCode::UNAUTHORIZED, "Client authentication failed.", "unknown_api_key")
            }
            KeyVerdict::Forbidden => {
                self.stats.inc(stats::forbidden);
                reply(StatusCode::FORBIDDEN, "Client is forbidden.", "client_not_allowed")
            }
        }
    }
}

fn hide(head: &mut Head, source: &KeySource) {
    match source {
        KeySource::Header(HeaderKey::Name(name)) => {
            head.headers.remove(name);
        }
        KeySource::Query(name) => {
            if let Ok(path) = PathAndQuery::try_from(super::without_param(head.path.as_str(), name)) {
                head.path = path;
            }
        }
        KeySource::Cookie(name) => without_cookie(head, name),
        KeySource::Header(_) => {}
    }
}

fn without_cookie(head: &mut Head, name: &str) {
    let lines = head.headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let is_it = |pair: &&str| pair.split('=').next().is_some_and(|key| key.trim() == name);
    let rest: Vec<&str> = lines.flat_map(|line| line.split(';')).filter(|pair| !is_it(pair)).collect();
    let rest = rest.join(";");
    head.headers.remove(http::header::COOKIE);
    if let Ok(value) = HeaderValue::from_str(rest.trim())
        && !value.is_empty()
    {
        head.headers.insert(http::header::COOKIE, value);
    }
}
