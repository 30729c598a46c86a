//! What a request's fields may be.

use crate::case::{Case, asks, case, get_with};
use crate::frames::{block, get, raw_block};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", ""), ("apart", "", "stream_error_on_invalid_http_message: true,")], "")
}

pub(crate) fn cases() -> Vec<Case> {
    let apart = invalid().into_iter().map(|case| case.on("apart"));
    [invalid(), apart.collect(), valid()].into_iter().flatten().collect()
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A good request with one more field.
fn with(name: &'static str, field: &str, value: &str) -> Case {
    case(name, asks(1, &get_with("/direct", &[(field, value)])))
}

/// A request of these fields alone.
fn of(name: &'static str, fields: Pairs<'_>) -> Case {
    case(name, asks(1, &block(fields)))
}

/// A request whose pseudo-headers are these.
fn pseudo(name: &'static str, method: &str, scheme: &str, authority: &str, path: &str) -> Case {
    of(name, &[(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)])
}

/// A connection error, or a stream error where those are told apart.
fn invalid() -> Vec<Case> {
    [invalid_fields(), invalid_pseudo()].into_iter().flatten().collect()
}

fn invalid_fields() -> Vec<Case> {
    vec![
        with("an upper-case name", "X-A", "b"),
        with("an empty name", "", "b"),
        with("a blank in a name", "a b", "c"),
        with("a colon in a name", "a:b", "c"),
        with("connection: close", "connection", "close"),
        with("connection: keep-alive", "connection", "keep-alive"),
        with("keep-alive", "keep-alive", "1"),
        with("proxy-connection", "proxy-connection", "close"),
        with("upgrade", "upgrade", "websocket"),
        with("te: gzip", "te", "gzip"),
        with("te: trailers, gzip", "te", "trailers, gzip"),
        with("transfer-encoding: chunked", "transfer-encoding", "chunked"),
        with("transfer-encoding: identity", "transfer-encoding", "identity"),
        with("CR in a value", "x-a", "a\rb"),
        with("LF in a value", "x-a", "a\nb"),
        with("NUL in a value", "x-a", "a\0b"),
        with("DEL in a value", "x-a", "a\x7fb"),
        with("content-length that is no number", "content-length", "a"),
        with("a negative content-length", "content-length", "-1"),
        with("content-length with a sign", "content-length", "+1"),
        with("content-length twice in a value", "content-length", "1, 1"),
        with("a content-length beyond all numbers", "content-length", "99999999999999999999"),
        with("content-length of a request without a body", "content-length", "5"),
        case(
            "content-length twice",
            asks(1, &get_with("/direct", &[("content-length", "0"), ("content-length", "0")])),
        ),
        case(
            "two hosts",
            asks(
                1,
                &block(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/direct"),
                    ("host", "a"),
                    ("host", "b"),
                ]),
            ),
        ),
    ]
}

fn invalid_pseudo() -> Vec<Case> {
    vec![
        of("no :path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        of("no :method", &[(":scheme", "http"), (":authority", "a"), (":path", "/direct")]),
        of("no :scheme", &[(":method", "GET"), (":authority", "a"), (":path", "/direct")]),
        of("no :authority and no host", &[(":method", "GET"), (":scheme", "http"), (":path", "/direct")]),
        with("a second :path", ":path", "/direct"),
        with("an unknown pseudo-header", ":a", "b"),
        with(":status", ":status", "200"),
        with(":protocol", ":protocol", "websocket"),
        of(
            "a pseudo-header behind a field",
            &[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-a", "b"),
                (":path", "/direct"),
                (":authority", "a"),
            ],
        ),
        pseudo("an empty :path", "GET", "http", "a", ""),
        pseudo("a :path without a slash", "GET", "http", "a", "direct"),
        pseudo(":path * of a GET", "GET", "http", "a", "*"),
        pseudo("an absolute :path", "GET", "http", "a", "http://a/direct"),
        pseudo("a blank in :path", "GET", "http", "a", "/di rect"),
        pseudo("NUL in :path", "GET", "http", "a", "/di\0rect"),
        pseudo("an empty :method", "", "http", "a", "/direct"),
        pseudo("a blank in :method", "GE T", "http", "a", "/direct"),
        pseudo("an empty :scheme", "GET", "", "a", "/direct"),
        pseudo("a blank in :scheme", "GET", "ht tp", "a", "/direct"),
        pseudo("an empty :authority", "GET", "http", "", "/direct"),
        pseudo("a blank in :authority", "GET", "http", "a b", "/direct"),
        pseudo("a user in :authority", "GET", "http", "u@a", "/direct"),
        pseudo("CONNECT with :path", "CONNECT", "http", "a", "/direct"),
        of("CONNECT with :scheme", &[(":method", "CONNECT"), (":scheme", "http"), (":authority", "a")]),
        of("CONNECT without :authority", &[(":method", "CONNECT")]),
    ]
}

fn valid() -> Vec<Case> {
    let bytes = |name, field: &[u8], value: &[u8]| {
        case(name, asks(1, &[get("/direct"), raw_block(&[(field, value)])].concat())).ends(1)
    };
    vec![
        bytes("a byte beyond ASCII in a value", b"x-a", b"a\x80b"),
        bytes("a tab in a value", b"x-a", b"a\tb"),
        bytes("blanks around a value", b"x-a", b" b "),
        bytes("an empty value", b"x-a", b""),
        bytes("an underscore in a name", b"a_b", b"c"),
        bytes("host beside another :authority", b"host", b"b"),
        bytes("content-length of nothing", b"content-length", b"0"),
        pseudo("an unknown method", "FOO", "http", "a", "/direct").ends(1),
        pseudo("another scheme", "GET", "ftp", "a", "/direct").ends(1),
        pseudo("https without TLS", "GET", "https", "a", "/direct").ends(1),
        pseudo(":path * of OPTIONS", "OPTIONS", "http", "a", "*").ends(1),
        pseudo("a fragment in :path", "GET", "http", "a", "/direct#x").ends(1),
        of("host alone", &[(":method", "GET"), (":scheme", "http"), (":path", "/direct"), ("host", "a")])
            .ends(1),
    ]
}
