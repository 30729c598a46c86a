//! `envoy.filters.http.decompressor`: plain bodies for those behind it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue};
use sail_proxy_config::http_filter::decompressor::{Decompressor, Direction};

use super::compression::{Decompressing, append_to_list, no_transform};
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
use crate::http::exchange::Exchange;
use crate::http::transform::{self, Transform};
use crate::stats::Counter;
use crate::stats::sets::http_decompressor as stats;

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<Decompressor>,
    stats: stats::Scope,
}

impl Filter {
    pub(crate) fn new(config: &Arc<Decompressor>, build: &Build<'_>) -> Self {
        let encoding = config.codec.encoding.statistic();
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
        bytes: Counters,
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
        let library = &self.config.codec_name;
        let name =
            |kind: &str| HeaderName::try_from(format!("x-envoy-decompressor-{library}-{kind}-bytes")).ok();
        let names = [name("compressed"), name("uncompressed")];
        transform::wrap(
            body,
            Counting { codec, names, stats: self.stats.clone(), counters: bytes, bytes: [0; 2] },
        );
        true
    }
}

/// Bytes before and after.
type Counters = [Counter<stats::Set>; 2];

/// Counts the bytes, and tells them in trailers.
struct Counting {
    codec: Decompressing,
    names: [Option<HeaderName>; 2],
    stats: stats::Scope,
    counters: Counters,
    bytes: [u64; 2],
}

impl Transform for Counting {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.bytes[0] += data.len() as u64;
        let out = self.codec.data(data)?;
        self.bytes[1] += out.len() as u64;
        Ok(out)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let (out, trailers) = self.codec.end(trailers)?;
        self.bytes[1] += out.len() as u64;
        let mut trailers = trailers.unwrap_or_default();
        for ((name, counter), bytes) in self.names.iter().zip(self.counters).zip(self.bytes) {
            self.stats.add(counter, bytes);
            if let Some(name) = name {
                trailers.insert(name, HeaderValue::from(bytes));
            }
        }
        Ok((out, Some(trailers)))
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
        if http_body::Body::is_end_stream(body) {
            return Flow::Continue;
        }
        let bytes = [stats::request_total_compressed_bytes, stats::request_total_uncompressed_bytes];
        if self.decompress(&self.config.request, exchange, &mut head.headers, body, bytes) {
            self.stats.inc(stats::request_decompressed);
        } else {
            self.stats.inc(stats::request_not_decompressed);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        if http_body::Body::is_end_stream(reply.response.body()) {
            return None;
        }
        let bytes = [stats::response_total_compressed_bytes, stats::response_total_uncompressed_bytes];
        let taken = std::mem::replace(&mut reply.response, http::Response::new(Body::Empty));
        let (mut parts, mut body) = taken.into_parts();
        if self.decompress(&self.config.response, exchange, &mut parts.headers, &mut body, bytes) {
            self.stats.inc(stats::response_decompressed);
        } else {
            self.stats.inc(stats::response_not_decompressed);
        }
        reply.response = http::Response::from_parts(parts, body);
        None
    }
}
