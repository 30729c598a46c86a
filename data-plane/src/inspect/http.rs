//! Recognises HTTP by its first line or HTTP/2's preface.

use super::Finding;

/// What the first bytes speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As filter chains match it.
    pub(crate) fn alpn(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2c",
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request line longer than this is not waited for.
const MAX_LINE: usize = 64 * 1024;

/// Whether the bytes begin an HTTP connection.
pub(crate) fn inspect(seen: &[u8]) -> Finding<Version> {
    if seen.starts_with(PREFACE) {
        return Finding::Found(Version::Http2);
    }
    if PREFACE.starts_with(seen) {
        return Finding::NeedMore;
    }
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return if could_begin_line(seen) && seen.len() < MAX_LINE {
            Finding::NeedMore
        } else {
            Finding::Not
        };
    };
    if !could_begin_line(&seen[..end]) {
        // As it would have been judged had it come in pieces.
        return Finding::Not;
    }
    let line = seen[..end].strip_suffix(b"\r").unwrap_or(&seen[..end]);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Finding::Not;
    };
    if method.is_empty() || !method.iter().copied().all(is_token) || target.is_empty() {
        return Finding::Not;
    }
    match version {
        b"HTTP/1.1" => Finding::Found(Version::Http11),
        b"HTTP/1.0" => Finding::Found(Version::Http10),
        _ => Finding::Not,
    }
}

/// A line without its end: a method, then a target without control characters.
fn could_begin_line(seen: &[u8]) -> bool {
    let (method, rest) = match memchr::memchr(b' ', seen) {
        Some(space) => (&seen[..space], &seen[space..]),
        None => (seen, &[][..]),
    };
    !method.is_empty()
        && method.iter().copied().all(is_token)
        && rest.iter().all(|b| *b >= b' ' && *b != 0x7f || *b == b'\r')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_versions_apart() {
        for (seen, expect) in [
            (&b"GET / HTTP/1.1\r\n"[..], Finding::Found(Version::Http11)),
            (b"GET /\x01 HTTP/1.1\r\n", Finding::Not),
            (b"GET / HTTP/1.0\n", Finding::Found(Version::Http10)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Finding::Found(Version::Http2)),
            (PREFACE, Finding::Found(Version::Http2)),
            (b"PRI * HT", Finding::NeedMore),
            (b"GET /a", Finding::NeedMore),
            (b"", Finding::NeedMore),
            (b"\x16\x03\x01", Finding::Not),
            (b"SSH-2.0-OpenSSH_9\r\n", Finding::Not),
            (b"GET / SPDY/3\r\n", Finding::Not),
            (b" GET / HTTP/1.1\r\n", Finding::Not),
        ] {
            assert_eq!(inspect(seen), expect, "{:?}", String::from_utf8_lossy(seen));
        }
    }
}
