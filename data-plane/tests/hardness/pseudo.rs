//! HTTP/2 heads that would become other requests where they are written as HTTP/1.

use crate::Gate;
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, block, frame, has_status};

type Fields<'a> = &'a [(&'a str, &'a str)];

const PLAIN: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/x")];

fn with<'a>(more: Fields<'a>) -> Vec<(&'a str, &'a str)> {
    [&PLAIN[..], more].concat()
}

/// The plain head with one field changed.
fn instead<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    PLAIN.iter().map(|&(key, old)| (key, if key == name { value } else { old })).collect()
}

/// What became of a head: whether it was refused, and what reached the backend.
fn send(gate: &Gate, fields: Fields<'_>, body: Option<&[u8]>) -> (bool, Vec<String>) {
    let mut peer = Peer::connect(gate.to, &[]);
    let end = if body.is_none() { END_STREAM } else { 0 };
    peer.send(&frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if let Some(body) = body {
        peer.send(&frame(DATA, END_STREAM, 1, body));
    }
    let outcome = peer.outcome(1);
    let refused = outcome.as_ref().is_none_or(|frame| !has_status(frame, 200));
    drop(peer);
    (refused, gate.seen_after(&format!("{fields:?}")))
}

fn refused(gate: &Gate, fields: Fields<'_>) {
    let (refused, seen) = send(gate, fields, None);
    assert!(refused && seen.is_empty(), "{fields:?}: refused {refused}, {seen:?}");
}

#[test]
fn heads_that_are_none_are_refused() {
    let gate = Gate::new("", "");
    refused(&gate, &PLAIN[1..]);
    refused(&gate, &PLAIN[..3]);
    refused(&gate, &[(":method", "GET"), (":authority", "test"), (":path", "/x")]);
    refused(&gate, &with(&[(":path", "/y")]));
    refused(&gate, &with(&[(":method", "POST")]));
    refused(&gate, &with(&[(":status", "200")]));
    refused(&gate, &with(&[(":other", "x")]));
    refused(&gate, &[PLAIN[0], PLAIN[1], ("a", "b"), PLAIN[2], PLAIN[3]]);
    refused(&gate, &with(&[("Upper", "x")]));
    refused(&gate, &with(&[("connection", "close")]));
    refused(&gate, &with(&[("transfer-encoding", "chunked")]));
    refused(&gate, &with(&[("keep-alive", "5")]));
    refused(&gate, &with(&[("upgrade", "h2c")]));
    refused(&gate, &with(&[("te", "gzip")]));
}

#[test]
fn values_with_lines_in_them_are_refused() {
    let gate = Gate::new("", "");
    for bad in ["a\r\nevil: yes", "a\nevil: yes", "a\rb", "a\0b"] {
        refused(&gate, &with(&[("a", bad)]));
        refused(&gate, &instead(":authority", bad));
        refused(&gate, &instead(":method", bad));
        refused(&gate, &instead(":path", &format!("/{bad}")));
    }
    refused(&gate, &with(&[("a\r\nb", "c")]));
    refused(&gate, &with(&[("a: b\r\nc", "d")]));
    refused(&gate, &with(&[("a b", "c")]));
    refused(&gate, &instead(":path", "/x HTTP/1.1\r\nevil: yes\r\n\r\n"));
    refused(&gate, &instead(":path", "/x y"));
    refused(&gate, &instead(":path", ""));
    refused(&gate, &instead(":path", "x"));
    refused(&gate, &instead(":method", "GET /admin HTTP/1.1"));
    refused(&gate, &instead(":authority", "test/admin"));
    refused(&gate, &instead(":path", "/admin"));
}

#[test]
fn a_length_that_lies_is_refused() {
    let gate = Gate::new("", "");
    for (length, body) in [("3", &b"hello"[..]), ("10", b"hello"), ("x", b"hello"), ("-1", b"hello")] {
        let mut fields = instead(":method", "POST");
        fields.push(("content-length", length));
        let (refused, seen) = send(&gate, &fields, Some(body));
        assert!(refused, "{length}");
        // The head may have gone on before the body's end was known, but no whole request did.
        assert!(seen.iter().all(|seen| !seen.contains("hello")), "{length}: {seen:?}");
    }
}

#[test]
fn one_host_goes_on() {
    let gate = Gate::new("", "");
    let (refused, seen) = send(&gate, &with(&[("host", "other")]), None);
    assert!(refused || (seen.len() == 1 && !seen[0].contains("other")), "{seen:?}");
}
