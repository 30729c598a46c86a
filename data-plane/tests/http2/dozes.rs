//! Upstreams that are asked whether they still live before a request after a silence.

use crate::case::Step::{Send, Until};
use crate::case::{Case, asks, case, ok};
use crate::frames::{DATA, END_STREAM, HEADERS, frame, get};
use crate::side;

pub(crate) fn config() -> String {
    let keepalive =
        "connection_keepalive: {timeout: 0.2s, connection_idle_interval: 0.2s, interval_jitter: {value: 5}}";
    side::config(&[("l", "", "")], keepalive)
}

pub(crate) fn cases() -> Vec<Case> {
    let answer = |stream| [ok(stream, &[]), frame(DATA, END_STREAM, stream, b"hi")].concat();
    // The first request is silence until its time is over.
    let after_silence = |name, steps: Vec<_>| {
        let case = case(name, asks(1, &get("/short"))).ends(1).send(asks(3, &get("/"))).ends(3);
        case.upstream([vec![Until(HEADERS, 1), Until(HEADERS, 3)], steps].concat())
    };
    vec![
        after_silence("an answer after a silence", vec![Send(answer(3))]),
        after_silence("no answer after a silence", Vec::new()).mute(),
        case("two requests without a silence", asks(1, &get("/")))
            .ends(1)
            .send(asks(3, &get("/")))
            .ends(3)
            .upstream(vec![Until(HEADERS, 1), Send(answer(1)), Until(HEADERS, 3), Send(answer(3))]),
    ]
}
