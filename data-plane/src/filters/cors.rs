//! `envoy.filters.http.cors`: answers preflights, and tells allowed origins so.

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::route::cors::{CorsPolicy, Decision};
use sail_proxy_decide::route::{Action, PerFilterConfig};

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_cors as stats;
use crate::stream_info::details;

/// The filter itself has no configuration: routes and virtual hosts have policies.
pub(crate) struct Cors {
    stats: stats::Scope,
}

impl Cors {
    pub(super) fn new(build: &Build<'_>) -> Self {
        Self { stats: build.store.scope(build.prefix) }
    }
}

fn policy(name: &str, exchange: &Exchange) -> Option<Arc<CorsPolicy>> {
    if let Some(PerFilterConfig::Cors(policy)) = exchange.per_filter(name) {
        return Some(policy);
    }
    let found = exchange.routed.get();
    let found = found.as_ref()?;
    let of_route = match &found.route.as_ref()?.action {
        Action::Route(action) => action.cors.as_ref(),
        _ => None,
    };
    of_route.or(found.virtual_host.cors.as_ref()).cloned()
}

impl HttpFilter for Cors {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        if !head.headers.contains_key(http::header::ORIGIN) {
            return Flow::Continue;
        }
        let Some(policy) = policy(name, exchange) else { return Flow::Continue };
        let worker = &exchange.connection.worker;
        match policy.decide(&head.view(), worker.random(), worker.runtime()) {
            Decision::Pass => {}
            Decision::Counted { allowed: true } => self.stats.inc(stats::origin_valid),
            Decision::Counted { allowed: false } | Decision::Refused => self.stats.inc(stats::origin_invalid),
            Decision::Allowed(origin) => {
                self.stats.inc(stats::origin_valid);
                exchange.state().cors = Some(origin);
            }
            Decision::Preflight(headers) => {
                let valid = !headers.is_empty();
                self.stats.inc(if valid { stats::origin_valid } else { stats::origin_invalid });
                let mut reply = LocalReply::new(StatusCode::OK, "", details::CORS_RESPONSE);
                reply.headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                return Flow::Reply(Box::new(reply));
            }
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        if let Some(origin) = &exchange.state().cors {
            origin.respond(reply.response.headers_mut());
        }
        None
    }
}
