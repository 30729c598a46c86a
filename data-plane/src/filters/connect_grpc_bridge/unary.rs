//! Calls with one message each way: the message is the body, the status is HTTP's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;

use super::{GRPC_ACCEPT_ENCODING, GRPC_ENCODING, rename, take_status, to_grpc};
use crate::filters::Flow;
use crate::http::body::Body;
use crate::http::gather;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stream_info::details;

/// As much of a message as is held.
const LIMIT: usize = 1024 * 1024;

/// A call's message.
pub(super) struct Message {
    /// The message, where it is not the body.
    pub(super) bytes: Option<Bytes>,
    pub(super) compressed: bool,
}

impl Message {
    /// The message is the body.
    pub(super) fn of_body(head: &mut Head, codec: &str) -> Self {
        rename(&mut head.headers, &header::CONTENT_ENCODING, &GRPC_ENCODING);
        rename(&mut head.headers, &header::ACCEPT_ENCODING, &GRPC_ACCEPT_ENCODING);
        to_grpc(head, codec);
        Self { bytes: None, compressed: is_compressed(&head.headers) }
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(GRPC_ENCODING).is_some_and(|value| value != "identity")
}

/// A call whose message stands in the query.
pub(super) fn get(head: &mut Head) -> Option<Message> {
    let (path, query) = head.path.as_str().split_once('?')?;
    let param = |name: &str| {
        let mut all = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = all.find(|(key, _)| *key == name)?;
        Some(percent_decode_str(value).collect::<Vec<u8>>())
    };
    if param("connect")? != b"v1" {
        return None;
    }
    let message = param("message")?;
    let codec = String::from_utf8(param("encoding")?).ok()?;
    let message = match param("base64").as_deref() {
        Some(b"1") => {
            let text: Vec<u8> = message.into_iter().filter(|byte| *byte != b'=').collect();
            URL_SAFE_NO_PAD.decode(text).ok()?
        }
        _ => message,
    };
    let compression = param("compression").and_then(|name| HeaderValue::try_from(name).ok());
    let path = path.parse().ok()?;
    head.path = path;
    head.method = Method::POST;
    rename(&mut head.headers, &header::ACCEPT_ENCODING, &GRPC_ACCEPT_ENCODING);
    if let Some(compression) = compression {
        head.headers.insert(GRPC_ENCODING, compression);
    }
    to_grpc(head, &codec);
    Some(Message { bytes: Some(message.into()), compressed: is_compressed(&head.headers) })
}

/// A message as gRPC frames it.
pub(super) fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(compressed.into());
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Frames a body.
pub(super) async fn frame(body: &mut Body, compressed: bool) -> Flow<'static> {
    match gather::gather(body, LIMIT).await {
        Ok(seen) if seen.complete => {
            *body = Body::text(framed(&seen.bytes, compressed));
            Flow::Continue
        }
        Ok(_) => {
            let details = details::REQUEST_PAYLOAD_TOO_LARGE;
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Flow::Reply(Box::new(LocalReply::new(status, "Payload Too Large", details)))
        }
        Err(_) => {
            let details = details::DOWNSTREAM_REMOTE_RESET;
            Flow::Reply(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", details)))
        }
    }
}

/// Turns a response into the message, or into what went wrong.
pub(super) async fn respond(reply: &mut Reply, codec: String) {
    let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    // A response that breaks off has no status, which is an error below.
    let (mut bytes, trailers) = match http_body_util::Limited::new(body, LIMIT).collect().await {
        Ok(all) => {
            let trailers = all.trailers().cloned();
            (all.to_bytes(), trailers)
        }
        Err(_) => (Bytes::new(), None),
    };
    if let Some(lease) = reply.lease.take() {
        lease.finish();
    }
    let headers = reply.response.headers_mut();
    let mut trailers = trailers.unwrap_or_default();
    let status = if headers.contains_key(super::GRPC_STATUS) {
        take_status(headers)
    } else {
        take_status(&mut trailers)
    };
    for (name, value) in &trailers {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
    if status.is_ok() {
        rename(headers, &GRPC_ENCODING, &header::CONTENT_ENCODING);
        rename(headers, &GRPC_ACCEPT_ENCODING, &header::ACCEPT_ENCODING);
        if let Ok(value) = HeaderValue::try_from(format!("application/{codec}")) {
            headers.insert(CONTENT_TYPE, value);
        }
        bytes.advance(bytes.len().min(5));
    } else {
        headers.remove(GRPC_ENCODING);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        bytes = status.error().to_string().into();
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    *reply.response.status_mut() = http_status(status.code);
    *reply.response.body_mut() = Body::text(bytes);
}

/// Envoy's mapping of gRPC's codes.
fn http_status(code: Option<u32>) -> StatusCode {
    match code {
        Some(0) => StatusCode::OK,
        Some(1 | 4) => StatusCode::REQUEST_TIMEOUT,
        Some(3 | 11) => StatusCode::BAD_REQUEST,
        Some(5 | 12) => StatusCode::NOT_FOUND,
        Some(6 | 10) => StatusCode::CONFLICT,
        Some(7) => StatusCode::FORBIDDEN,
        Some(8) => StatusCode::TOO_MANY_REQUESTS,
        Some(9) => StatusCode::PRECONDITION_FAILED,
        Some(14) => StatusCode::SERVICE_UNAVAILABLE,
        Some(16) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
