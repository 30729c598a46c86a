//! `envoy.filters.http.cors`: answers preflights, and tells allowed origins so.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::route::cors::{CorsPolicy, Decision};
use sail_proxy_decide::route::{Action, PerFilterConfig};

use super::{Flow, HttpFilter};
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stream_info::details;

const NAME: &str = "envoy.filters.http.cors";

/// The filter itself has no configuration: routes and virtual hosts have policies.
pub(crate) struct Cors;

fn policy(exchange: &Exchange) -> Option<Arc<CorsPolicy>> {
    let found = exchange.routed.get();
    let found = found.as_ref()?;
    match found.per_filter(NAME) {
        Some(PerFilterConfig::Cors(policy)) => return Some(policy.clone()),
        Some(PerFilterConfig::Disabled) => return None,
        _ => {}
    }
    let of_route = match &found.route.as_ref()?.action {
        Action::Route(action) => action.cors.as_ref(),
        _ => None,
    };
    of_route.or(found.virtual_host.cors.as_ref()).cloned()
}

impl HttpFilter for Cors {
    fn on_request(&self, exchange: &Rc<Exchange>, head: &mut Head) -> Flow {
        if !head.headers.contains_key(http::header::ORIGIN) {
            return Flow::Continue;
        }
        let Some(policy) = policy(exchange) else { return Flow::Continue };
        let worker = &exchange.connection.worker;
        match policy.decide(&head.view(), worker.random(), worker.runtime()) {
            Decision::Pass | Decision::Refused => {}
            Decision::Allowed(origin) => {
                exchange.state().cors = Some(origin);
            }
            Decision::Preflight(headers) => {
                let mut reply = LocalReply::new(StatusCode::OK, "", details::CORS_RESPONSE);
                reply.headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                return Flow::Reply(Box::new(reply));
            }
        }
        Flow::Continue
    }

    fn on_response(&self, exchange: &Exchange, reply: &mut Reply) {
        if let Some(origin) = &exchange.state().cors {
            origin.respond(reply.response.headers_mut());
        }
    }
}
