//! `envoy.filters.http.decompressor`: plain bodies for those behind it.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use sail_proxy_config::http_filter::decompressor::{Decompressor, Direction};

use super::compression::{Decompressing, append_to_list, no_transform};
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::transform;
use crate::stats::sets::http_decompressor as stats;

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<Decompressor>,
    stats: stats::Scope,
}

impl Filter {
    pub(crate) fn new(config: &Arc<Decompressor>, build: &Build<'_>) -> Self {
        let encoding = config.codec.encoding.as_str();
        let name = format!("{}.decompressor.{}.{encoding}", build.prefix, config.codec_name);
        Self { config: config.clone(), stats: build.store.scope(&name) }
    }

    /// Decompresses a body whose outermost encoding is this filter's.
    fn decompress(
        &self,
        direction: &Direction,
        exchange: &Exchange,
        headers: &mut HeaderMap,
        body: &mut Body,
    ) -> bool {
        let wanted = direction.enabled.now(exchange.connection.worker.runtime())
            && !http_body::Body::is_end_stream(body)
            && (direction.ignore_no_transform || !no_transform(headers));
        if !wanted {
            return false;
        }
        let Some(rest) = inner_encodings(headers, self.config.codec.encoding.as_str()) else {
            return false;
        };
        let Ok(codec) = Decompressing::new(self.config.codec) else { return false };
        headers.remove(CONTENT_LENGTH);
        match HeaderValue::try_from(rest) {
            Ok(rest) if !rest.is_empty() => headers.insert(CONTENT_ENCODING, rest),
            _ => headers.remove(CONTENT_ENCODING),
        };
        transform::wrap(body, codec);
        true
    }
}

/// What is left of `content-encoding` when the outermost is taken off; `None` if that is another.
fn inner_encodings(headers: &HeaderMap, encoding: &str) -> Option<String> {
    let text = headers.get(CONTENT_ENCODING)?.to_str().ok()?;
    let (inner, outer) = text.rsplit_once(',').unwrap_or(("", text));
    outer.trim().eq_ignore_ascii_case(encoding).then(|| inner.trim().to_owned())
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, body, .. } = request;
        if self.config.advertise && self.config.response.enabled.now(exchange.connection.worker.runtime()) {
            append_to_list(&mut head.headers, ACCEPT_ENCODING, self.config.codec.encoding.as_str());
        }
        if self.decompress(&self.config.request, exchange, &mut head.headers, body) {
            self.stats.inc(stats::request_decompressed);
        } else {
            self.stats.inc(stats::request_not_decompressed);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        let taken = std::mem::replace(&mut reply.response, http::Response::new(Body::Empty));
        let (mut parts, mut body) = taken.into_parts();
        if self.decompress(&self.config.response, exchange, &mut parts.headers, &mut body) {
            self.stats.inc(stats::response_decompressed);
        } else {
            self.stats.inc(stats::response_not_decompressed);
        }
        reply.response = http::Response::from_parts(parts, body);
        None
    }
}
