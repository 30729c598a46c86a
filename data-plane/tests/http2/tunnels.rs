//! CONNECT to an upstream of TCP: how either end's leaving reaches the other.

use crate::case::{Case, Step, asks, case, opens};
use crate::frames::{DATA, END_STREAM, HEADERS, PREFACE, RST_STREAM, block, frame, get};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "allow_connect: true", "upgrade_configs: [{upgrade_type: CONNECT}],")], "")
}

/// What asks for a tunnel.
fn connect(authority: &str) -> Vec<u8> {
    opens(1, &block(&[(":method", "CONNECT"), (":authority", authority)]))
}

/// What upstreams are told through the tunnel: frames, which are what they read.
fn told() -> Vec<u8> {
    [PREFACE, &frame(DATA, 0, 7, b"hello")].concat()
}

fn says(flags: u8, text: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, text)
}

/// An upstream that does this once it was told.
fn hears(rest: Vec<Step>) -> Vec<Step> {
    [vec![Step::Until(DATA, 7)], rest].concat()
}

/// Until the connection's end.
const END: Step = Step::Until(u8::MAX, 0);

/// Until the client has what was said, so that the end comes by itself: it tells so with a request of its own.
const MET: Step = Step::Asked(1);

fn meets(case: Case) -> Case {
    case.until(DATA, 1).send(asks(3, &get("/"))).ends(3).ends(1)
}

pub(crate) fn cases() -> Vec<Case> {
    let opened = |name, rest: Vec<Step>| {
        case(name, connect("tcp:1")).bare_upstream(hears(rest)).until(HEADERS, 1).send(says(0, &told()))
    };
    let bye = || Step::Send(b"bye".to_vec());
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    vec![
        meets(
            opened("the client ends, then the upstream", vec![END, bye(), MET, Step::Close])
                .send(says(END_STREAM, b"")),
        ),
        meets(
            opened("the client ends with data", vec![Step::Until(DATA, 9), END, bye(), MET, Step::Close])
                .send(says(END_STREAM, &frame(DATA, 0, 9, b"last"))),
        ),
        meets(opened("the upstream ends, then the client", vec![bye(), MET, Step::HalfClose, END]))
            .send(says(END_STREAM, &frame(DATA, 0, 9, b"last"))),
        opened("the upstream ends at once", vec![Step::Close]).ends(1),
        opened("the client cancels", vec![bye(), END]).until(DATA, 1).send(reset(8)),
        opened("the client resets", vec![bye(), END]).until(DATA, 1).send(reset(2)),
        opened("the client leaves", vec![bye(), END]).until(DATA, 1).close(),
        meets(
            case("bytes before the answer", [connect("tcp:1"), says(0, &told())].concat())
                .bare_upstream(hears(vec![bye(), MET, Step::Close])),
        ),
        meets(
            case(
                "bytes and the end before the answer",
                [connect("tcp:1"), says(END_STREAM, &told())].concat(),
            )
            .bare_upstream(hears(vec![END, bye(), MET, Step::Close])),
        ),
        case("the end before the answer", [connect("tcp:1"), says(END_STREAM, b"")].concat())
            .bare_upstream(vec![Step::Close])
            .ends(1),
        case("nobody is there", connect("dead:1")).ends(1),
        case("nobody is there, and bytes", [connect("dead:1"), says(0, &told())].concat()).ends(1),
    ]
}
