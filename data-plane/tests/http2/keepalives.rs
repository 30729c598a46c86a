//! Upstreams whose connections are asked whether they still live.

use crate::case::{Case, Step, asks, case, ok};
use crate::frames::{ACK, DATA, END_STREAM, HEADERS, PING, SETTINGS, frame, get};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", "")], "connection_keepalive: {interval: 0.2s, timeout: 0.1s}")
}

pub(crate) fn cases() -> Vec<Case> {
    let asked = |name| case(name, asks(1, &get("/"))).ends(1);
    let hello = Step::Send(frame(DATA, END_STREAM, 1, b"hello"));
    let head = Step::Send(ok(1, &[]));
    vec![
        asked("an upstream that does not answer PINGs").mute().upstream(vec![Step::Until(PING, 0)]),
        asked("an upstream that does not answer PINGs within its answer").mute().upstream(vec![
            Step::Until(HEADERS, 1),
            head.clone(),
            Step::Until(PING, 0),
        ]),
        asked("an upstream that answers PINGs").upstream(vec![
            Step::Until(PING, 0),
            Step::Until(PING, 0),
            head.clone(),
            hello.clone(),
        ]),
        asked("an upstream that answers before a PING").upstream(vec![Step::Until(HEADERS, 1), head, hello]),
        asked("the first write to an upstream")
            .upstream(vec![Step::Until(SETTINGS, 0), Step::Until(HEADERS, 1), Step::Send(asks(1, &[0x88]))])
            .whole(),
        asked("PING ACK with another payload")
            .mute()
            .upstream(vec![Step::Until(PING, 0), Step::Send(frame(PING, ACK, 0, &[0; 8]))]),
    ]
}
