//! A response's head: finds its end as bytes come, and takes it apart.
//!
//! A line ends in CRLF or, as RFC 9112 §2.2 lets it and Envoy takes it, in LF: what goes on is written anew. A bare CR, a
//! folded line or a space before a colon is no head: readers differ in what they make of those.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use super::error::Invalid;
use super::names::Names;
use super::noted::Noted;

/// How a head begins.
const VERSION: &[u8] = b"HTTP/1.";

/// Headers that are parsed without allocating: as many as Envoy takes by default.
const USUAL_HEADERS: usize = 100;

/// How large a head may be, and the trailers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) headers: usize,
    pub(crate) bytes: usize,
}

/// How heads are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    /// How names are spelled is told, and what stands beside a status.
    pub(crate) keeps_names: bool,
    /// What requests may ask for.
    pub(crate) requests: RequestRules,
}

/// What the first lines of requests may say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestRules {
    /// Methods that few know are taken, too.
    pub(crate) any_method: bool,
    /// Whole URLs must not be `https`: the connection is in the clear, and there is no proxy in front of us that may have
    /// taken TLS off.
    pub(crate) clear: bool,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) version: Version,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(super) noted: Noted,
    /// What has no place elsewhere: how names and the reason were spelled, where that is kept.
    pub(super) extensions: Extensions,
}

/// Looks for the empty line that ends a block of lines. It remembers how far it looked, so that a block which comes byte
/// by byte is looked at once.
#[derive(Debug, Default)]
pub(crate) struct EndOfLines {
    /// Where the line begins that has not ended yet.
    line: usize,
    /// So far no line ends after `line`.
    seen: usize,
    /// As much as was told of lines that have ended.
    told: usize,
}

impl EndOfLines {
    /// The lines of the input that have ended, if there are more than at the last time. To be asked while the block's end
    /// has not come. The number of lines is bounded, and so is the work of looking at them each time.
    pub(super) fn further<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let before = std::mem::replace(&mut self.told, self.line);
        input.get(..self.line).filter(|lines| lines.len() > before)
    }

    /// How long the block is, its empty line included; `None` if more must come.
    pub(crate) fn find(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Invalid> {
        let from = self.seen;
        for at in memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
            let end = from + at;
            let empty = end == self.line || (end == self.line + 1 && bytes[self.line] == b'\r');
            self.line = end + 1;
            if empty {
                *self = Self::default();
                return if end >= limit { Err(Invalid::HeadTooLarge) } else { Ok(Some(end + 1)) };
            }
        }
        self.seen = bytes.len();
        if bytes.len() > limit { Err(Invalid::HeadTooLarge) } else { Ok(None) }
    }
}

/// Reads heads from what has come.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    end: EndOfLines,
}

impl HeadReader {
    /// The next head, taken from the input; `None` if more must come. What cannot become a head is refused as soon as
    /// its line is there. The map's allocation is used for the headers.
    pub(crate) fn next(
        &mut self,
        input: &mut BytesMut,
        rules: Rules,
        map: &mut HeaderMap,
    ) -> Result<Option<Head>, Invalid> {
        let limits = rules.limits;
        if let Some(length) = self.end.find(input, limits.bytes)? {
            let block = input.split_to(length).freeze();
            let map = std::mem::take(map);
            return with_space(limits.headers, |space| parse(&block, space, map, rules.keeps_names))
                .map(Some);
        }
        let start = &input[..input.len().min(VERSION.len())];
        if !VERSION.starts_with(start) {
            return Err(Invalid::Head);
        }
        if let Some(lines) = self.end.further(input) {
            check(lines, limits.headers)?;
        }
        Ok(None)
    }
}

/// Whether these lines may be the first of a head.
fn check(lines: &[u8], max_headers: usize) -> Result<(), Invalid> {
    with_space(max_headers, |space| {
        let mut response = httparse::Response::new(&mut []);
        parser().parse_response_with_uninit_headers(&mut response, lines, space).map_err(invalid)?;
        Ok(())
    })
}

/// With room for so many headers.
pub(super) fn with_space<'a, T>(
    max_headers: usize,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'a>>]) -> T,
) -> T {
    if max_headers <= USUAL_HEADERS {
        parse(&mut [const { MaybeUninit::uninit() }; USUAL_HEADERS][..max_headers])
    } else {
        parse(&mut vec![MaybeUninit::uninit(); max_headers])
    }
}

fn parser() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    config
}

/// Takes a head apart whose end was found. The map's allocation is used; it is empty.
fn parse<'a>(
    block: &'a Bytes,
    space: &mut [MaybeUninit<httparse::Header<'a>>],
    mut map: HeaderMap,
    keeps_names: bool,
) -> Result<Head, Invalid> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = parser().parse_response_with_uninit_headers(&mut response, block, space).map_err(invalid)?;
    if parsed != httparse::Status::Complete(block.len()) {
        return Err(Invalid::Head);
    }
    let version = match response.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(Invalid::Head),
    };
    let code = response.code.ok_or(Invalid::Head)?;
    let status = StatusCode::from_u16(code).map_err(|_| Invalid::Head)?;
    map.try_reserve(response.headers.len()).map_err(|_| Invalid::TooManyHeaders)?;
    let mut noted = Noted::default();
    for header in &*response.headers {
        let name = name_of(header)?;
        noted.note(&name, header.value);
        append(&mut map, block, name, header)?;
    }
    let mut extensions = Extensions::new();
    if keeps_names {
        extensions.insert(Names::of(block, response.headers));
        let reason = Bytes::copy_from_slice(response.reason.unwrap_or_default().as_bytes());
        // The reader has seen to it that it is none that would end the line.
        if let Ok(reason) = ReasonPhrase::try_from(reason) {
            extensions.insert(reason);
        }
    }
    Ok(Head { version, status, headers: map, noted, extensions })
}

/// Takes trailers apart, whose end was found: headers without a line before them.
pub(crate) fn parse_trailers(block: &Bytes, max_headers: usize) -> Result<HeaderMap, Invalid> {
    let mut space = vec![httparse::EMPTY_HEADER; max_headers];
    let mut map = HeaderMap::new();
    match httparse::parse_headers(block, &mut space) {
        Ok(httparse::Status::Complete((length, headers))) if length == block.len() => {
            for header in headers {
                let added = name_of(header).and_then(|name| append(&mut map, block, name, header));
                added.map_err(|_| Invalid::Trailers)?;
            }
            Ok(map)
        }
        _ => Err(Invalid::Trailers),
    }
}

pub(super) fn name_of(header: &httparse::Header<'_>) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Invalid::Head)
}

/// The value stays where it is: it shares the block's memory.
pub(super) fn append(
    map: &mut HeaderMap,
    block: &Bytes,
    name: HeaderName,
    header: &httparse::Header<'_>,
) -> Result<(), Invalid> {
    let value = if header.value.is_empty() {
        HeaderValue::from_static("")
    } else {
        HeaderValue::from_maybe_shared(block.slice_ref(header.value)).map_err(|_| Invalid::Head)?
    };
    map.try_append(name, value).map_err(|_| Invalid::TooManyHeaders)?;
    Ok(())
}

fn invalid(error: httparse::Error) -> Invalid {
    match error {
        httparse::Error::TooManyHeaders => Invalid::TooManyHeaders,
        httparse::Error::NewLine => Invalid::LineEnd,
        _ => Invalid::Head,
    }
}
