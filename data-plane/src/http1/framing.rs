//! How a message's body is delimited, by RFC 9112 §6.3, and whether its connection may serve another.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};

use super::error::Invalid;
use super::head::{Head, PROXY_CONNECTION, Present};

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
    let chunked = head.present.coding && is_chunked(&head.headers)?;
    let length = if head.present.length { content_length(&head.headers)? } else { None };
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
    !mixed && persists(head.version, &head.headers, head.present)
}

/// Whether a message leaves its connection open, by RFC 9112 §9.3.
pub(super) fn persists(version: Version, headers: &HeaderMap, present: Present) -> bool {
    let mut alive = version == Version::HTTP_11;
    if !present.connection {
        return alive;
    }
    for name in [CONNECTION, PROXY_CONNECTION] {
        for value in headers.get_all(name) {
            for token in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    return false;
                }
                alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    alive
}

/// The one coding that Envoy takes, and that every reader takes alike.
pub(super) fn is_chunked(headers: &HeaderMap) -> Result<bool, Invalid> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_none() && value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        Ok(true)
    } else {
        Err(Invalid::TransferEncoding)
    }
}

/// The one length that is given, in digits alone.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Invalid> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.is_empty() {
        return Err(Invalid::ContentLength);
    }
    let number = value.as_bytes().iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.map(Some).ok_or(Invalid::ContentLength)
}
