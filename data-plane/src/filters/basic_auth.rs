//! `envoy.filters.http.basic_auth`: users with passwords.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use sail_proxy_config::http_filter::BasicAuth;
use sail_proxy_decide::credentials::{BasicFailure, Users};
use serde_json::Value;

use super::{Build, Flow, HttpFilter, Request};
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_basic_auth as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<BasicAuth>,
    stats: stats::Scope,
}

impl Filter {
    pub(super) fn new(config: &Arc<BasicAuth>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.scope(build.prefix) }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<Users>());
        let users = per_route.as_deref().unwrap_or(&self.config.users);
        let header =
            head.view().get(&self.config.header).map(|value| String::from_utf8_lossy(&value).into_owned());
        match users.check(header.as_deref()) {
            Ok(user) => {
                self.stats.inc(stats::allowed);
                if let Some(forward) = &self.config.forward_username_header
                    && let Ok(value) = HeaderValue::from_str(&user)
                {
                    head.headers.insert(forward, value);
                }
                if self.config.emit_dynamic_metadata {
                    let mut info = exchange.info.borrow_mut();
                    info.dynamic_metadata.set(
                        "envoy.filters.http.basic_auth",
                        "username",
                        Value::String(user),
                    );
                }
                Flow::Continue
            }
            Err(BasicFailure::Missing) if self.config.allow_missing => {
                // Nobody but this filter says who the user is.
                if let Some(forward) = &self.config.forward_username_header {
                    head.headers.remove(forward);
                }
                self.stats.inc(stats::allowed);
                Flow::Continue
            }
            Err(failure) => {
                self.stats.inc(stats::denied);
                let realm = format!("Basic realm=\"{}://{}{}\"", head.scheme, head.authority(), head.path);
                Flow::Reply(Box::new(denied(failure, &realm)))
            }
        }
    }
}

fn denied(failure: BasicFailure, challenge: &str) -> LocalReply {
    let details = match failure {
        BasicFailure::Missing => "no_credential_for_basic_auth",
        BasicFailure::Scheme => "invalid_scheme_for_basic_auth",
        BasicFailure::Format => "invalid_format_for_basic_auth",
        BasicFailure::Credentials => "invalid_credential_for_basic_auth",
    };
    let mut reply = LocalReply::new(StatusCode::UNAUTHORIZED, "", details);
    reply.body = failure.to_string().into();
    match HeaderValue::from_str(challenge) {
        Ok(value) => reply.header(WWW_AUTHENTICATE, value),
        Err(_) => reply,
    }
}
