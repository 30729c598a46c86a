//! `envoy.filters.http.grpc_json_transcoder`: requests in JSON become gRPC calls, and their answers JSON.

mod bodies;

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use sail_proxy_config::http_filter::grpc_json_transcoder::GrpcJsonTranscoder;
use sail_proxy_decide::transcoder::{Call, Framing, NoCall, Raw, Unfit};

use self::bodies::{FromGrpc, Outcome, ToGrpc};
use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::http::{gather, transform};
use crate::stream_info::details;

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-envoy-original-method");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The filter, with its configuration.
pub(crate) struct Filter(pub(crate) Arc<GrpcJsonTranscoder>);

/// A call under way.
struct Kept {
    config: Arc<GrpcJsonTranscoder>,
    call: Rc<Call>,
    /// What a streaming request's body turned out to be.
    outcome: Rc<Outcome>,
}

fn refused(status: StatusCode, body: String, details: &'static str) -> Flow<'static> {
    let mut reply = LocalReply::new(status, "", details);
    reply.body = body.into();
    Flow::Reply(Box::new(reply))
}

fn bad_request(unfit: &Unfit) -> Flow<'static> {
    refused(StatusCode::BAD_REQUEST, unfit.to_string(), "grpc_json_transcode_failure{request_transcoding}")
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let of_route = exchange.per_filter(name).and_then(|config| config.get::<GrpcJsonTranscoder>());
        let config = of_route.unwrap_or_else(|| self.0.clone());
        let off = config.transcoder.is_empty() && !config.reject_unknown_method;
        if off || head.is_grpc() || head.protocol.is_some() {
            return Flow::Continue;
        }
        let call = match config.transcoder.find(&head.method, head.path.as_str()) {
            Ok(call) => Rc::new(call),
            Err(NoCall::UnknownMethod) if config.reject_unknown_method => {
                let details = "grpc_json_transcode_failure{NOT_FOUND}";
                return refused(StatusCode::NOT_FOUND, "Could not resolve to a method.".to_owned(), details);
            }
            Err(NoCall::UnknownQueryParameter(name)) if config.reject_unknown_query_parameters => {
                let text = format!("Could not find field \"{name}\" in the request message.");
                return refused(
                    StatusCode::BAD_REQUEST,
                    text,
                    "grpc_json_transcode_failure{INVALID_ARGUMENT}",
                );
            }
            Err(_) => return Flow::Continue,
        };
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        rewrite(head, &call);
        if !config.match_incoming_request_route {
            exchange.find_route(head);
        }
        let outcome = Rc::new(Outcome::default());
        exchange
            .state()
            .put(name, Kept { config: config.clone(), call: call.clone(), outcome: outcome.clone() });
        if call.client_streams() {
            let limit = config.max_request_body_size;
            let inner = std::mem::replace(body, Body::Empty);
            *body = Body::boxed(ToGrpc::new(inner, call, content_type, limit, outcome));
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(async move { unary(&config, &call, &content_type, body).await }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let kept: Kept = exchange.state().take(name)?;
        if let Some(unfit) = kept.outcome.failure() {
            *reply = Reply::local(local(exchange, StatusCode::BAD_REQUEST, &unfit));
            return None;
        }
        let headers = reply.response.headers_mut();
        let grpc =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if !grpc {
            return None;
        }
        headers.remove(CONTENT_LENGTH);
        if kept.call.server_streams() {
            return Some(Box::pin(stream(exchange, kept, reply)));
        }
        Some(Box::pin(whole(exchange, kept, reply)))
    }
}

/// The head of the call.
fn rewrite(head: &mut Head, call: &Call) {
    if let Ok(path) = HeaderValue::from_str(head.path.as_str()) {
        head.headers.insert(ORIGINAL_PATH, path);
    }
    if let Ok(method) = HeaderValue::from_str(head.method.as_str()) {
        head.headers.insert(ORIGINAL_METHOD, method);
    }
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    head.method = Method::POST;
    if let Ok(path) = call.path().parse() {
        head.path = path;
    }
    head.present = crate::http::scan::Present::of(&head.headers);
}

/// The one message of a request.
async fn unary(
    config: &GrpcJsonTranscoder,
    call: &Call,
    content_type: &str,
    body: &mut Body,
) -> Flow<'static> {
    let limit = config.max_request_body_size;
    let Ok(seen) = gather::gather(body, limit).await else {
        return refused(StatusCode::BAD_REQUEST, String::new(), details::DOWNSTREAM_REMOTE_RESET);
    };
    if !seen.complete || seen.bytes.len() > limit {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return refused(status, "Payload Too Large".to_owned(), details::REQUEST_PAYLOAD_TOO_LARGE);
    }
    match call.request(&seen.bytes, content_type, true) {
        Ok(message) => {
            *body = Body::text(bodies::framed(&message));
            Flow::Continue
        }
        Err(unfit) => bad_request(&unfit),
    }
}

fn local(exchange: &Exchange, status: StatusCode, text: &str) -> http::Response<Body> {
    let mut reply = LocalReply::new(status, "", "grpc_json_transcode_failure");
    reply.body = text.to_owned().into();
    exchange.info.borrow_mut().code_details = Some(reply.details.clone());
    reply.into_response(false)
}

/// A response of one message: all of it is waited for, since its end says what it is.
async fn whole(exchange: &Rc<Exchange>, kept: Kept, reply: &mut Reply) {
    let Kept { config, call, .. } = kept;
    let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    let trailers_only = body.is_end_stream();
    let limit = config.max_response_body_size;
    let Ok(all) = http_body_util::Limited::new(body, limit).collect().await else {
        *reply =
            Reply::local(local(exchange, StatusCode::INTERNAL_SERVER_ERROR, "Response Payload Too Large"));
        return;
    };
    if let Some(lease) = reply.lease.take() {
        lease.finish();
    }
    let trailers = all.trailers().cloned();
    let mut seen = BytesMut::from(&*all.to_bytes());
    let message = bodies::take(&mut seen);
    let written = match message.map(|message| write(&call, &message)).transpose() {
        Ok(written) => written,
        Err(unfit) => {
            *reply = Reply::local(local(exchange, StatusCode::BAD_GATEWAY, &unfit.to_string()));
            return;
        }
    };
    let headers = reply.response.headers_mut();
    let ends = if trailers_only {
        Ends::new(headers, StatusCode::OK)
    } else {
        headers.insert(CONTENT_TYPE, JSON);
        Ends::new(trailers.as_ref().unwrap_or(&HeaderMap::new()), StatusCode::SERVICE_UNAVAILABLE)
    };
    let status = ends.code;
    finish(&config, &call, ends, written, &mut reply.response);
    if trailers.is_some() {
        // Who reads trailers finds the status there as well.
        let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
        *reply.response.body_mut() = gather::joined(Bytes::new(), trailers, body);
    }
    exchange.info.borrow_mut().grpc_status = status;
}

/// What the end of a call says.
struct Ends {
    status: Option<HeaderValue>,
    message: Option<HeaderValue>,
    details: Option<HeaderValue>,
    code: Option<u32>,
    /// The response's status.
    http: StatusCode,
}

impl Ends {
    /// By these headers or trailers; without a status in them, the response has that one.
    fn new(map: &HeaderMap, none: StatusCode) -> Self {
        let get = |name: HeaderName| map.get(name).cloned();
        let status = get(STATUS);
        let code = status.as_ref().and_then(crate::http::exchange::grpc_status);
        let http = code.map_or(none, http_status);
        Self { status, message: get(MESSAGE), details: get(DETAILS), code, http }
    }
}

/// Puts the response together.
fn finish(
    config: &GrpcJsonTranscoder,
    call: &Call,
    ends: Ends,
    written: Option<Raw>,
    response: &mut http::Response<Body>,
) {
    *response.status_mut() = ends.http;
    let headers = response.headers_mut();
    headers.remove(TRAILER);
    let failed = ends.code.filter(|code| *code != 0 && written.is_none() && config.convert_grpc_status);
    let converted = failed.and_then(|code| {
        let text = ends.message.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        call.status_json(ends.details.as_ref().and_then(decoded).as_deref(), code, &text)
    });
    if let Some(json) = converted {
        for name in [STATUS, MESSAGE, DETAILS] {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
        *response.body_mut() = Body::text(json);
        return;
    }
    for (name, value) in [(STATUS, ends.status), (MESSAGE, ends.message)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    let body = match written {
        Some(raw) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(&raw.content_type).unwrap_or(JSON));
            Bytes::from(raw.data)
        }
        None if call.server_streams() && !call.gives_raw() && call.framing() == Framing::Array => {
            *response.body_mut() = Body::unmeasured(Bytes::from_static(b"[]"));
            return;
        }
        None => Bytes::new(),
    };
    if !call.server_streams() && ends.code.is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    *response.body_mut() = Body::text(body);
}

fn decoded(value: &HeaderValue) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(value.to_str().ok()?.trim_end_matches('=')).ok()
}

/// A message as the client reads it.
fn write(call: &Call, message: &[u8]) -> Result<Raw, Unfit> {
    if call.gives_raw() {
        return call.raw_response(message);
    }
    let data = call.response(message)?.into_bytes();
    Ok(Raw { content_type: "application/json".to_owned(), data })
}

/// A response of many messages, each of which goes on as it comes.
async fn stream(exchange: &Rc<Exchange>, kept: Kept, reply: &mut Reply) {
    let Kept { config, call, .. } = kept;
    let mut body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    let headers = reply.response.headers_mut();
    let kind = match call.framing() {
        Framing::Events if !call.gives_raw() => HeaderValue::from_static("text/event-stream"),
        _ => JSON,
    };
    headers.insert(CONTENT_TYPE, kind);
    if body.is_end_stream() {
        let ends = Ends::new(headers, StatusCode::OK);
        exchange.info.borrow_mut().grpc_status = ends.code;
        finish(&config, &call, ends, None, &mut reply.response);
        return;
    }
    if call.gives_raw()
        && let Ok(Some(raw)) = first(&call, &mut body, config.max_response_body_size).await
        && let Ok(kind) = HeaderValue::from_str(&raw.content_type)
    {
        reply.response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    transform::wrap(&mut body, FromGrpc::new(call, config.max_response_body_size));
    *reply.response.body_mut() = body;
}

/// The first message of a body, which stays whole: it says of what type all are.
async fn first(
    call: &Call,
    body: &mut Body,
    limit: usize,
) -> Result<Option<Raw>, crate::http::body::BodyError> {
    let mut seen = BytesMut::new();
    let mut trailers = None;
    let mut message = None;
    while message.is_none() && seen.len() <= limit && trailers.is_none() && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        match frame?.into_data() {
            Ok(data) => seen.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        message = bodies::take(&mut seen.clone());
    }
    let rest = std::mem::replace(body, Body::Empty);
    *body = gather::joined(seen.freeze(), trailers, rest);
    Ok(message.and_then(|message| call.raw_response(&message).ok()))
}

/// gRPC's status as HTTP's.
fn http_status(grpc: u32) -> StatusCode {
    StatusCode::from_u16(crate::cluster::http_of_grpc(grpc)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
