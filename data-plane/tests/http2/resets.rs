//! Upstreams that reset, go away or close, and what becomes of requests under way.

use crate::case::{Case, Step, answered, asks, case, ok, opens, post};
use crate::frames::{DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame, get, settings};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", "")], "")
}

pub(crate) fn cases() -> Vec<Case> {
    [resets(), goaways(), ends(), limits()].into_iter().flatten().collect()
}

fn reset(code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn hello() -> Vec<u8> {
    [ok(1, &[]), frame(DATA, END_STREAM, 1, b"hello")].concat()
}

/// A request for this path instead.
fn on(path: &str, case: Case) -> Case {
    Case { steps: vec![Step::Send(asks(1, &get(path))), Step::End(1)], ..case }
}

/// A first try that is reset, and a second that is answered.
fn again(path: &str, name: &'static str, code: u32) -> Case {
    let case = case(name, Vec::new()).upstream(vec![
        Step::Until(HEADERS, 1),
        Step::Send(reset(code)),
        Step::Until(HEADERS, 3),
        Step::Send(asks(3, &[0x88])),
    ]);
    on(path, case)
}

fn resets() -> Vec<Case> {
    vec![
        answered("RST_STREAM NO_ERROR", reset(0)),
        answered("RST_STREAM PROTOCOL_ERROR", reset(1)),
        answered("RST_STREAM INTERNAL_ERROR", reset(2)),
        answered("RST_STREAM STREAM_CLOSED", reset(5)),
        answered("RST_STREAM REFUSED_STREAM", reset(7)),
        answered("RST_STREAM CANCEL", reset(8)),
        answered("RST_STREAM CONNECT_ERROR", reset(10)),
        answered("RST_STREAM ENHANCE_YOUR_CALM", reset(11)),
        answered("RST_STREAM with an unknown code", reset(256)),
        answered("RST_STREAM behind the head", ok(1, &[])).and(Step::Send(reset(2))),
        answered("RST_STREAM NO_ERROR behind the head", ok(1, &[])).and(Step::Send(reset(0))),
        case("RST_STREAM NO_ERROR behind the answer, before the request's end", opens(1, &post("/")))
            .upstream(vec![Step::Until(HEADERS, 1), Step::Send([hello(), reset(0)].concat())])
            .ends(1),
        case("an answer before the request's end", opens(1, &post("/")))
            .upstream(vec![Step::Until(HEADERS, 1), Step::Send(hello())])
            .ends(1),
        again("/refused", "REFUSED_STREAM, tried again", 7),
        on("/refused", answered("CANCEL, not tried again for what is refused", reset(8))),
        again("/reset", "CANCEL, tried again", 8),
    ]
}

fn goaways() -> Vec<Case> {
    let two = |name, steps: Vec<Step>| {
        let both = [asks(1, &get("/")), asks(3, &get("/"))].concat();
        let steps = [vec![Step::Until(HEADERS, 3)], steps].concat();
        case(name, both).upstream(steps).ends(3).ends(1)
    };
    vec![
        answered("GOAWAY that leaves the request out", goaway(0, 0)),
        answered("GOAWAY with an error that leaves the request out", goaway(0, 11)),
        on("/refused", answered("GOAWAY that leaves the request out, tried again", goaway(0, 0))),
        answered("GOAWAY, then the answer", goaway(1, 0)).and(Step::Send(hello())),
        answered("GOAWAY of later streams, then the answer", goaway(0x7fff_ffff, 0)).and(Step::Send(hello())),
        answered("GOAWAY with an error, then the answer", goaway(1, 2)).and(Step::Send(hello())),
        answered("GOAWAY behind the answer", [hello(), goaway(1, 0)].concat()),
        answered(
            "GOAWAY within the answer",
            [ok(1, &[]), goaway(1, 0), frame(DATA, END_STREAM, 1, b"hello")].concat(),
        ),
        answered("GOAWAY, then the end", goaway(1, 0)).and(Step::Close),
        two("GOAWAY that leaves one of two out", vec![Step::Send(goaway(1, 0))]).and(Step::Send(hello())),
        two("two GOAWAYs", vec![Step::Send([goaway(0x7fff_ffff, 0), goaway(1, 0)].concat())])
            .and(Step::Send(hello())),
        case("a request behind GOAWAY", asks(1, &get("/")))
            .upstream(vec![Step::Until(HEADERS, 1), Step::Send([hello(), goaway(1, 0)].concat())])
            .ends(1)
            .then(asks(3, &get("/")))
            .ends(3),
    ]
}

fn ends() -> Vec<Case> {
    let closes = |name| case(name, asks(1, &get("/"))).ends(1);
    vec![
        closes("closed at once").bare_upstream(vec![Step::Close]),
        closes("closed before the answer").upstream(vec![Step::Until(HEADERS, 1), Step::Close]),
        answered("closed behind the head", ok(1, &[])).and(Step::Close),
        on(
            "/reset",
            closes("closed before the answer, tried again")
                .upstream(vec![Step::Until(HEADERS, 1), Step::Close]),
        ),
        closes("no HTTP/2").bare_upstream(vec![Step::Send(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec(),
        )]),
        closes("no SETTINGS").bare_upstream(vec![Step::Until(HEADERS, 1), Step::Send(hello())]),
        answered("noise", [0xff; 40]),
        answered("too large a frame", frame(DATA, 0, 1, &[0; 16385])),
        answered("too large a frame behind the head", [ok(1, &[]), frame(DATA, 0, 1, &[0; 16385])].concat()),
        on("/reset", answered("noise, tried again", [0xff; 40])),
    ]
}

fn limits() -> Vec<Case> {
    let limited = |count| Step::Send(frame(SETTINGS, 0, 0, &settings(&[(3, count)])));
    let in_turn = |case: Case| case.ends(1).then(asks(3, &get("/"))).ends(3);
    vec![
        in_turn(case("one stream at a time, in turn", asks(1, &get("/")))).bare_upstream(vec![
            limited(1),
            Step::Until(HEADERS, 1),
            Step::Send(hello()),
            Step::Until(HEADERS, 3),
            Step::Send([ok(3, &[]), frame(DATA, END_STREAM, 3, b"again")].concat()),
        ]),
        in_turn(case("no further streams", asks(1, &get("/")))).bare_upstream(vec![
            limited(0),
            Step::Until(HEADERS, 1),
            Step::Settle,
            Step::Send(hello()),
        ]),
        case("one stream at a time, two at once", asks(1, &get("/")))
            .bare_upstream(vec![limited(1), Step::Until(HEADERS, 1), Step::Send(ok(1, &[]))])
            .until(HEADERS, 1)
            .then(asks(3, &get("/")))
            .ends(3),
    ]
}
