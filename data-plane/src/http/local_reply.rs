//! Responses that the proxy gives itself, and how configuration rewrites them.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use sail_proxy_config::hcm::{BodyFormat, LocalReply as Rewrite, ReplyMapper};

use super::body::Body;
use super::exchange::Exchange;
use crate::access_log::{self, LogType, View};
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
    /// The response as it goes out: nothing rewrites it.
    pub(crate) whole: Option<Box<Response<Bytes>>>,
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
            whole: None,
        }
    }

    /// A response that stays as it is.
    pub(crate) fn whole(response: Response<Bytes>, details: impl Into<Cow<'static, str>>) -> Self {
        Self { whole: Some(Box::new(response)), ..Self::new(StatusCode::OK, "", details) }
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
        if let Some(whole) = self.whole {
            return whole.map(Body::text);
        }
        let body = match self.body {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        };
        let content = Content { status: self.status, body, kind: HeaderValue::from_static("text/plain") };
        let headers = HeaderMap::from_iter(self.headers);
        content.respond(headers, grpc, self.grpc_status)
    }
}

/// What a response is made of once everybody had a say.
pub(crate) struct Content {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) kind: HeaderValue,
}

impl Content {
    fn respond(self, mut headers: HeaderMap, grpc: bool, grpc_code: Option<u32>) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        if grpc {
            let status = grpc_code.unwrap_or_else(|| grpc_status(self.status));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(status));
            let text = String::from_utf8_lossy(&self.body);
            if !text.is_empty()
                && let Ok(message) = HeaderValue::from_str(&encode_message(&text))
            {
                headers.insert("grpc-message", message);
            }
            *response.headers_mut() = headers;
            return response;
        }
        if !self.body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            headers.entry(CONTENT_TYPE).or_insert(self.kind);
        } else {
            headers.remove(CONTENT_TYPE);
            if !self.status.is_informational() && self.status != StatusCode::NO_CONTENT {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            }
        }
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        *response.body_mut() = Body::text(self.body);
        response
    }
}

/// The response for a local reply, as the manager's configuration rewrites it. What is said of it is noted first, and
/// the request's head must be noted already: filters and formats read it.
pub(crate) fn respond(exchange: &Exchange, reply: LocalReply) -> Response<Body> {
    {
        let mut info = exchange.info.borrow_mut();
        if let Some(flag) = reply.flag {
            info.flag(flag);
        }
        info.code_details = Some(reply.details.clone());
        let status = reply.whole.as_ref().map_or(reply.status, |whole| whole.status());
        info.response_code = Some(status.as_u16());
        info.local_reply_body = Some(reply.body.clone()).filter(|body| !body.is_empty());
    }
    let grpc = exchange.grpc.get();
    let rewrite = exchange.connection.manager.config.local_reply.as_ref();
    let Some(rewrite) = rewrite.filter(|_| reply.whole.is_none()) else {
        return reply.into_response(grpc);
    };
    let body = match reply.body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    };
    let content = Content { status: reply.status, body, kind: HeaderValue::from_static("text/plain") };
    rewrite_content(exchange, rewrite, content, HeaderMap::from_iter(reply.headers), reply.grpc_status)
}

/// A direct response: a local reply to whoever configured it, and to clients of gRPC.
pub(crate) fn direct(exchange: &Exchange, content: Content, headers: HeaderMap) -> Response<Body> {
    let Some(rewrite) = &exchange.connection.manager.config.local_reply else {
        let empty = content.body.is_empty();
        let mut response = content.respond(headers, exchange.grpc.get(), None);
        if empty {
            // The codec says how long nothing is, and another response may take this one's place before.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        return response;
    };
    {
        let mut info = exchange.info.borrow_mut();
        info.response_code = Some(content.status.as_u16());
        info.local_reply_body = Some(String::from_utf8_lossy(&content.body).into_owned().into());
    }
    rewrite_content(exchange, rewrite, content, headers, None)
}

fn rewrite_content(
    exchange: &Exchange,
    rewrite: &Rewrite,
    mut content: Content,
    mut headers: HeaderMap,
    grpc_code: Option<u32>,
) -> Response<Body> {
    let mapper = {
        let info = exchange.info.borrow();
        let view = View::new(&info, LogType::NotAccepted).with_response(&headers);
        let runtime = exchange.connection.worker.runtime();
        rewrite.mappers.iter().find(|mapper| access_log::passes(&mapper.filter, &view, runtime))
    };
    let (body, kind) = (content.body.clone(), headers.get(CONTENT_TYPE).cloned());
    if let Some(mapper) = mapper {
        add_headers(exchange, mapper, &mut headers);
        content.status = mapper.status.unwrap_or(content.status);
        content.body = mapper.body.clone().unwrap_or(content.body);
        exchange.info.borrow_mut().response_code = Some(content.status.as_u16());
    }
    let format = mapper.and_then(|mapper| mapper.body_format.as_ref()).or(rewrite.body_format.as_ref());
    if let Some(BodyFormat { format, content_type }) = format {
        let text = {
            let info = exchange.info.borrow();
            let body = String::from_utf8_lossy(&content.body);
            let view = View::new(&info, LogType::NotAccepted).with_response(&headers).with_body(&body);
            access_log::formatted(format, &view)
        };
        content.body = text.into();
        content.kind = content_type.clone();
    }
    // Another body is of another type, but where the mapper says which.
    if content.body != body && headers.get(CONTENT_TYPE) == kind.as_ref() {
        headers.remove(CONTENT_TYPE);
    }
    let status_changed = mapper.is_some_and(|mapper| mapper.status.is_some());
    content.respond(headers, exchange.grpc.get(), grpc_code.filter(|_| !status_changed))
}

fn add_headers(exchange: &Exchange, mapper: &ReplyMapper, headers: &mut HeaderMap) {
    if mapper.headers.is_empty() {
        return;
    }
    let before = headers.clone();
    let info = exchange.info.borrow();
    let view = View::new(&info, LogType::NotAccepted).with_response(&before);
    mapper.headers.apply(headers, &view);
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
pub(crate) fn encode_message(text: &str) -> String {
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
