//! `envoy.filters.http.connect_grpc_bridge`: clients of the Connect protocol talk to gRPC servers.

mod unary;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, TE};
use http::{HeaderValue, Method};
use serde_json::{Map, Value, json};

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
use crate::http::head::Head;
use crate::http::scan::Present;
use crate::http::transform::{self, Transform};

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONTENT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The end of a stream is told in a frame of its own.
const END: u8 = 0b10;

/// The filter has no configuration.
pub(crate) struct Filter;

/// How the client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unary,
    Streaming,
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let content_type = text(head.headers.get(CONTENT_TYPE)).to_owned();
        if let Some(codec) = content_type.strip_prefix("application/connect+") {
            rename(&mut head.headers, &CONTENT_ENCODING, &GRPC_ENCODING);
            rename(&mut head.headers, &ACCEPT_ENCODING, &GRPC_ACCEPT_ENCODING);
            to_grpc(head, codec);
            exchange.grpc.set(true);
            exchange.state().put(name, Kind::Streaming);
            return Flow::Continue;
        }
        let message = if head.method == Method::GET {
            unary::get(head)
        } else {
            let codec = content_type.strip_prefix("application/");
            let is_connect = head.headers.contains_key(VERSION);
            codec.filter(|_| is_connect).map(|codec| unary::Message::of_body(head, codec))
        };
        let Some(message) = message else { return Flow::Continue };
        exchange.grpc.set(true);
        exchange.state().put(name, Kind::Unary);
        if let Some(bytes) = message.bytes {
            *body = Body::text(unary::framed(&bytes, message.compressed));
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(unary::frame(body, message.compressed)))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let kind: Kind = exchange.state().take(name)?;
        let headers = reply.response.headers_mut();
        let content_type = text(headers.get(CONTENT_TYPE)).to_owned();
        let codec = content_type.strip_prefix("application/grpc")?;
        let codec = codec.strip_prefix('+').unwrap_or("proto");
        if kind == Kind::Unary {
            let codec = codec.to_owned();
            return Some(Box::pin(unary::respond(reply, codec)));
        }
        if let Ok(value) = HeaderValue::try_from(format!("application/connect+{codec}")) {
            headers.insert(CONTENT_TYPE, value);
        }
        rename(headers, &GRPC_ENCODING, &CONTENT_ENCODING);
        rename(headers, &GRPC_ACCEPT_ENCODING, &ACCEPT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        // Where there is nothing but an end, headers tell of it.
        if headers.contains_key(GRPC_STATUS) {
            let end = end(&take_status(headers));
            *reply.response.body_mut() = Body::text(end);
        } else {
            transform::wrap(reply.response.body_mut(), Ending);
        }
        None
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn rename(headers: &mut HeaderMap, from: &HeaderName, to: &HeaderName) {
    if let Some(value) = headers.remove(from) {
        headers.insert(to, value);
    }
}

/// What all requests have in common.
fn to_grpc(head: &mut Head, codec: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("application/grpc+{codec}")) {
        head.headers.insert(CONTENT_TYPE, value);
    }
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(VERSION);
    if let Some(limit) = head.headers.remove(TIMEOUT)
        && let Ok(value) = HeaderValue::try_from(format!("{}m", text(Some(&limit))))
    {
        head.headers.insert(GRPC_TIMEOUT, value);
    }
    head.present = Present::of(&head.headers);
}

/// How a call ended, as gRPC says it; its headers are taken out.
fn take_status(headers: &mut HeaderMap) -> Status {
    let mut take = |name: &HeaderName| headers.remove(name).map(|value| text(Some(&value)).to_owned());
    Status {
        code: take(&GRPC_STATUS).and_then(|code| code.parse().ok()),
        message: take(&GRPC_MESSAGE).unwrap_or_default(),
        details: take(&DETAILS).map(|details| self::details(&details)).unwrap_or_default(),
        metadata: Map::new(),
    }
}

#[derive(Default)]
struct Status {
    code: Option<u32>,
    message: String,
    details: Vec<Value>,
    metadata: Map<String, Value>,
}

impl Status {
    fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// As Connect says it.
    fn error(&self) -> Value {
        let mut error = json!({"code": code_name(self.code)});
        if !self.message.is_empty() {
            error["message"] = self.message.clone().into();
        }
        if !self.details.is_empty() {
            error["details"] = self.details.clone().into();
        }
        error
    }
}

/// The details of a `google.rpc.Status`.
fn details(encoded: &str) -> Vec<Value> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use prost::Message as _;
    let bytes = STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).unwrap_or_default();
    let status = xds_api::google::rpc::Status::decode(bytes.as_slice()).unwrap_or_default();
    let details = status.details.into_iter().map(|any| {
        let kind = any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        json!({"type": kind, "value": STANDARD_NO_PAD.encode(&any.value)})
    });
    details.collect()
}

fn code_name(code: Option<u32>) -> &'static str {
    match code {
        Some(1) => "canceled",
        Some(3) => "invalid_argument",
        Some(4) => "deadline_exceeded",
        Some(5) => "not_found",
        Some(6) => "already_exists",
        Some(7) => "permission_denied",
        Some(8) => "resource_exhausted",
        Some(9) => "failed_precondition",
        Some(10) => "aborted",
        Some(11) => "out_of_range",
        Some(12) => "unimplemented",
        Some(13) => "internal",
        Some(14) => "unavailable",
        Some(15) => "data_loss",
        Some(16) => "unauthenticated",
        _ => "unknown",
    }
}

/// The frame that ends a stream.
fn end(status: &Status) -> Bytes {
    let mut told = Map::new();
    if !status.is_ok() {
        told.insert("error".to_owned(), status.error());
    }
    if !status.metadata.is_empty() {
        told.insert("metadata".to_owned(), Value::Object(status.metadata.clone()));
    }
    let text = Value::Object(told).to_string();
    let mut frame = BytesMut::with_capacity(text.len() + 5);
    frame.put_u8(END);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(text.as_bytes());
    frame.freeze()
}

/// Puts the trailers of a stream into its last frame.
struct Ending;

impl Transform for Ending {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        Ok(data)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let mut trailers = trailers.unwrap_or_default();
        let mut status = take_status(&mut trailers);
        for name in trailers.keys() {
            let values = trailers.get_all(name).iter().map(|value| Value::from(text(Some(value))));
            status.metadata.insert(name.as_str().to_owned(), values.collect());
        }
        Ok((end(&status), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_end_with_their_status_and_trailers() {
        let trailers = [("grpc-status", "5"), ("grpc-message", "no"), ("x-t", "1")];
        let trailers =
            trailers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let (frame, rest) = Ending.end(Some(HeaderMap::from_iter(trailers))).unwrap();
        assert!(rest.is_none());
        assert_eq!((frame[0], usize::from(frame[4])), (END, frame.len() - 5));
        let told: Value = serde_json::from_slice(&frame[5..]).unwrap();
        let expected = json!({"error": {"code": "not_found", "message": "no"}, "metadata": {"x-t": ["1"]}});
        assert_eq!(told, expected);
    }
}
