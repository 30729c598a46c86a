//! `envoy.filters.http.buffer`: requests go on when they are whole.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter, Request};
use crate::http::gather;
use crate::http::local_reply::LocalReply;
use crate::stream_info::details;

/// The filter, with its limit.
pub(crate) struct Filter(pub(crate) u32);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let limit = match exchange.per_filter(name) {
            Some(PerFilterConfig::Buffer(None)) => return Flow::Continue,
            Some(PerFilterConfig::Buffer(Some(limit))) => limit,
            _ => self.0,
        };
        // A tunnel has no end that one could wait for.
        if head.protocol.is_some() || http_body::Body::is_end_stream(body) {
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(async move {
            let limit = limit as usize;
            let Ok(seen) = gather::gather(body, limit).await else {
                let details = details::DOWNSTREAM_REMOTE_RESET;
                return Flow::Reply(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", details)));
            };
            if seen.bytes.len() > limit {
                let details = details::REQUEST_PAYLOAD_TOO_LARGE;
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Flow::Reply(Box::new(LocalReply::new(status, "Payload Too Large", details)));
            }
            if !head.headers.contains_key(CONTENT_LENGTH) {
                head.headers.remove(TRANSFER_ENCODING);
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(seen.bytes.len()));
            }
            Flow::Continue
        }))
    }
}
