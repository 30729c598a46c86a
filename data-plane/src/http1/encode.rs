//! A request's head as bytes, and how its body is delimited.
//!
//! The codec alone writes what delimits the body: `content-length` and `transfer-encoding` of the head that it is given
//! say at most how long the body is meant to be.

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, Uri};

use super::framing;

/// How names of headers are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    Lower,
    /// `Content-Type`
    Proper,
}

/// What is known of a body before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Empty,
    Exact(u64),
    Unknown,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

/// Writes a head; says how its body is to be written.
pub(crate) fn head(
    out: &mut BytesMut,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    size: Size,
    spelling: Spelling,
) -> Delimiter {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    target(out, uri);
    out.put_slice(b" HTTP/1.1\r\n");
    let mut delimits = false;
    for (name, value) in headers {
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            delimits = true;
            continue;
        }
        put_header(out, name, value.as_bytes(), spelling);
    }
    let declared = if delimits { framing::content_length(headers).unwrap_or(None) } else { None };
    let delimiter = match (size, declared) {
        (Size::Empty, declared) => {
            if declared.is_some() || may_have_body(method) {
                put_length(out, 0, spelling);
            }
            Delimiter::Length(0)
        }
        (_, Some(length)) | (Size::Exact(length), None) => {
            put_length(out, length, spelling);
            Delimiter::Length(length)
        }
        (Size::Unknown, None) => {
            put_header(out, &TRANSFER_ENCODING, b"chunked", spelling);
            Delimiter::Chunked
        }
    };
    out.put_slice(b"\r\n");
    delimiter
}

/// Writes trailers after the last chunk, and the end of the body.
pub(crate) fn trailers(out: &mut BytesMut, trailers: &HeaderMap, spelling: Spelling) {
    for (name, value) in trailers {
        // A trailer that would delimit the body must not reach a reader that merges trailers into headers.
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            put_header(out, name, value.as_bytes(), spelling);
        }
    }
    out.put_slice(b"\r\n");
}

/// Without a length, servers may refuse a request that could have a body.
fn may_have_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE)
}

fn target(out: &mut BytesMut, uri: &Uri) {
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

fn path(out: &mut BytesMut, uri: &Uri) {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    out.put_slice(path.as_bytes());
}

fn put_length(out: &mut BytesMut, length: u64, spelling: Spelling) {
    put_header(out, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes(), spelling);
}

fn put_header(out: &mut BytesMut, name: &HeaderName, value: &[u8], spelling: Spelling) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    match spelling {
        Spelling::Lower => out.put_slice(name),
        Spelling::Proper => {
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
