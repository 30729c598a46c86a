//! How a message's body is delimited, by RFC 9112 §6.3, and whether its connection may serve another.

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version};

use super::error::Invalid;
use super::head::Head;

/// What a request's method says of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A response has no body.
    Head,
    /// A successful response has no end: the connection is a tunnel.
    Connect,
    Other,
}

impl From<&Method> for Asked {
    fn from(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Another head: this one is only informational.
    Interim,
    /// A body of so many bytes.
    Length(u64),
    Chunked,
    /// Everything up to the end of the connection.
    UntilClose,
    /// The connection speaks another protocol from here on.
    Switched,
}

/// Which body follows the head. `content-length: 0` is taken from responses that must not have it, as Envoy does.
pub(crate) fn of(head: &mut Head, asked: Asked) -> Result<Framing, Invalid> {
    let (chunked, length) = (head.noted.is_chunked()?, head.noted.length()?);
    if chunked && length.is_some() {
        return Err(Invalid::TransferEncoding);
    }
    let status = head.status;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        match length {
            _ if chunked => return Err(Invalid::TransferEncoding),
            None => {}
            Some(0) => {
                head.headers.remove(CONTENT_LENGTH);
            }
            Some(_) => return Err(Invalid::ContentLength),
        }
    }
    Ok(match (status.as_u16(), asked) {
        (101, _) | (200..=299, Asked::Connect) => Framing::Switched,
        (100..=199, _) => Framing::Interim,
        (204 | 304, _) | (_, Asked::Head) => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        _ => length.map_or(Framing::UntilClose, Framing::Length),
    })
}

/// Whether the upstream keeps the connection after this response.
pub(crate) fn keeps_alive(head: &Head, framing: Framing) -> bool {
    // HTTP/1.0 has no chunks: whoever sends them so may not know what they are.
    let mixed = head.version == Version::HTTP_10 && framing == Framing::Chunked;
    !mixed && head.noted.persists(head.version)
}
