//! What an upstream may answer.

use crate::case::{Case, Step, answered, asks, case, ok, opens, ping};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", ""), ("informs", "", "proxy_100_continue: true,")], "")
}

pub(crate) fn cases() -> Vec<Case> {
    [heads(), informs(), bodies(), frames(), floods()].into_iter().flatten().collect()
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

/// What is said before the answer, and whether the client hears of it.
fn informs() -> Vec<Case> {
    let interim = |status: &str| opens(1, &block(&[(":status", status), ("link", "a"), ("server", "mine")]));
    let answer = || [ok(1, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat();
    let says = |name, statuses: &[&str]| {
        let before = statuses.iter().flat_map(|status| interim(status));
        answered(name, [before.collect(), answer()].concat())
    };
    let expects = |name, path| {
        let expects = block(&[("expect", "100-Continue")]);
        case(name, opens(1, &[crate::case::post(path), expects].concat()))
    };
    // The answer waits for the body, and the body for a word.
    let waits = |name, steps: Vec<Step>| {
        let case = expects(name, "/").until(HEADERS, 1).send(frame(DATA, END_STREAM, 1, b"body")).ends(1);
        case.upstream([steps, vec![Step::Until(DATA, 1), Step::Send(answer())]].concat())
    };
    let breaks = |name, path, end: Vec<u8>| {
        let said = Step::Send([interim("103"), end].concat());
        case(name, asks(1, &get(path))).ends(1).upstream(vec![Step::Until(HEADERS, 1), said])
    };
    let reset = || frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]);
    let said = |status| vec![Step::Until(HEADERS, 1), Step::Send(interim(status))];
    vec![
        says("100", &["100"]),
        says("102", &["102"]),
        says("103", &["103"]),
        says("104", &["104"]),
        says("105", &["105"]),
        says("103 twice", &["103", "103"]),
        waits("100 to who waits for it", said("100")),
        waits("no 100 to who waits for it", vec![Step::Until(HEADERS, 1)]),
        expects("100 before a local reply", "/direct").ends(1),
        breaks("103, then a reset", "/reset", reset()),
        says("100 that is passed on", &["100"]).on("informs"),
        says("102 that is passed on", &["102"]).on("informs"),
        says("103 that is passed on", &["103"]).on("informs"),
        says("104 that is passed on", &["104"]).on("informs"),
        says("105 that is passed on", &["105"]).on("informs"),
        says("103 twice that is passed on", &["103", "103"]).on("informs"),
        says("100 and 103 that are passed on", &["100", "103"]).on("informs"),
        waits("100 to who waits for it that is passed on", said("100")).on("informs"),
        waits("103 to who waits for 100", said("103")).on("informs"),
        expects("no 100 before a local reply", "/direct").ends(1).on("informs"),
        breaks("103 that is passed on, then a reset", "/reset", reset()).on("informs"),
        breaks("103 that is passed on, then silence", "/short", Vec::new()).on("informs"),
    ]
}

fn bodies() -> Vec<Case> {
    let head =
        |method| block(&[(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let says =
        |case: Case, bytes: Vec<u8>| case.upstream(vec![Step::Until(HEADERS, 1), Step::Send(bytes)]).ends(1);
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
