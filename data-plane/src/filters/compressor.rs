//! `envoy.filters.http.compressor`: compresses what the other side says it can read.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, TRANSFER_ENCODING,
    VARY,
};
use http::{HeaderMap, HeaderValue};
use sail_proxy_config::http_filter::compression::Compress;
use sail_proxy_config::http_filter::compressor::{Compressor, CompressorPerRoute, Direction};

use super::compression::{Compressing, append_to_list, no_transform};
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
use crate::http::exchange::Exchange;
use crate::http::transform::{self, Transform};
use crate::stats::Counter;
use crate::stats::sets::{http_compressor as stats, http_compressor_choice as choice};

/// All compressors of a chain share this: one of them is chosen.
const SHARED: &str = "compressor";

const STATUS: HeaderName = HeaderName::from_static("x-envoy-compression-status");

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<Compressor>,
    requests: stats::Scope,
    responses: stats::Scope,
    choices: choice::Scope,
}

/// What the client takes, and who could give it, in the order of the filters.
#[derive(Clone, Default)]
struct Offer {
    accept: Option<String>,
    /// Encodings, and whether they are preferred.
    offered: Vec<(&'static str, bool)>,
}

impl Filter {
    pub(crate) fn new(config: &Arc<Compressor>, build: &Build<'_>) -> Self {
        let encoding = config.codec.encoding.statistic();
        let name = format!("{}.compressor.{}.{encoding}", build.prefix, config.codec_name);
        let response = if config.names_response { format!("{name}.response") } else { name.clone() };
        Self {
            config: config.clone(),
            requests: build.store.scope(&format!("{name}.request")),
            responses: build.store.scope(&response),
            choices: build.store.scope(&response),
        }
    }

    fn per_route(&self, exchange: &Exchange, name: &str) -> Option<Arc<CompressorPerRoute>> {
        exchange.per_filter(name).and_then(|config| config.get())
    }
}

fn is_enabled(direction: &Direction, exchange: &Exchange) -> bool {
    direction.enabled.now(exchange.connection.worker.runtime())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

fn is_long_enough(direction: &Direction, headers: &HeaderMap, stats: &stats::Scope) -> bool {
    let long = length(headers).is_none_or(|length| length >= direction.min_length);
    if !long {
        stats.inc(stats::content_length_too_small);
    }
    long
}

/// What the client's wishes come to, as it is counted.
fn choice_of(offer: &Offer, best: Option<&str>, chosen: bool) -> Counter<choice::Set> {
    let Some(accept) = offer.accept.as_deref() else { return choice::no_accept_header };
    match best {
        None if accept.split(',').any(|part| part.trim_start().starts_with("identity")) => {
            choice::header_identity
        }
        None => choice::header_not_valid,
        Some(best) if !accept.contains(best) => choice::header_wildcard,
        Some(_) if chosen => choice::header_compressor_used,
        Some(_) => choice::header_compressor_overshadowed,
    }
}

fn is_of_type(direction: &Direction, headers: &HeaderMap) -> bool {
    let Some(media) = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default()) else {
        // Envoy takes what has no type.
        return true;
    };
    let media = media.split(';').next().unwrap_or_default().trim();
    direction.types.iter().any(|wanted| media.eq_ignore_ascii_case(wanted))
        || direction.type_matchers.iter().any(|matcher| matcher.is_match(media.as_bytes()))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoded = |name: HeaderName| {
        headers.get_all(name).iter().any(|value| {
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            ["gzip", "deflate", "compress", "br", "zstd"]
                .iter()
                .any(|one| text.split(',').any(|part| part.trim() == *one))
        })
    };
    headers.contains_key(CONTENT_ENCODING) || encoded(TRANSFER_ENCODING)
}

/// The encoding that the client likes best among those that are offered.
fn choose(offer: &Offer) -> Option<&'static str> {
    let accept = offer.accept.as_deref()?;
    let mut best: Option<(&'static str, u32, bool)> = None;
    for (encoding, preferred) in &offer.offered {
        let quality = quality(accept, encoding);
        let better = best.is_none_or(|(_, old, was)| quality > old || (quality == old && *preferred && !was));
        if quality > 0 && better {
            best = Some((encoding, quality, *preferred));
        }
    }
    let identity = accept.split(',').filter(|part| part.trim_start().starts_with("identity"));
    let identity = identity.map(thousandths).max().unwrap_or(0);
    best.filter(|(_, quality, _)| *quality >= identity).map(|(encoding, ..)| encoding)
}

/// How much `accept-encoding` likes an encoding, in thousandths.
fn quality(accept: &str, encoding: &str) -> u32 {
    let named = |wanted: &str| {
        let mut parts = accept.split(',').map(str::trim);
        let name =
            |part: &&str| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted);
        parts.find(name).map(thousandths)
    };
    named(encoding).or_else(|| named("*")).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
fn thousandths(part: &str) -> u32 {
    let quality = part.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    quality.map_or(1000, |text| (text.trim().parse::<f64>().unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32)
}

/// Counts the bytes.
struct Counting {
    codec: Compressing,
    stats: stats::Scope,
}

impl Transform for Counting {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.stats.add(stats::total_uncompressed_bytes, data.len() as u64);
        let out = self.codec.data(data)?;
        self.stats.add(stats::total_compressed_bytes, out.len() as u64);
        Ok(out)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let (out, trailers) = self.codec.end(trailers)?;
        self.stats.add(stats::total_compressed_bytes, out.len() as u64);
        Ok((out, trailers))
    }
}

fn compress(library: Compress, headers: &mut HeaderMap, body: &mut Body, stats: &stats::Scope) -> bool {
    let Ok(codec) = Compressing::new(library) else { return false };
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(library.encoding.as_str()));
    transform::wrap(body, Counting { codec, stats: stats.clone() });
    true
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let per_route = self.per_route(exchange, name);
        let encoding = self.config.codec.encoding.as_str();
        let remove = match per_route.as_deref() {
            Some(CompressorPerRoute::Disabled) => return Flow::Continue,
            Some(CompressorPerRoute::Overrides { remove_accept_encoding: Some(remove), .. }) => *remove,
            _ => self.config.remove_accept_encoding,
        };
        let mut state = exchange.state();
        let mut offer = state.take::<Offer>(SHARED).unwrap_or_default();
        offer.offered.push((encoding, self.config.choose_first));
        if is_enabled(&self.config.response, exchange) {
            let accept = head.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
            let accept: Vec<&str> = accept.collect();
            // A filter before this one may have taken the header away.
            if !accept.is_empty() {
                offer.accept = Some(accept.join(","));
            }
            if remove {
                head.headers.remove(ACCEPT_ENCODING);
            }
        }
        state.put(SHARED, offer);
        drop(state);
        let direction = self.config.request.as_ref().filter(|direction| is_enabled(direction, exchange));
        let wanted = direction.is_some_and(|direction| {
            let open = head.protocol.is_none() && !http_body::Body::is_end_stream(body);
            open && is_long_enough(direction, &head.headers, &self.requests)
                && is_of_type(direction, &head.headers)
                && !is_encoded(&head.headers)
                && !no_transform(&head.headers)
        });
        let compressed = wanted && compress(self.config.codec, &mut head.headers, body, &self.requests);
        self.requests.inc(if compressed { stats::compressed } else { stats::not_compressed });
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let per_route = self.per_route(exchange, name);
        let library = match per_route.as_deref() {
            Some(CompressorPerRoute::Disabled) => return None,
            Some(CompressorPerRoute::Overrides { library: Some(library), .. }) => *library,
            _ => self.config.codec,
        };
        let direction = &self.config.response;
        if !is_enabled(direction, exchange) {
            self.responses.inc(stats::not_compressed);
            return None;
        }
        let offer = exchange.state().take::<Offer>(SHARED).unwrap_or_default();
        exchange.state().put(SHARED, offer.clone());
        let status = reply.response.status().as_u16();
        let (parts, mut body) =
            std::mem::replace(&mut reply.response, http::Response::new(Body::Empty)).into_parts();
        let mut parts = parts;
        let headers = &mut parts.headers;
        let empty = http_body::Body::is_end_stream(&body) || matches!(status, 204 | 304);
        // An answer of the proxy's own without a body has no length yet where Envoy looks.
        let ours = empty && reply.lease.is_none();
        let long_enough = ours || is_long_enough(direction, headers, &self.responses);
        let eligible = long_enough
            && status != 101
            && !self.config.uncompressible.contains(&status)
            && is_of_type(direction, headers)
            && !no_transform(headers)
            && self.takes_etag(headers)
            && !headers.contains_key(CONTENT_ENCODING);
        let best = choose(&offer);
        let chosen = best == Some(self.config.codec.encoding.as_str());
        if long_enough && !empty {
            self.choices.inc(choice_of(&offer, best, chosen));
        }
        let encoded = is_encoded(headers) || no_transform(headers);
        let original = length(headers);
        let compressed = eligible
            && chosen
            && !empty
            && !encoded
            && compress(library, headers, &mut body, &self.responses);
        if compressed {
            self.etag(headers);
            self.responses.inc(stats::compressed);
        } else {
            self.responses.inc(stats::not_compressed);
        }
        if self.config.status_header && !encoded | compressed && !empty {
            self.tell_status(headers, original, status, compressed, chosen);
        }
        if eligible {
            append_to_list(headers, VARY, "Accept-Encoding");
        }
        reply.response = http::Response::from_parts(parts, body);
        None
    }
}

impl Filter {
    fn takes_etag(&self, headers: &HeaderMap) -> bool {
        let takes = !self.config.disable_on_etag || !headers.contains_key(ETAG);
        if !takes {
            self.choices.inc(choice::not_compressed_etag);
        }
        takes
    }

    /// Adds what became of the response, and why.
    fn tell_status(
        &self,
        headers: &mut HeaderMap,
        original: Option<u64>,
        status: u16,
        compressed: bool,
        chosen: bool,
    ) {
        let direction = &self.config.response;
        let what = if compressed {
            original.map_or("Compressed".to_owned(), |length| format!("Compressed;OriginalLength={length}"))
        } else if length(headers).is_some_and(|length| length < direction.min_length) {
            "ContentLengthTooSmall".to_owned()
        } else if !is_of_type(direction, headers) {
            "ContentTypeNotAllowed".to_owned()
        } else if chosen && self.config.disable_on_etag && headers.contains_key(ETAG) {
            "EtagNotAllowed".to_owned()
        } else if chosen && self.config.uncompressible.contains(&status) {
            "StatusCodeNotAllowed".to_owned()
        } else {
            return;
        };
        let encoding = self.config.codec.encoding.as_str();
        if let Ok(value) = HeaderValue::try_from(format!("{encoding};{what}")) {
            headers.append(STATUS, value);
        }
    }

    /// A strong tag stands for the bytes as they were.
    fn etag(&self, headers: &mut HeaderMap) {
        let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else { return };
        let weak = tag.to_str().ok().and_then(|tag| HeaderValue::try_from(format!("W/{tag}")).ok());
        match weak.filter(|_| self.config.weaken_etag) {
            Some(weak) => {
                headers.insert(ETAG, weak);
            }
            None => {
                headers.remove(ETAG);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses() {
        let check = |accept: &str, expect: Option<&str>| {
            let offered = vec![("gzip", false), ("br", false), ("zstd", true)];
            let offer = Offer { accept: Some(accept.to_owned()), offered };
            assert_eq!(choose(&offer), expect, "{accept}");
        };
        check("gzip", Some("gzip"));
        check("gzip;q=0.5, br", Some("br"));
        check("gzip, br, zstd", Some("zstd"));
        check("*", Some("zstd"));
        check("gzip;q=0, identity", None);
        check("deflate", None);
        check("identity, gzip;q=0.5", None);
    }
}
