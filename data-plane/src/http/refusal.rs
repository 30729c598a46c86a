//! Requests that the HTTP/1 codec cannot read: they are answered, counted and logged as others are.

use std::rc::Rc;

use bytes::BytesMut;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use sail_proxy_config::hcm::HeaderCase;
use tokio::io::AsyncWriteExt;

use super::body::Body;
use super::conn::Connection;
use super::exchange::{Exchange, Guard};
use super::handler::{self, Asked, Reply};
use super::local_reply::{self, LocalReply};
use super::watched::{Refused, Watched};
use crate::stats::sets::http as stats;
use crate::stream_info::{Protocol, ResponseFlag, details};

/// Whether these bytes are the codec's own answer to what it cannot read. It says less than we want to, and nobody
/// hears of it. Our responses have other headers before `connection`.
pub(super) fn is_the_codecs(bytes: &[u8]) -> bool {
    const HEADERS: &[u8] = b"connection: close\r\ncontent-length: 0\r\ndate: ";
    if !bytes.starts_with(b"HTTP/1.") || bytes.get(8..10) != Some(b" 4") {
        return false;
    }
    let rest = bytes.windows(2).position(|pair| pair == b"\r\n").and_then(|end| bytes.get(end + 2..));
    rest.and_then(|rest| rest.get(..HEADERS.len())).is_some_and(|rest| rest.eq_ignore_ascii_case(HEADERS))
}

/// What the client is told. `rest`: what the codec had read, from the head that it could not make sense of.
pub(super) fn reply(
    connection: &Connection,
    refused: Refused,
    error: Option<&hyper::Error>,
    rest: &[u8],
) -> LocalReply {
    if refused == Refused::TooSlow {
        let details = details::REQUEST_HEADER_TIMEOUT;
        return LocalReply::new(StatusCode::REQUEST_TIMEOUT, "request header timeout", details);
    }
    let manager = &connection.manager;
    // The codec tells its errors apart in words alone.
    let words = error.map(ToString::to_string).unwrap_or_default();
    let too_large = words.contains("too large") || words.contains("too long");
    let coded = words.contains("transfer-encoding");
    let other_version =
        words.contains("version") && version(rest).is_some_and(|word| word.starts_with(b"HTTP/"));
    let too_old = other_version || is_without_version(rest);
    let of_http10 = coded && words.contains("unexpected");
    let reply = if too_large {
        let end = rest.windows(4).position(|end| end == b"\r\n\r\n").map_or(rest.len(), |end| end + 4);
        let many = end <= manager.max_header_bytes();
        let details = if many { details::HTTP1_TOO_MANY_HEADERS } else { details::HTTP1_HEADERS_TOO_LARGE };
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        LocalReply::new(status, "Request Header Fields Too Large", details)
    } else if too_old || of_http10 && !manager.accepts_http10() {
        LocalReply::new(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", details::LOW_VERSION)
    } else if of_http10 {
        let details = details::HTTP1_TRANSFER_ENCODING_NOT_ALLOWED;
        LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details)
    } else if coded {
        let details = details::HTTP1_INVALID_TRANSFER_ENCODING;
        LocalReply::new(StatusCode::NOT_IMPLEMENTED, "Not Implemented", details)
    } else {
        let control = words.contains("header") && rest.iter().any(|byte| is_control(*byte));
        let details = if control { details::HTTP1_INVALID_CHARACTERS } else { details::HTTP1_PROTOCOL_ERROR };
        LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details)
    };
    reply.flag(ResponseFlag::DownstreamProtocolError)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')
}

fn words_of_line(rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.trim_ascii_end().split(|byte| *byte == b' ')
}

/// What stands behind the target.
fn version(rest: &[u8]) -> Option<&[u8]> {
    words_of_line(rest).nth(2)
}

/// `GET /path`, as before HTTP/1.0.
fn is_without_version(rest: &[u8]) -> bool {
    let mut words = words_of_line(rest);
    let method = words.next().is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase));
    method && words.next().is_some_and(|path| path.starts_with(b"/")) && words.next().is_none()
}

/// Answers, and ends the connection.
pub(super) async fn answer(connection: &Rc<Connection>, mut io: Watched, reply: LocalReply) {
    connection.closing.set(true);
    if reply.status == StatusCode::REQUEST_TIMEOUT {
        connection.manager.stats.inc(stats::downstream_rq_header_timeout);
    }
    let response = {
        let exchange = Exchange::begin(connection);
        let guard = Guard::new(exchange.clone());
        exchange.info.borrow_mut().protocol = Some(Protocol::Http11);
        let reply = Reply::local(local_reply::respond(&exchange, reply));
        handler::finish(&exchange, reply, guard, Asked::default())
    };
    let bytes = render(response, connection.manager.config.http1.header_case).await;
    // A client that is gone need not be told.
    let _ = io.write_all(&bytes).await;
    let _ = io.flush().await;
    let _ = io.shutdown().await;
}

/// As the codec would write it.
async fn render(response: Response<Body>, case: HeaderCase) -> BytesMut {
    let (parts, body) = response.into_parts();
    let reason = parts.status.canonical_reason().unwrap_or("Unknown");
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).as_bytes());
    let mut line = |name: &str, value: &[u8]| {
        let mut first = true;
        for byte in name.bytes() {
            let upper = case.is_proper() && first;
            bytes.extend_from_slice(&[if upper { byte.to_ascii_uppercase() } else { byte }]);
            first = byte == b'-';
        }
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    };
    for (name, value) in &parts.headers {
        line(name.as_str(), value.as_bytes());
    }
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    line("date", now.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    if let Ok(body) = body.collect().await {
        bytes.extend_from_slice(&body.to_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codecs_answer_is_known() {
        let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert!(is_the_codecs(head.as_bytes()));
        let ours =
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nserver: envoy\r\nconnection: close\r\n\r\n";
        assert!(!is_the_codecs(ours.as_bytes()));
        assert!(!is_the_codecs(b"HTTP/1.1 200 OK\r\n"));
        assert!(!is_the_codecs(b"HTTP/1.1 4"));
    }

    #[test]
    fn a_line_without_version_is_one_of_http_0_9() {
        assert!(is_without_version(b"GET /a\r\nhost: a\r\n\r\n"));
        assert!(!is_without_version(b"GET /a HTTP/1.1\r\n\r\n"));
        assert!(!is_without_version(b"garbage\r\n\r\n"));
    }
}
