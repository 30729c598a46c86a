//! `envoy.filters.http.cdn_loop`: requests that go round in circles between CDNs are stopped.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use sail_proxy_config::http_filter::CdnLoop;
use sail_proxy_decide::cdn_loop;
use sail_proxy_decide::head::joined;

use super::{Flow, HttpFilter, Request};
use crate::http::local_reply::LocalReply;

const HEADER: HeaderName = HeaderName::from_static("cdn-loop");

/// See the module's documentation.
pub(crate) struct Filter(pub(super) Arc<CdnLoop>);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let headers = &mut request.head.headers;
        let config = &self.0;
        let Some(value) = joined(headers, &HEADER) else {
            headers.insert(HEADER, config.value.clone());
            return Flow::Continue;
        };
        let reply = |status, body, details| Flow::Reply(Box::new(LocalReply::new(status, body, details)));
        let count = std::str::from_utf8(&value).map_err(|_| cdn_loop::Invalid);
        match count.and_then(|value| cdn_loop::count(value, &config.id)) {
            Err(_) => reply(StatusCode::BAD_REQUEST, "Invalid CDN-Loop header.", "invalid_cdn_loop_header"),
            Ok(count) if count > config.max => reply(
                StatusCode::BAD_GATEWAY,
                "The server has detected a loop between CDNs.",
                "cdn_loop_detected",
            ),
            Ok(_) => {
                let all = [&*value, b",", config.value.as_bytes()].concat();
                if let Ok(all) = HeaderValue::from_bytes(&all) {
                    headers.insert(HEADER, all);
                }
                Flow::Continue
            }
        }
    }
}
