//! Requests' heads and what follows them, by RFC 9112 §3, §6 and §9: bytes in, values out.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Extensions, HeaderMap, Method, Uri, Version};

use super::error::Refusal;
use super::framing::Framing;
use super::head::{self, EndOfLines, RequestRules, Rules};
use super::names::Names;
use super::noted::Noted;

/// As long as a target may be: the library that takes it apart has no place for more.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A head that is larger stays where it was read.
const COPIED: usize = 2 * 1024;

/// What stands behind the path, the `#` included. It has no place in a request, and is to be told to who judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment(pub(crate) Bytes);

/// A length stood beside chunks, which are what counts, by RFC 9112 §6.3. It is gone, and to be told to who judges it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LengthBesideChunks;

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// What has no place elsewhere: see [`Fragment`], [`LengthBesideChunks`] and [`Names`].
    pub(super) extensions: Extensions,
    pub(super) framing: Framing,
    /// The client may ask again on the connection.
    pub(super) keeps_alive: bool,
}

/// Reads heads from what has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    end: EndOfLines,
}

impl Reader {
    /// The next head, taken from the input; `None` if more must come. What cannot become a head is refused as soon as
    /// that can be seen. The map's allocation is used for the headers.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        rules: Rules,
        map: &mut HeaderMap,
    ) -> Result<Option<Head>, Refusal> {
        let limits = rules.limits;
        while let Some(length) = self.end.find(input, limits.bytes).map_err(|_| Refusal::HeadTooLarge)? {
            let block = take_block(input, length);
            // Empty lines before a request are passed over, by RFC 9112 §2.2.
            if !matches!(&*block, b"\n" | b"\r\n") {
                let map = std::mem::take(map);
                return head::with_space(limits.headers, |space| parse(&block, space, map, rules)).map(Some);
            }
        }
        match self.end.further(input) {
            Some(lines) => check(lines, limits.headers)?,
            None => check_method(input)?,
        }
        Ok(None)
    }
}

/// Takes a head out of what has come. Its parts are held until the request has ended: one that is small leaves the buffer
/// to others.
fn take_block(input: &mut BytesMut, length: usize) -> Bytes {
    if length > COPIED {
        return input.split_to(length).freeze();
    }
    let block = Bytes::copy_from_slice(&input[..length]);
    input.advance(length);
    block
}

/// Whether this may begin a request's first line, as TLS where nobody expects it does not.
fn check_method(start: &[u8]) -> Result<(), Refusal> {
    let method = start.split(|&byte| byte == b' ').next().unwrap_or_default();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r".contains(byte);
    if method.iter().all(is_token) { Ok(()) } else { Err(Refusal::Malformed) }
}

/// Whether these lines may be the first of a head.
fn check(lines: &[u8], max_headers: usize) -> Result<(), Refusal> {
    head::with_space(max_headers, |space| {
        let mut request = httparse::Request::new(&mut []);
        request.parse_with_uninit_headers(lines, space).map_err(|error| refusal(error, lines))?;
        Ok(())
    })
}

/// Takes a head apart whose end was found.
fn parse<'a>(
    block: &'a Bytes,
    space: &mut [MaybeUninit<httparse::Header<'a>>],
    mut map: HeaderMap,
    rules: Rules,
) -> Result<Head, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(block, space).map_err(|error| refusal(error, block))?;
    let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed);
    };
    if parsed != httparse::Status::Complete(block.len()) {
        return Err(Refusal::Malformed);
    }
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    if !rules.requests.any_method && !is_known(method) {
        return Err(Refusal::Malformed);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Malformed)?;
    let mut extensions = Extensions::new();
    let uri = target(block, path, &mut extensions)?;
    check_target(&method, &uri, rules.requests)?;
    map.try_reserve(request.headers.len()).map_err(|_| Refusal::TooManyHeaders)?;
    let mut noted = Noted::default();
    for header in &*request.headers {
        let name = head::name_of(header).map_err(|_| Refusal::Malformed)?;
        noted.note(&name, header.value);
        head::append(&mut map, block, name, header).map_err(|_| Refusal::TooManyHeaders)?;
    }
    if rules.keeps_names {
        extensions.insert(Names::of(block, request.headers));
    }
    let framing = framing(&method, version, &mut map, noted, &mut extensions)?;
    let keeps_alive = noted.persists(version);
    Ok(Head { method, uri, version, headers: map, extensions, framing, keeps_alive })
}

fn target(block: &Bytes, path: &str, extensions: &mut Extensions) -> Result<Uri, Refusal> {
    if path.len() > MAX_TARGET {
        return Err(Refusal::HeadTooLarge);
    }
    let path = block.slice_ref(path.as_bytes());
    if let Some(at) = memchr::memchr(b'#', &path) {
        extensions.insert(Fragment(path.slice(at..)));
    }
    Uri::from_maybe_shared(path).map_err(|_| Refusal::Malformed)
}

/// The methods that Envoy takes.
fn is_known(method: &str) -> bool {
    matches!(
        method,
        "GET"
            | "POST"
            | "PUT"
            | "HEAD"
            | "DELETE"
            | "PATCH"
            | "OPTIONS"
            | "CONNECT"
            | "TRACE"
            | "ACL"
            | "BIND"
            | "CHECKOUT"
            | "COPY"
            | "LINK"
            | "LOCK"
            | "MERGE"
            | "MKACTIVITY"
            | "MKCALENDAR"
            | "MKCOL"
            | "MOVE"
            | "MSEARCH"
            | "NOTIFY"
            | "PROPFIND"
            | "PROPPATCH"
            | "PURGE"
            | "REBIND"
            | "REPORT"
            | "SEARCH"
            | "SOURCE"
            | "SUBSCRIBE"
            | "UNBIND"
            | "UNLINK"
            | "UNLOCK"
            | "UNSUBSCRIBE"
    )
}

/// A whole URL must be one that we serve, and a tunnel needs a port to go to.
fn check_target(method: &Method, uri: &Uri, rules: RequestRules) -> Result<(), Refusal> {
    let Some(authority) = uri.authority() else { return Ok(()) };
    let port = authority.port_u16();
    let has_port = authority.as_str().rsplit(['@', ']']).next().is_some_and(|end| end.contains(':'));
    if (has_port && port.is_none()) || (*method == Method::CONNECT && port.is_none()) {
        return Err(Refusal::Url);
    }
    match uri.scheme_str() {
        Some("https") if rules.clear => Err(Refusal::HttpsInTheClear),
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(Refusal::Scheme),
    }
}

/// How the body is delimited, by RFC 9112 §6.3.
fn framing(
    method: &Method,
    version: Version,
    headers: &mut HeaderMap,
    noted: Noted,
    extensions: &mut Extensions,
) -> Result<Framing, Refusal> {
    if noted.is_coded() && version == Version::HTTP_10 {
        return Err(Refusal::OldCoding);
    }
    let chunked = noted.is_chunked().map_err(|_| Refusal::Coding)?;
    let length = noted.length().map_err(|_| Refusal::Malformed)?;
    if chunked && length.is_some() {
        headers.remove(CONTENT_LENGTH);
        extensions.insert(LengthBesideChunks);
    }
    Ok(match length {
        // What follows is the tunnel's.
        _ if method == Method::CONNECT => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        length => Framing::Length(length.unwrap_or(0)),
    })
}

fn refusal(error: httparse::Error, lines: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Refusal::TooManyHeaders,
        Error::Version if asks_with(lines, |version| version.is_some_and(is_version)) => Refusal::Version,
        _ if asks_with(lines, |version| version.is_none()) => Refusal::Version,
        Error::HeaderName | Error::HeaderValue if lines.iter().any(|byte| is_control(*byte)) => {
            Refusal::Character
        }
        _ => Refusal::Malformed,
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')
}

fn words(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.trim_ascii_end().split(|byte| *byte == b' ')
}

/// `HTTP/2.0`, but not `HTTP/2`, which is no version by RFC 9112 §2.3.
fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether the first line is a request's but for its version, which was none before HTTP/1.0. The preface of HTTP/2 is none.
fn asks_with(lines: &[u8], is_so: impl Fn(Option<&[u8]>) -> bool) -> bool {
    let mut words = words(lines);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return false };
    let has_target = match method {
        b"CONNECT" => true,
        b"OPTIONS" if target == b"*" => true,
        _ => target.starts_with(b"/") || memchr::memmem::find(target, b"://").is_some(),
    };
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    is_method && has_target && is_so(words.next()) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    const RULES: Rules = Rules {
        limits: Limits { headers: 4, bytes: 200 },
        keeps_names: false,
        requests: RequestRules { any_method: false, clear: true },
    };

    /// What becomes of bytes that come at once; in pieces it is the same.
    fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        let in_pieces = |size: usize| {
            let (mut reader, mut input) = (Reader::default(), BytesMut::new());
            for piece in bytes.chunks(size) {
                input.extend_from_slice(piece);
                if let Some(head) = reader.next(&mut input, RULES, &mut HeaderMap::new())? {
                    return Ok(Some(head));
                }
            }
            Ok(None)
        };
        let whole = in_pieces(bytes.len().max(1));
        let outcome = |read: &Result<Option<Head>, Refusal>| format!("{read:?}");
        for size in 1..4 {
            assert_eq!(outcome(&in_pieces(size)), outcome(&whole), "{bytes:?} by {size}");
        }
        whole
    }

    fn head(text: &str) -> Head {
        read(text.as_bytes()).unwrap().unwrap_or_else(|| panic!("{text:?} is no head"))
    }

    fn refused(text: &str) -> Refusal {
        read(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn methods_and_targets_are_those_that_are_served() {
        for (line, refusal) in [
            ("GOT /", Refusal::Malformed),
            ("get /", Refusal::Malformed),
            ("GET hps://a/", Refusal::Scheme),
            ("GET https://a/", Refusal::HttpsInTheClear),
            ("GET http://a:65536/", Refusal::Url),
            ("CONNECT a", Refusal::Url),
        ] {
            assert_eq!(refused(&format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")), refusal, "{line}");
        }
        for line in ["PURGE /", "GET http://a:80/", "GET http://[::1]/", "CONNECT [::1]:443"] {
            head(&format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n"));
        }
    }

    #[test]
    fn heads_are_taken_apart() {
        let head = head(
            "\r\n\nPOST /a?b#c HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\nexpect: 100-Continue\r\n\r\nabc",
        );
        assert_eq!((head.method, head.uri.path(), head.uri.query()), (Method::POST, "/a", Some("b")));
        assert_eq!(head.headers["host"], "a");
        assert_eq!(head.framing, Framing::Length(3));
        assert!(head.keeps_alive);
        assert_eq!(head.extensions.get(), Some(&Fragment(Bytes::from_static(b"#c"))));
    }

    #[test]
    fn bodies_are_as_long_as_one_header_says() {
        let framing = |lines: &str| head(&format!("PUT / HTTP/1.1\r\n{lines}\r\n")).framing;
        assert_eq!(framing(""), Framing::Length(0));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Framing::Chunked);
        let both = head("PUT / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(both.framing, Framing::Chunked);
        assert!(both.extensions.get::<LengthBesideChunks>().is_some() && both.headers.len() == 1);
        assert_eq!(head("CONNECT a:1 HTTP/1.1\r\ncontent-length: 5\r\n\r\n").framing, Framing::Length(0));
    }

    #[test]
    fn connections_go_on_as_both_versions_have_it() {
        let alive = |text: &str| head(text).keeps_alive;
        assert!(alive("GET / HTTP/1.1\r\n\r\n"));
        assert!(!alive("GET / HTTP/1.1\r\nconnection: a, Close\r\n\r\n"));
        assert!(!alive("GET / HTTP/1.0\r\n\r\n"));
        assert!(alive("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request_is_refused_as_soon_as_it_shows() {
        assert_eq!(refused("\x16\x03\x01"), Refusal::Malformed);
        assert_eq!(refused("GET /a\r\n"), Refusal::Version);
        assert_eq!(refused("GET / HTTP/2.0\r\n"), Refusal::Version);
        assert_eq!(refused("GET http://a/ HTTP/0.9\r\n"), Refusal::Version);
        assert_eq!(refused("OPTIONS * HTTP/2.0\r\n"), Refusal::Version);
        assert_eq!(refused("CONNECT a:1\r\n"), Refusal::Version);
        for version in
            ["HTTP/2", "HTTP/1", "HTTP/11.1", "HTTP/1.", "HTTP/.1", "HTTP/", "HTTP/a.1", "HTTP/2.0 x"]
        {
            assert_eq!(refused(&format!("GET / {version}\r\n")), Refusal::Malformed, "{version}");
        }
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refusal::Malformed);
        assert_eq!(refused("GET /a b HTTP/1.1\r\n"), Refusal::Malformed);
        assert_eq!(refused("garbage\r\n"), Refusal::Malformed);
        assert_eq!(refused("GET / HTTP/1.1\r\na: \x01\r\n"), Refusal::Character);
        assert_eq!(refused("GET / HTTP/1.1\r\na b: c\r\n"), Refusal::Malformed);
        assert_eq!(refused("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Refusal::OldCoding);
        assert_eq!(refused("GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n"), Refusal::Coding);
        assert_eq!(
            refused("GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n"),
            Refusal::Malformed
        );
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(5))), Refusal::TooManyHeaders);
        assert_eq!(refused(&format!("GET /{}", "a".repeat(300))), Refusal::HeadTooLarge);
        assert!(read(b"GET / HTTP/1.1\r\na: b\r\n").unwrap().is_none());
        assert!(read(b"").unwrap().is_none());
    }
}
