//! HTTP filters: one file a filter, one table from configuration to code.

mod alpn;
mod cors;
mod fault;
pub(crate) mod grpc_stats;
mod header_mutation;
mod local_rate_limit;
mod peer_metadata;
mod rbac;
mod refused;
mod set_filter_state;

use std::pin::Pin;

use http::StatusCode;
use sail_proxy_config::http_filter::{HttpFilter as Config, HttpFilterKind};

use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;

/// What a filter makes of a request.
pub(crate) enum Flow {
    /// It goes on.
    Continue,
    /// It is answered here.
    Reply(Box<LocalReply>),
    /// The filter needs time; the answer comes later.
    Wait(Pin<Box<dyn Future<Output = Flow>>>),
}

/// What filters keep of a request until its response.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) cors: Option<sail_proxy_decide::route::cors::Origin>,
    pub(crate) peer_metadata: peer_metadata::State,
    pub(crate) rate_limit: local_rate_limit::State,
    pub(crate) alpn: Option<alpn::Override>,
}

/// A filter, implemented for its configuration.
pub(crate) trait HttpFilter {
    /// Looks at a request on its way up.
    fn on_request(&self, exchange: &std::rc::Rc<Exchange>, head: &mut Head) -> Flow;

    /// Looks at a response on its way down.
    fn on_response(&self, _exchange: &Exchange, _reply: &mut Reply) {}
}

/// Passes a request through a filter.
pub(crate) fn on_request(filter: &Config, exchange: &std::rc::Rc<Exchange>, head: &mut Head) -> Flow {
    if filter.disabled {
        return Flow::Continue;
    }
    with_filter(filter, |filter| filter.on_request(exchange, head)).unwrap_or(Flow::Continue)
}

/// Passes a response through a filter.
pub(crate) fn on_response(filter: &Config, exchange: &Exchange, reply: &mut Reply) {
    if !filter.disabled {
        with_filter(filter, |filter| filter.on_response(exchange, reply));
    }
}

/// Calls back with the filter's code; `None` for filters that act elsewhere: the router ends the chain, statistics are
/// recorded at the exchange's end, gRPC messages are counted in the bodies.
fn with_filter<R>(filter: &Config, call: impl FnOnce(&dyn HttpFilter) -> R) -> Option<R> {
    Some(match &filter.kind {
        HttpFilterKind::Rbac(config) => call(&**config),
        HttpFilterKind::Fault(config) => call(&**config),
        HttpFilterKind::Cors => call(&cors::Cors),
        HttpFilterKind::PeerMetadata(config) => call(&**config),
        HttpFilterKind::Alpn(config) => call(&**config),
        HttpFilterKind::LocalRateLimit(config) => call(&local_rate_limit::Filter(config)),
        HttpFilterKind::HeaderMutation(config) => call(&**config),
        HttpFilterKind::SetFilterState(values) => call(&set_filter_state::Filter(values)),
        HttpFilterKind::JwtAuthn(_) => call(&refused::Refused {
            status: StatusCode::UNAUTHORIZED,
            body: "Jwt verification is not available",
            details: "jwt_authn_access_denied{not_available}",
            content_type: None,
        }),
        HttpFilterKind::GrpcWeb => call(&refused::Refused {
            status: StatusCode::NOT_IMPLEMENTED,
            body: "gRPC-Web is not available",
            details: "filter_not_available",
            content_type: Some("application/grpc-web"),
        }),
        HttpFilterKind::Buffer(_) => call(&refused::Refused {
            status: StatusCode::NOT_IMPLEMENTED,
            body: "the buffer filter is not available",
            details: "filter_not_available",
            content_type: None,
        }),
        HttpFilterKind::Router(_) | HttpFilterKind::IstioStats(_) | HttpFilterKind::GrpcStats(_) => {
            return None;
        }
    })
}
