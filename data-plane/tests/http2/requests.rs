//! Requests as messages: bodies and their lengths, trailers, CONNECT, and how large heads may be.

use crate::case::{Case, Step, asks, case, ok, opens, post};
use crate::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block, frame, get};
use crate::side;

pub(crate) fn config() -> String {
    let listeners = [
        ("l", "", ""),
        ("apart", "", "stream_error_on_invalid_http_message: true,"),
        ("connect", "allow_connect: true", ""),
        (
            "upgrades",
            "allow_connect: true",
            "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}],",
        ),
        ("small", "", "max_request_headers_kb: 4, common_http_protocol_options: {max_headers_count: 10},"),
        ("drops", "", "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER},"),
        ("wide", "max_header_field_size_kb: 96", "max_request_headers_kb: 96,"),
        ("narrow", "", "max_request_headers_kb: 96,"),
        ("rejects", "", "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST},"),
    ];
    side::config(&listeners, "")
}

pub(crate) fn cases() -> Vec<Case> {
    let apart = messages().into_iter().map(|case| case.on("apart"));
    [messages(), apart.collect(), connects(), tunnels(), heads(), limits()].into_iter().flatten().collect()
}

/// A POST that says how long its body is, and whose body the upstream has begun to see.
fn long(name: &'static str, length: &str, rest: Vec<u8>) -> Case {
    let head = opens(1, &[post("/"), block(&[("content-length", length)])].concat());
    case(name, head).upstream(Vec::new()).asked(1).then(rest)
}

fn messages() -> Vec<Case> {
    let trailers = |fields: &[(&str, &str)]| [frame(DATA, 0, 1, b"abc"), asks(1, &block(fields))].concat();
    let begun =
        |name, rest: Vec<u8>| case(name, opens(1, &post("/"))).upstream(Vec::new()).asked(1).then(rest);
    vec![
        long("more than content-length", "2", frame(DATA, END_STREAM, 1, b"abc")),
        long("less than content-length", "5", frame(DATA, END_STREAM, 1, b"abc")),
        long("less than content-length before trailers", "5", trailers(&[("x-t", "v")])),
        long(
            "content-length, and an empty end",
            "3",
            [frame(DATA, 0, 1, b"abc"), frame(DATA, END_STREAM, 1, b"")].concat(),
        ),
        begun("trailers with a pseudo-header", trailers(&[(":path", "/")])),
        begun("trailers with an upper-case name", trailers(&[("X-T", "v")])),
        begun("trailers with connection", trailers(&[("connection", "close")])),
        begun("trailers that do not end the stream", opens(1, &block(&[("x-t", "v")]))),
        begun("trailers without a field", trailers(&[])),
        begun("trailers", trailers(&[("x-t", "v")])),
    ]
}

fn connects() -> Vec<Case> {
    let connect = block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let extended = block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]);
    let get = [get("/direct"), block(&[(":protocol", "websocket")])].concat();
    vec![
        case("CONNECT without a route", opens(1, &connect)).ends(1),
        case("extended CONNECT that is not allowed", opens(1, &extended)),
        case("extended CONNECT that is not allowed, apart", opens(1, &extended)).on("apart"),
        case("extended CONNECT to what is not upgraded", opens(1, &extended)).on("connect").ends(1),
        case("extended CONNECT", opens(1, &extended)).on("upgrades").upstream(Vec::new()).asked(1),
        case(":protocol of a GET where extended CONNECT is allowed", asks(1, &get)).on("connect"),
    ]
}

/// A request with so many further fields of this size.
fn head(count: usize, size: usize) -> Vec<u8> {
    let value = "a".repeat(size);
    let names: Vec<_> = (0..count).map(|at| format!("x-{at}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let block = [get("/direct"), block(&fields)].concat();
    let mut parts: Vec<_> = block.chunks(16_000).collect();
    let last = parts.pop().unwrap();
    if parts.is_empty() {
        return asks(1, last);
    }
    let first = frame(HEADERS, END_STREAM, 1, parts.remove(0));
    let parts = parts.into_iter().flat_map(|part| frame(CONTINUATION, 0, 1, part));
    first.into_iter().chain(parts).chain(frame(CONTINUATION, END_HEADERS, 1, last)).collect()
}

fn heads() -> Vec<Case> {
    vec![
        case("a head of 56 KB", head(7, 8000)).ends(1),
        case("a head of 64 KB", head(8, 8000)).ends(1),
        case("a head of 96 KB", head(12, 8000)).ends(1),
        case("a value of 61000 bytes", head(1, 61_000)).ends(1),
        case("a value of 65000 bytes", head(1, 65_000)).ends(1),
        case("a value of 66000 bytes", head(1, 66_000)).ends(1),
        case("a value of 66000 bytes that is allowed", head(1, 66_000)).on("wide").ends(1),
        case("a value of 97000 bytes", head(1, 97_000)).on("wide").ends(1),
        case("a value of 66000 bytes in a head that may have them", head(1, 66_000)).on("narrow").ends(1),
        case("a head of 80 KB that is allowed", head(10, 8000)).on("narrow").ends(1),
        case("100 fields", head(96, 1)).ends(1),
        case("101 fields", head(97, 1)).ends(1),
        case("204 fields", head(200, 1)).ends(1),
    ]
}

/// Tunnels to an upstream that speaks HTTP/2.
fn tunnels() -> Vec<Case> {
    let connect = block(&[(":method", "CONNECT"), (":authority", "tunnel:1")]);
    let opened = |name, rest: Vec<Step>| {
        let steps = [vec![Step::Until(HEADERS, 1), Step::Send(ok(1, &[]))], rest].concat();
        let case = case(name, opens(1, &connect)).on("upgrades").upstream(steps);
        case.until(HEADERS, 1).send(frame(DATA, 0, 1, b"hello"))
    };
    let says = |flags, text: &[u8]| Step::Send(frame(DATA, flags, 1, text));
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    vec![
        opened(
            "a tunnel that the client ends",
            vec![Step::Until(DATA, 1), says(0, b"hi"), Step::End(1), says(END_STREAM, b"bye")],
        )
        .until(DATA, 1)
        .send(frame(DATA, END_STREAM, 1, b"end"))
        .ends(1),
        opened("a tunnel that the upstream ends", vec![Step::Until(DATA, 1), says(END_STREAM, b"bye")])
            .ends(1),
        opened("a tunnel that the client resets", vec![Step::Until(DATA, 1), says(0, b"hi")])
            .until(DATA, 1)
            .send(reset(8)),
        opened("a tunnel that the upstream resets", vec![Step::Until(DATA, 1), Step::Send(reset(8))]).ends(1),
        opened("a tunnel that breaks", vec![Step::Until(DATA, 1), Step::Send(reset(10))]).ends(1),
        opened("a tunnel whose connection ends", vec![Step::Until(DATA, 1), Step::Close]).ends(1),
        case("a tunnel that is refused", opens(1, &connect))
            .on("upgrades")
            .upstream(vec![Step::Until(HEADERS, 1), Step::Send(asks(1, &block(&[(":status", "403")])))])
            .ends(1),
    ]
}

fn limits() -> Vec<Case> {
    let underscore = || asks(1, &[get("/direct"), block(&[("a_b", "c")])].concat());
    vec![
        case("10 fields of 10", head(6, 1)).on("small").ends(1),
        case("11 fields of 10", head(7, 1)).on("small").ends(1),
        // The other names and values have 47 bytes, the field's name has three.
        case("as large a head as may be", head(1, 4096 - 50)).on("small").ends(1),
        case("a head that is larger by a byte", head(1, 4096 - 49)).on("small").ends(1),
        case("an underscore that is dropped", underscore()).on("drops").ends(1),
        case("an underscore that is refused", underscore()).on("rejects").ends(1),
    ]
}
