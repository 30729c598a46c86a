//! `envoy.filters.http.ext_authz`: a service is asked whether a request may pass.

mod apply;
mod grpc;
mod http;

pub(crate) use grpc::option;

use std::rc::Rc;
use std::sync::Arc;

use ::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use sail_proxy_config::http_filter::ext_authz::{
    BodySettings, CheckSettings, ExtAuthz, ExtAuthzPerRoute, Service,
};
use sail_proxy_decide::headers::AppendAction;
use serde_json::{Map, Value};

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::gather;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_ext_authz as stats;
use crate::stream_info::{ResponseFlag, details};

/// Where what the service writes goes, whatever the filter is called.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";

const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<ExtAuthz>,
    stats: stats::Scope,
}

/// What the service said.
enum Verdict {
    Ok(Box<Consent>),
    Denied(Box<Refusal>),
    /// It could not be asked, or failed; it may say with which status.
    Error {
        status: Option<StatusCode>,
        timeout: bool,
    },
}

/// What is changed in a request that may pass.
#[derive(Default)]
struct Consent {
    set: Vec<(String, Vec<u8>)>,
    append: Vec<(String, Vec<u8>)>,
    remove: Vec<String>,
    response: Vec<ResponseHeader>,
    set_query: Vec<(String, String)>,
    remove_query: Vec<String>,
    metadata: Option<Map<String, Value>>,
}

/// A header for the client.
type ResponseHeader = (String, Vec<u8>, AppendAction);

/// The answer that the client gets instead.
struct Refusal {
    status: StatusCode,
    headers: Vec<ResponseHeader>,
    body: String,
    metadata: Option<Map<String, Value>>,
}

/// The part of the body that goes along.
struct Excerpt {
    bytes: Bytes,
    partial: bool,
    settings: BodySettings,
}

/// Headers for the response of a request that may pass.
struct Added(Vec<ResponseHeader>);

/// What holds for one request.
struct Check<'a> {
    config: &'a ExtAuthz,
    exchange: &'a Rc<Exchange>,
    name: &'a str,
    settings: Option<Arc<ExtAuthzPerRoute>>,
}

impl Filter {
    pub(crate) fn new(config: &Arc<ExtAuthz>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.prefixed(build.prefix, &config.stat_prefix) }
    }

    /// Whether the request is the service's business.
    fn is_enabled(&self, exchange: &Exchange) -> bool {
        let worker = &exchange.connection.worker;
        let shared = self.config.enabled.as_ref();
        if !shared.is_none_or(|share| share.hit(worker.random(), worker.runtime())) {
            return false;
        }
        self.config.enabled_metadata.as_ref().is_none_or(|matcher| {
            matcher.is_match(exchange.info.borrow().dynamic_metadata.get(&matcher.filter))
        })
    }

    fn disabled(&self, exchange: &Exchange) -> Flow<'static> {
        use sail_proxy_decide::fraction::Runtime as _;
        self.stats.inc(stats::disabled);
        let deny = self.config.deny_at_disable.as_ref().is_some_and(|(default, key)| {
            let runtime = exchange.connection.worker.runtime();
            if key.is_empty() { *default } else { runtime.boolean(key).unwrap_or(*default) }
        });
        if deny { Flow::Reply(Box::new(self.error_reply(None))) } else { Flow::Continue }
    }

    fn error_reply(&self, status: Option<StatusCode>) -> LocalReply {
        LocalReply::new(status.unwrap_or(self.config.status_on_error), "", details::EXT_AUTHZ_ERROR)
            .flag(ResponseFlag::UnauthorizedExternalService)
    }

    async fn check(&self, request: Request<'_>, settings: Option<Arc<ExtAuthzPerRoute>>) -> Flow<'static> {
        let Request { name, exchange, head, body } = request;
        let check = Check { config: &self.config, exchange, name, settings };
        let excerpt = match check.body_settings().filter(|_| head.protocol.is_none()) {
            None => None,
            Some(settings) => {
                let most = settings.max_request_bytes as usize;
                let limit = if settings.allow_partial { most.saturating_sub(1) } else { most };
                let Ok(seen) = gather::gather(body, limit).await else {
                    return Flow::Reply(Box::new(LocalReply::new(
                        StatusCode::BAD_REQUEST,
                        "",
                        details::DOWNSTREAM_REMOTE_RESET,
                    )));
                };
                if seen.bytes.len() > limit && !settings.allow_partial {
                    return Flow::Reply(Box::new(LocalReply::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "Payload Too Large",
                        details::REQUEST_PAYLOAD_TOO_LARGE,
                    )));
                }
                let partial = !seen.complete || seen.bytes.len() > most;
                Some(Excerpt { bytes: seen.bytes.slice(..seen.bytes.len().min(most)), partial, settings })
            }
        };
        let verdict = match check.service() {
            Service::Grpc(target) => grpc::ask(&check, target, head, excerpt.as_ref()).await,
            Service::Http(service) => http::ask(&check, service, head, excerpt).await,
        };
        self.carry_out(verdict, name, exchange, head)
    }

    fn carry_out(
        &self,
        verdict: Verdict,
        name: &str,
        exchange: &Rc<Exchange>,
        head: &mut Head,
    ) -> Flow<'static> {
        match verdict {
            Verdict::Ok(consent) => {
                self.stats.inc(stats::ok);
                if self.config.shadow {
                    shadow(name, exchange, "OK", StatusCode::OK, &[]);
                }
                self.metadata(exchange, consent.metadata.as_ref());
                let Ok(changed) = apply::request(&self.config, &consent, head) else {
                    self.stats.inc(stats::invalid);
                    return Flow::Reply(Box::new(LocalReply::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "",
                        "ext_authz_invalid",
                    )));
                };
                if changed && self.config.clear_route_cache {
                    exchange.find_route(head);
                }
                if !consent.response.is_empty() {
                    exchange.state().put(name, Added(consent.response));
                }
                Flow::Continue
            }
            Verdict::Denied(refusal) => {
                self.stats.inc(stats::denied);
                self.metadata(exchange, refusal.metadata.as_ref());
                if self.config.shadow {
                    self.stats.inc(stats::shadow_denied);
                    return shadow(name, exchange, "DENIED", refusal.status, &refusal.headers);
                }
                Flow::Reply(Box::new(self.denied_reply(*refusal)))
            }
            Verdict::Error { status, timeout } => {
                self.stats.inc(stats::error);
                if timeout {
                    self.stats.inc(stats::timeout);
                }
                if self.config.shadow {
                    let status = status.unwrap_or(self.config.status_on_error);
                    return shadow(name, exchange, "ERROR", status, &[]);
                }
                if !self.config.failure_mode_allow {
                    return Flow::Reply(Box::new(self.error_reply(status)));
                }
                self.stats.inc(stats::failure_mode_allowed);
                if self.config.failure_mode_allow_header_add {
                    let name = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
                    head.headers.insert(name, HeaderValue::from_static("true"));
                }
                Flow::Continue
            }
        }
    }

    fn metadata(&self, exchange: &Exchange, metadata: Option<&Map<String, Value>>) {
        let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) else { return };
        if self.config.dynamic_metadata {
            exchange.info.borrow_mut().dynamic_metadata.merge(NAMESPACE, metadata.clone());
        } else {
            self.stats.inc(stats::ignored_dynamic_metadata);
        }
    }

    fn denied_reply(&self, refusal: Refusal) -> LocalReply {
        let mut body = refusal.body;
        if let Some(most) = self.config.max_denied_body
            && body.len() > most
        {
            let end = (0..=most).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0);
            body.truncate(end);
        }
        let mut reply = LocalReply::new(refusal.status, "", details::EXT_AUTHZ_DENIED)
            .flag(ResponseFlag::UnauthorizedExternalService);
        reply.body = body.into();
        for (name, value, _) in refusal.headers {
            // The length is that of the body as it goes out.
            if let Ok((name, value)) = super::edit::header(&name, &value)
                && name != ::http::header::CONTENT_LENGTH
                && name != ::http::header::TRANSFER_ENCODING
                && name != ::http::header::CONNECTION
            {
                reply.headers.push((name, value));
            }
        }
        reply
    }
}

/// Notes what the service said, and lets the request pass.
fn shadow(
    name: &str,
    exchange: &Exchange,
    result: &str,
    status: StatusCode,
    headers: &[ResponseHeader],
) -> Flow<'static> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value, _)| serde_json::json!({"key": name, "value": String::from_utf8_lossy(value)}))
        .collect();
    let mut decision = serde_json::json!({"check_result": result, "status_code": status.as_u16()});
    if !headers.is_empty() {
        decision["response_headers"] = headers.into();
    }
    let entry = (format!("{name}.shadow").into(), decision.to_string().into());
    exchange.info.borrow_mut().filter_state.push(entry);
    Flow::Continue
}

impl Check<'_> {
    fn settings(&self) -> Option<&CheckSettings> {
        match self.settings.as_deref() {
            Some(ExtAuthzPerRoute::Check(settings)) => Some(settings),
            _ => None,
        }
    }

    fn service(&self) -> &Service {
        self.settings().and_then(|settings| settings.service.as_ref()).unwrap_or(&self.config.service)
    }

    fn body_settings(&self) -> Option<BodySettings> {
        match self.settings() {
            Some(settings) if settings.disable_body => None,
            // A route says how much of it; how it goes along the filter says.
            Some(CheckSettings { body: Some(body), .. }) => Some(match self.config.body {
                Some(own) => BodySettings { max_request_bytes: body.max_request_bytes, ..own },
                None => *body,
            }),
            _ => self.config.body,
        }
    }

    /// What every level of the route tells the service; the most specific wins.
    fn context_extensions(&self) -> impl Iterator<Item = (String, String)> {
        let found = self.exchange.routed.get().clone();
        let mut all = std::collections::BTreeMap::new();
        if let Some(found) = found {
            for config in found.levels::<ExtAuthzPerRoute>(self.name) {
                if let ExtAuthzPerRoute::Check(settings) = &*config {
                    all.extend(settings.context_extensions.iter().cloned());
                }
            }
        }
        all.into_iter()
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let settings = request.exchange.per_filter(request.name).and_then(|config| config.get());
        if matches!(settings.as_deref(), Some(ExtAuthzPerRoute::Disabled)) {
            return Flow::Continue;
        }
        if !self.is_enabled(request.exchange) {
            return self.disabled(request.exchange);
        }
        Flow::Wait(Box::pin(self.check(request, settings)))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Added(headers) = exchange.state().take(name)?;
        for (name, value, action) in headers {
            // What is no header is left out.
            let _ = super::edit::set(reply.response.headers_mut(), &name, &value, action);
        }
        None
    }
}
