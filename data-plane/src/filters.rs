//! HTTP filters: one file a filter, one table from configuration to code.

mod adaptive_concurrency;
mod admission_control;
mod alpn;
mod api_key_auth;
mod bandwidth_limit;
mod basic_auth;
mod buffer;
mod cdn_loop;
mod composite;
mod compression;
mod compressor;
mod connect_grpc_bridge;
mod cors;
mod credential_injector;
mod csrf;
mod custom_response;
mod decompressor;
mod descriptors;
mod discovered;
mod dynamic_forward_proxy;
pub(crate) mod edit;
mod ext_authz;
mod ext_proc;
mod fault;
mod grpc_http1_bridge;
mod grpc_json_transcoder;
mod grpc_stats;
mod grpc_web;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod ip_tagging;
mod json_to_metadata;
mod jwt_authn;
mod local_rate_limit;
#[cfg(feature = "lua")]
mod lua;
mod original_src;
mod paced;
mod peer_metadata;
mod rate_limit;
pub(crate) mod rbac;
mod set_filter_state;
mod set_metadata;
mod stateful_session;
mod tail;
#[cfg(feature = "wasm")]
mod wasm;

pub(crate) use health_check::FAILING as FAILING_HEALTH_CHECKS;

use std::any::Any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use sail_proxy_config::http_filter::{HttpFilter as Config, HttpFilterKind};
use sail_proxy_decide::route::PerFilterConfig;

use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::Store;

pub(crate) use dynamic_forward_proxy::ADDRESS as UPSTREAM_ADDRESS;

/// Work that a filter takes time for.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a filter makes of a request.
pub(crate) enum Flow<'a> {
    /// It goes on.
    Continue,
    /// It is answered here.
    Reply(Box<LocalReply>),
    /// The filter needs time, and keeps what it was given until then.
    Wait(Work<'a, Flow<'static>>),
}

/// A request on its way up, as a filter is given it.
pub(crate) struct Request<'a> {
    /// The filter's name, under which routes configure it.
    pub(crate) name: &'a str,
    pub(crate) exchange: &'a Rc<Exchange>,
    pub(crate) head: &'a mut Head,
    /// What of the body was not read yet; a filter may read it or put a wrapper in its place.
    pub(crate) body: &'a mut Body,
}

/// A response on its way down, as a filter is given it.
pub(crate) struct Response<'a> {
    /// The filter's name.
    pub(crate) name: &'a str,
    pub(crate) exchange: &'a Rc<Exchange>,
    pub(crate) reply: &'a mut Reply,
}

/// What filters keep of a request until its response.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) cors: Option<sail_proxy_decide::route::cors::Origin>,
    pub(crate) peer_metadata: peer_metadata::State,
    pub(crate) rate_limit: local_rate_limit::State,
    pub(crate) alpn: Option<alpn::Override>,
    /// What others keep, by the try and the filter's name.
    others: Vec<(u32, Box<str>, Box<dyn Any>)>,
    /// The try whose filters are at work; 0: the connection manager's are.
    attempt: u32,
    /// What is to be done when the exchange is over.
    at_end: Vec<AtEnd>,
}

/// Looks at an exchange that is over.
pub(crate) type AtEnd = Box<dyn FnOnce(&Exchange)>;

impl State {
    /// Keeps something for a filter's next turn.
    pub(crate) fn put<T: 'static>(&mut self, filter: &str, value: T) {
        self.others.push((self.attempt, filter.into(), Box::new(value)));
    }

    /// From here on it is a try's filters that are at work, or the connection manager's (0). Says whose were before.
    pub(crate) fn enter(&mut self, attempt: u32) -> u32 {
        std::mem::replace(&mut self.attempt, attempt)
    }

    /// The same, boxed before.
    pub(crate) fn put_boxed(&mut self, filter: Box<str>, value: Box<dyn Any>) {
        self.others.push((self.attempt, filter, value));
    }

    /// Has something done when the exchange is over, before it is logged.
    pub(crate) fn at_end(&mut self, call: AtEnd) {
        self.at_end.push(call);
    }

    /// What is to be done then.
    pub(crate) fn take_at_end(&mut self) -> Vec<AtEnd> {
        std::mem::take(&mut self.at_end)
    }

    /// What the filter kept.
    pub(crate) fn take<T: 'static>(&mut self, filter: &str) -> Option<T> {
        let is_it = |(attempt, name, value): &(u32, Box<str>, Box<dyn Any>)| {
            *attempt == self.attempt && **name == *filter && value.is::<T>()
        };
        let found = self.others.iter().position(is_it)?;
        self.others.swap_remove(found).2.downcast().ok().map(|value| *value)
    }
}

/// A filter, as a worker holds it for a connection manager.
pub(crate) trait HttpFilter {
    /// Looks at a request on its way up.
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a>;

    /// Looks at a response on its way down. What is returned is waited for before the response goes on.
    fn on_response<'a>(&'a self, _response: Response<'a>) -> Option<Work<'a, ()>> {
        None
    }
}

impl<T: HttpFilter + ?Sized> HttpFilter for Arc<T> {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        (**self).on_request(request)
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        (**self).on_response(response)
    }
}

/// What filters are built with.
pub(crate) struct Build<'a> {
    /// Where statistics are.
    pub(crate) store: &'a Arc<Store>,
    /// The connection manager's `stat_prefix`.
    pub(crate) prefix: &'a str,
}

/// The filters of a connection manager, or those before an upstream, in order.
pub(crate) struct Chain(Box<[Slot]>);

struct Slot {
    name: Arc<str>,
    disabled: bool,
    filter: Box<dyn HttpFilter>,
}

impl Slot {
    /// Whether the filter takes part: a route may switch it off, and configuring it switches on one that is off.
    fn takes_part(&self, exchange: &Exchange) -> bool {
        match exchange.per_filter(&self.name) {
            Some(PerFilterConfig::Disabled) => false,
            Some(_) => true,
            None => !self.disabled,
        }
    }
}

impl Chain {
    pub(crate) fn new(configs: &[Config], build: &Build<'_>) -> Self {
        let slots = configs.iter().filter_map(|config| {
            let filter = filter(&config.kind, build)?;
            Some(Slot { name: config.name.clone(), disabled: config.disabled, filter })
        });
        Self(slots.collect())
    }

    /// The filters before an upstream, if there are any.
    pub(crate) fn of_upstreams(configs: &[Config], build: &Build<'_>) -> Option<Self> {
        (!configs.is_empty()).then(|| Self::new(configs, build))
    }

    /// How many filters there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Passes a request through the filters. `Err` is the answer of one of them; the number says how many saw the request.
    pub(crate) async fn on_request(
        &self,
        exchange: &Rc<Exchange>,
        head: &mut Head,
        body: &mut Body,
    ) -> Result<usize, (usize, Box<LocalReply>)> {
        for (index, slot) in self.0.iter().enumerate() {
            if !slot.takes_part(exchange) {
                continue;
            }
            let request = Request { name: &slot.name, exchange, head, body };
            let flow = match slot.filter.on_request(request) {
                Flow::Wait(work) => work.await,
                flow => flow,
            };
            if let Flow::Reply(reply) = flow {
                return Err((index + 1, reply));
            }
        }
        Ok(self.0.len())
    }

    /// Passes a response back through the filters that saw its request.
    pub(crate) async fn on_response(&self, passed: usize, exchange: &Rc<Exchange>, reply: &mut Reply) {
        for slot in self.0[..passed].iter().rev() {
            if !slot.takes_part(exchange) {
                continue;
            }
            let response = Response { name: &slot.name, exchange, reply };
            if let Some(work) = slot.filter.on_response(response) {
                work.await;
            }
            if !exchange.shows_filters() {
                return;
            }
        }
    }
}

/// The filter of a configuration; `None` for those that act elsewhere: the router ends the chain, Istio's statistics are
/// recorded at the exchange's end.
fn filter(kind: &HttpFilterKind, build: &Build<'_>) -> Option<Box<dyn HttpFilter>> {
    Some(match kind {
        HttpFilterKind::Rbac(config) => Box::new(rbac::Filter::new(config, build)),
        HttpFilterKind::ExtAuthz(config) => Box::new(ext_authz::Filter::new(config, build)),
        HttpFilterKind::ExtProc(config) => Box::new(ext_proc::Filter::new(config, build)),
        HttpFilterKind::Discovered(config) => Box::new(discovered::Filter::new(config, build)),
        HttpFilterKind::DynamicForwardProxy(config) => {
            Box::new(dynamic_forward_proxy::Filter(config.clone()))
        }
        HttpFilterKind::RateLimit(config) => Box::new(rate_limit::Filter::new(config, build)),
        HttpFilterKind::Fault(config) => Box::new(fault::Filter::new(config, build)),
        HttpFilterKind::AdaptiveConcurrency(config) => {
            Box::new(adaptive_concurrency::Filter::new(config, build))
        }
        HttpFilterKind::AdmissionControl(config) => Box::new(admission_control::Filter::new(config, build)),
        HttpFilterKind::BandwidthLimit(config) => Box::new(bandwidth_limit::Filter::new(config, build)),
        HttpFilterKind::ApiKeyAuth(config) => Box::new(api_key_auth::Filter::new(config, build)),
        HttpFilterKind::BasicAuth(config) => Box::new(basic_auth::Filter::new(config, build)),
        HttpFilterKind::CdnLoop(config) => Box::new(cdn_loop::Filter(config.clone())),
        HttpFilterKind::Csrf(config) => Box::new(csrf::Filter::new(config, build)),
        HttpFilterKind::HeaderToMetadata(config) => Box::new(header_to_metadata::Filter::new(config, build)),
        HttpFilterKind::HealthCheck(config) => Box::new(health_check::Filter::new(config, build)),
        HttpFilterKind::IpTagging(config) => Box::new(ip_tagging::Filter::new(config, build)),
        HttpFilterKind::SetMetadata(entries) => Box::new(set_metadata::Filter::new(entries, build)),
        HttpFilterKind::CredentialInjector(config) => {
            Box::new(credential_injector::Filter::new(config, build))
        }
        HttpFilterKind::Cors => Box::new(cors::Cors::new(build)),
        HttpFilterKind::PeerMetadata(config) => Box::new(config.clone()),
        HttpFilterKind::Alpn(config) => Box::new(config.clone()),
        HttpFilterKind::LocalRateLimit(config) => Box::new(local_rate_limit::Filter::new(config, build)),
        #[cfg(feature = "lua")]
        HttpFilterKind::Lua(config) => Box::new(lua::Filter::new(config, build)),
        // Such a configuration was refused.
        #[cfg(not(feature = "lua"))]
        HttpFilterKind::Lua(_) => return None,
        HttpFilterKind::HeaderMutation(config) => Box::new(header_mutation::Filter(config.clone())),
        HttpFilterKind::StatefulSession(config) => Box::new(stateful_session::Filter::new(config, build)),
        HttpFilterKind::SetFilterState(values) => Box::new(set_filter_state::Filter(values.clone())),
        HttpFilterKind::JwtAuthn(config) => Box::new(jwt_authn::Filter::new(config, build)),
        HttpFilterKind::Buffer(limit) => Box::new(buffer::Filter(*limit)),
        HttpFilterKind::Composite(config) => Box::new(composite::Filter::new(config, build)),
        HttpFilterKind::CustomResponse(config) => Box::new(custom_response::Filter::new(config, build)),
        HttpFilterKind::Compressor(config) => Box::new(compressor::Filter::new(config, build)),
        HttpFilterKind::Decompressor(config) => Box::new(decompressor::Filter::new(config, build)),
        HttpFilterKind::GrpcHttp1Bridge(config) => Box::new(grpc_http1_bridge::Filter(*config)),
        HttpFilterKind::GrpcJsonTranscoder(config) => Box::new(grpc_json_transcoder::Filter(config.clone())),
        HttpFilterKind::GrpcWeb => Box::new(grpc_web::Filter),
        HttpFilterKind::ConnectGrpcBridge => Box::new(connect_grpc_bridge::Filter),
        HttpFilterKind::JsonToMetadata(config) => Box::new(json_to_metadata::Filter::new(config, build)),
        HttpFilterKind::OriginalSrc(mark) => Box::new(original_src::Filter(*mark)),
        HttpFilterKind::GrpcStats(config) => Box::new(grpc_stats::Filter::new(config, build)),
        #[cfg(feature = "wasm")]
        HttpFilterKind::Wasm(config) => Box::new(wasm::Filter::new(config, build)),
        // Without the engine none is accepted.
        #[cfg(not(feature = "wasm"))]
        HttpFilterKind::Wasm(_) => return None,
        HttpFilterKind::Router(_)
        | HttpFilterKind::IstioStats(_)
        | HttpFilterKind::OnDemand
        | HttpFilterKind::UpstreamCodec => return None,
    })
}

/// Whether a script can be loaded.
#[cfg(feature = "lua")]
pub(crate) use lua::check as check_script;

/// There is no script that this build can load.
#[cfg(not(feature = "lua"))]
pub(crate) fn check_script(_: &sail_proxy_config::http_filter::lua::Script) -> Result<(), String> {
    Err("this sail-proxy was built without Lua: there is no envoy.filters.http.lua".to_owned())
}

/// The path without a parameter of its query.
pub(crate) fn without_param(path: &str, name: &str) -> String {
    let Some((before, query)) = path.split_once('?') else { return path.to_owned() };
    let is_it = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        percent_encoding::percent_decode_str(key).decode_utf8_lossy() == name
    };
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    if rest.is_empty() { before.to_owned() } else { format!("{before}?{}", rest.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::without_param;

    #[test]
    fn parameters_are_taken_out() {
        assert_eq!(without_param("/a?x=1&t=2&y", "t"), "/a?x=1&y");
        assert_eq!(without_param("/a?t=2", "t"), "/a");
        assert_eq!(without_param("/a", "t"), "/a");
    }
}
