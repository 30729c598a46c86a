//! Responses that the proxy gives itself.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::Body;
use crate::stream_info::ResponseFlag;

/// A response that no upstream gave.
#[derive(Clone, Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    pub(crate) body: Cow<'static, str>,
    pub(crate) flag: Option<ResponseFlag>,
    pub(crate) details: Cow<'static, str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// In place of the one that follows from the HTTP status.
    pub(crate) grpc_status: Option<u32>,
}

impl LocalReply {
    pub(crate) fn new(status: StatusCode, body: &'static str, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Cow::Borrowed(body),
            flag: None,
            details: details.into(),
            headers: Vec::new(),
            grpc_status: None,
        }
    }

    pub(crate) fn flag(mut self, flag: ResponseFlag) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As a gRPC client reads it, or as everybody else does.
    pub(crate) fn into_response(self, grpc: bool) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        if grpc {
            let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(status));
            if !self.body.is_empty()
                && let Ok(message) = HeaderValue::from_str(&encode_message(&self.body))
            {
                headers.insert("grpc-message", message);
            }
            headers.extend(self.headers);
            return response;
        }
        if !self.body.is_empty() {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        } else if !self.status.is_informational() && self.status != StatusCode::NO_CONTENT {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        *response.status_mut() = self.status;
        *response.body_mut() = match self.body {
            Cow::Borrowed(text) => Body::text(text),
            Cow::Owned(text) => Body::text(text),
        };
        response
    }
}

/// gRPC's mapping of HTTP statuses.
pub(crate) fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Percent-encoding as gRPC asks for in `grpc-message`.
fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_clients_get_trailers_only() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "x");
        let response = reply.clone().into_response(true);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "no healthy upstream");
        let response = reply.into_response(false);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["content-length"], "19");
    }
}
