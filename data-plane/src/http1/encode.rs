//! The heads of requests and responses as bytes, and how their bodies are delimited.
//!
//! The codec alone writes what delimits the body: `content-length` and `transfer-encoding` of the head that it is given
//! say at most how long the body is meant to be.

use bytes::BufMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, StatusCode, Uri, request, response};
use hyper::ext::ReasonPhrase;
use sail_proxy_config::hcm::Http1Options;

use super::date;
use super::framing::Asked;
use super::names::Names;
use super::noted;
use crate::http::head::may_have_body;

/// How names of headers are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    Lower,
    /// `Content-Type`
    Proper,
}

/// How messages are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) spelling: Spelling,
    /// Trailers are written; else a body ends without.
    pub(crate) trailers: bool,
}

impl Form {
    /// As the configuration has it.
    pub(crate) fn of(options: &Http1Options) -> Self {
        let spelling = if options.header_case.is_proper() { Spelling::Proper } else { Spelling::Lower };
        Self { spelling, trailers: options.enable_trailers }
    }
}

/// What is known of a body before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Empty,
    Exact(u64),
    Unknown,
}

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// By the connection's end.
    Close,
}

/// To whom a response is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) asked: Asked,
    /// It speaks HTTP/1.0.
    pub(super) http10: bool,
    /// It may ask again on this connection.
    pub(super) keeps_alive: bool,
}

/// Writes a request's head; says how its body is to be written.
pub(super) fn request(
    out: &mut Vec<u8>,
    parts: &request::Parts,
    size: Size,
    spelling: Spelling,
) -> Delimiter {
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    target(out, &parts.uri);
    out.put_slice(b" HTTP/1.1\r\n");
    let speller = Speller { spelling, names: parts.extensions.get() };
    let noted = speller.put_all(out, &parts.headers);
    let delimiter = match (size, noted.length) {
        (Size::Empty, declared) => {
            if declared.is_some() || may_have_body(&parts.method) {
                speller.put_length(out, 0);
            }
            Delimiter::Length(0)
        }
        (_, Some(length)) | (Size::Exact(length), None) => {
            speller.put_length(out, length);
            Delimiter::Length(length)
        }
        (Size::Unknown, None) => {
            speller.put(out, &TRANSFER_ENCODING, b"chunked");
            Delimiter::Chunked
        }
    };
    out.put_slice(b"\r\n");
    delimiter
}

/// Writes a response's head; says how its body is to be written, and whether the connection goes on.
pub(super) fn response(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    size: Size,
    asker: Asker,
    spelling: Spelling,
) -> (Delimiter, bool) {
    status_line(out, parts, asker.http10);
    let speller = Speller { spelling, names: parts.extensions.get() };
    let noted = speller.put_all(out, &parts.headers);
    let declared = noted.length;
    let status = parts.status;
    let switches = asker.asked == Asked::Connect && status.is_success();
    let delimiter = if status.is_informational() || status == StatusCode::NO_CONTENT || switches {
        Delimiter::Length(0)
    } else if asker.asked == Asked::Head || status == StatusCode::NOT_MODIFIED {
        // As the body would be that is not sent.
        match declared {
            Some(length) => speller.put_length(out, length),
            None if status == StatusCode::NOT_MODIFIED || asker.http10 => {}
            None => speller.put(out, &TRANSFER_ENCODING, b"chunked"),
        }
        Delimiter::Length(0)
    } else {
        match (size, declared) {
            (Size::Empty, _) => {
                speller.put_length(out, 0);
                Delimiter::Length(0)
            }
            (_, Some(length)) | (Size::Exact(length), None) => {
                speller.put_length(out, length);
                Delimiter::Length(length)
            }
            (Size::Unknown, None) if asker.http10 => Delimiter::Close,
            (Size::Unknown, None) => {
                speller.put(out, &TRANSFER_ENCODING, b"chunked");
                Delimiter::Chunked
            }
        }
    };
    let goes_on = asker.keeps_alive && !noted.closes && delimiter != Delimiter::Close;
    if !noted.connection && !switches {
        match (goes_on, asker.http10) {
            (true, true) => speller.put(out, &CONNECTION, b"keep-alive"),
            (false, _) => speller.put(out, &CONNECTION, b"close"),
            (true, false) => {}
        }
    }
    if !noted.date {
        date::with_now(|now| speller.put(out, &DATE, now));
    }
    out.put_slice(b"\r\n");
    (delimiter, goes_on)
}

/// Writes the head of an informational response, which speaks of no body and no connection.
pub(super) fn interim(out: &mut Vec<u8>, parts: &response::Parts, spelling: Spelling) {
    status_line(out, parts, false);
    Speller { spelling, names: parts.extensions.get() }.put_all(out, &parts.headers);
    out.put_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, parts: &response::Parts, http10: bool) {
    out.put_slice(if http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(parts.status.as_str().as_bytes());
    out.put_u8(b' ');
    match parts.extensions.get::<ReasonPhrase>() {
        Some(reason) => out.put_slice(reason.as_bytes()),
        None => out.put_slice(parts.status.canonical_reason().unwrap_or("Unknown").as_bytes()),
    }
    out.put_slice(b"\r\n");
}

/// Writes trailers after the last chunk, and the end of the body.
pub(super) fn trailers(out: &mut Vec<u8>, trailers: &HeaderMap, spelling: Spelling) {
    // A trailer that would delimit the body must not reach a reader that merges trailers into headers.
    Speller { spelling, names: None }.put_all(out, trailers);
    out.put_slice(b"\r\n");
}

fn target(out: &mut Vec<u8>, uri: &Uri) {
    match (uri.scheme(), uri.authority()) {
        (None, Some(authority)) => out.put_slice(authority.as_str().as_bytes()),
        (Some(scheme), Some(authority)) => {
            out.put_slice(scheme.as_str().as_bytes());
            out.put_slice(b"://");
            out.put_slice(authority.as_str().as_bytes());
            path(out, uri);
        }
        _ => path(out, uri),
    }
}

fn path(out: &mut Vec<u8>, uri: &Uri) {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    out.put_slice(path.as_bytes());
}

/// What headers say that the codec has to know.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// How long the body is meant to be.
    length: Option<u64>,
    connection: bool,
    /// The message is the connection's last.
    closes: bool,
    date: bool,
}

/// Spells the names of headers.
#[derive(Clone, Copy)]
struct Speller<'a> {
    spelling: Spelling,
    /// As the other side did.
    names: Option<&'a Names>,
}

impl Speller<'_> {
    /// Writes all headers but those that delimit a body.
    fn put_all(self, out: &mut Vec<u8>, headers: &HeaderMap) -> Written {
        let mut noted = Written::default();
        let mut last: Option<&HeaderName> = None;
        let mut before = 0;
        for (name, value) in headers {
            if name == CONTENT_LENGTH {
                noted.length = noted::number(value.as_bytes());
                continue;
            }
            if name == TRANSFER_ENCODING {
                continue;
            }
            if name == CONNECTION {
                noted.connection = true;
                noted.closes |= value.as_bytes().eq_ignore_ascii_case(b"close");
            }
            noted.date |= name == DATE;
            if self.names.is_some() {
                // Values of one name stand together.
                before = if last == Some(name) { before + 1 } else { 0 };
                last = Some(name);
            }
            self.put_nth(out, name, before, value.as_bytes());
        }
        noted
    }

    fn put_length(self, out: &mut Vec<u8>, length: u64) {
        self.put(out, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
    }

    fn put(self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
        self.put_nth(out, name, 0, value);
    }

    fn put_nth(self, out: &mut Vec<u8>, name: &HeaderName, before: usize, value: &[u8]) {
        let known = self.names.and_then(|names| names.get(name, before));
        let name = name.as_str().as_bytes();
        out.reserve(name.len() + value.len() + 4);
        match (known, self.spelling) {
            (Some(known), _) => out.put_slice(known),
            (None, Spelling::Lower) => out.put_slice(name),
            (None, Spelling::Proper) => {
                let mut begins = true;
                for &byte in name {
                    out.put_u8(if begins { byte.to_ascii_uppercase() } else { byte });
                    begins = byte == b'-';
                }
            }
        }
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}
