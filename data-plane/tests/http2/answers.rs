//! What an upstream may answer.

use crate::case::{Case, Step, answered, asks, case, ok, opens, ping};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, SETTINGS,
    WINDOW_UPDATE, block, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", ""), ("informs", "", "proxy_100_continue: true,")], "")
}

pub(crate) fn cases() -> Vec<Case> {
    [heads(), bodies(), frames(), floods()].into_iter().flatten().collect()
}

/// An answer with this head and a short body.
fn with(name: &'static str, fields: &[(&str, &str)]) -> Case {
    answered(name, [opens(1, &block(fields)), frame(DATA, END_STREAM, 1, b"hi")].concat())
}

/// An answer that ends with these headers.
fn alone(name: &'static str, fields: &[(&str, &str)]) -> Case {
    answered(name, asks(1, &block(fields)))
}

fn heads() -> Vec<Case> {
    vec![
        with("an answer", &[(":status", "200")]),
        with("no :status", &[("x-a", "b")]),
        with("no field at all", &[]),
        with("an upper-case name", &[(":status", "200"), ("X-A", "b")]),
        with("connection", &[(":status", "200"), ("connection", "close")]),
        with("transfer-encoding", &[(":status", "200"), ("transfer-encoding", "chunked")]),
        with("te", &[(":status", "200"), ("te", "trailers")]),
        with(":status of two digits", &[(":status", "20")]),
        with(":status of four digits", &[(":status", "0200")]),
        with(":status that is no number", &[(":status", "abc")]),
        with(":status 99", &[(":status", "099")]),
        with(":status 101", &[(":status", "101")]),
        with(":status 600", &[(":status", "600")]),
        with(":status twice", &[(":status", "200"), (":status", "200")]),
        with(":status behind a field", &[("x-a", "b"), (":status", "200")]),
        with(":path", &[(":status", "200"), (":path", "/")]),
        with("an unknown pseudo-header", &[(":status", "200"), (":a", "b")]),
        with("CR in a value", &[(":status", "200"), ("x-a", "a\rb")]),
        with("blanks around a value", &[(":status", "200"), ("x-a", " b ")]),
        with("content-length that is no number", &[(":status", "200"), ("content-length", "a")]),
        with("content-length twice", &[(":status", "200"), ("content-length", "2"), ("content-length", "2")]),
        alone("an answer without a body", &[(":status", "200")]),
        alone("204 with content-length 0", &[(":status", "204"), ("content-length", "0")]),
        alone("204 with content-length 2", &[(":status", "204"), ("content-length", "2")]),
        alone("304 with content-length 2", &[(":status", "304"), ("content-length", "2")]),
        alone("content-length without a body", &[(":status", "200"), ("content-length", "5")]),
        alone("100 that ends the stream", &[(":status", "100")]),
        alone("102 that ends the stream", &[(":status", "102")]),
    ]
}

fn bodies() -> Vec<Case> {
    let head =
        |method| block(&[(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let says =
        |case: Case, bytes: Vec<u8>| case.upstream(vec![Step::Until(HEADERS, 1), Step::Send(bytes)]).ends(1);
    let hinted = |name| {
        let hints = opens(1, &block(&[(":status", "103"), ("link", "a")]));
        answered(name, [hints, ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat())
    };
    let trailed =
        |name, trailers: Vec<u8>| answered(name, [ok(1, &[]), frame(DATA, 0, 1, b"hi"), trailers].concat());
    vec![
        with("a body longer than content-length", &[(":status", "200"), ("content-length", "1")]),
        with("a body shorter than content-length", &[(":status", "200"), ("content-length", "5")]),
        with("204 with a body", &[(":status", "204")]),
        says(
            case("HEAD with content-length", asks(1, &head("HEAD"))),
            asks(1, &block(&[(":status", "200"), ("content-length", "5")])),
        ),
        says(
            case("HEAD with a body", asks(1, &head("HEAD"))),
            [ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat(),
        ),
        hinted("103"),
        hinted("103 that is passed on").on("informs"),
        answered(
            "100",
            [opens(1, &block(&[(":status", "100")])), ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat(),
        ),
        answered("two heads", [ok(1, &[]), ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat()),
        trailed("trailers", asks(1, &block(&[("x-t", "v")]))),
        trailed("trailers that do not end the stream", opens(1, &block(&[("x-t", "v")]))),
        trailed("trailers with :status", asks(1, &block(&[(":status", "200")]))),
        trailed("trailers with an upper-case name", asks(1, &block(&[("X-T", "v")]))),
        answered(
            "padded DATA",
            [ok(1, &[]), frame(DATA, PADDED | END_STREAM, 1, b"\x05hi\0\0\0\0\0")].concat(),
        ),
        answered(
            "a head in parts",
            [
                frame(HEADERS, 0, 1, &block(&[(":status", "200")])),
                frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])),
                frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-b", "c")])),
                frame(DATA, END_STREAM, 1, b"hi"),
            ]
            .concat(),
        ),
        answered(
            "DATA behind the end",
            [ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi"), frame(DATA, 0, 1, b"hi")].concat(),
        ),
    ]
}

fn frames() -> Vec<Case> {
    let answer = || [ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat();
    let settles = |values: &[(u16, u32)]| frame(SETTINGS, 0, 0, &settings(values));
    vec![
        answered("DATA without a head", frame(DATA, END_STREAM, 1, b"hi")),
        answered("DATA on an idle stream", frame(DATA, END_STREAM, 3, b"hi")),
        answered("DATA on an even stream", frame(DATA, END_STREAM, 2, b"hi")),
        answered("HEADERS on an even stream", asks(2, &[0x88])),
        answered("HEADERS on an idle stream", asks(3, &[0x88])),
        answered(
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[b"\0\0\0\x02".to_vec(), get("/")].concat()),
        ),
        answered("PING", [ping(), answer()].concat()),
        answered("PING of 3 bytes", frame(PING, 0, 0, b"abc")),
        answered("ENABLE_PUSH 1", [settles(&[(2, 1)]), answer()].concat()),
        answered("ENABLE_PUSH 0", [settles(&[(2, 0)]), answer()].concat()),
        answered("INITIAL_WINDOW_SIZE 2^31", settles(&[(4, 1 << 31)])),
        answered("WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        answered("WINDOW_UPDATE beyond the limit", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())),
        answered("unknown frames", [frame(10, 0, 1, b"\0\0"), frame(99, 0, 1, b""), answer()].concat()),
        answered("a block that is no HPACK", opens(1, b"\xff\x80\x01")),
    ]
}

fn floods() -> Vec<Case> {
    let names: Vec<_> = (0..100).map(|at| format!("x-{at}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
    let part = |at: usize| {
        let value = "a".repeat(14_000);
        frame(CONTINUATION, 0, 1, &block(&[(names[at].as_str(), value.as_str())]))
    };
    let long = [
        frame(HEADERS, END_STREAM, 1, &[0x88]),
        (0..5).flat_map(part).collect(),
        frame(CONTINUATION, 4, 1, b""),
    ];
    let large = |size: usize| block(&[("x-a", &"<".repeat(size)), ("x-b", &"<".repeat(size))]);
    let parts = [
        frame(HEADERS, 0, 1, &[&[0x88][..], &large(7_000)].concat()),
        frame(CONTINUATION, 4, 1, &large(7_000)),
    ];
    let body = frame(DATA, END_STREAM, 1, b"hi");
    vec![
        answered("a head of 28 KB", [parts.concat(), body].concat()),
        case(
            "a request's head of 28 KB",
            [
                frame(HEADERS, END_STREAM, 1, &[get("/"), large(7_000)].concat()),
                frame(CONTINUATION, END_HEADERS, 1, &large(7_000)),
            ]
            .concat(),
        )
        .ends(1),
        answered("101 fields", opens(1, &[&[0x88][..], &block(&many)].concat())),
        answered("a head of 70 KB", long.concat()),
        answered("empty DATA", [ok(1, &[]), frame(DATA, 0, 1, b"").repeat(3)].concat()),
        answered("many WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(100)),
        answered("many PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\x01").repeat(500)),
    ]
}
