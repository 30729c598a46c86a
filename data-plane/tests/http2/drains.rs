//! Connections and streams that have lasted long enough.

use crate::case::Step::{Send, Until};
use crate::case::{Case, asks, case, ok, opens, post};
use crate::frames::{DATA, END_STREAM, GOAWAY, HEADERS, PING, WINDOW_UPDATE, frame, get, settings};
use crate::side;

pub(crate) fn config() -> String {
    let listeners = [
        ("idle", "", "drain_timeout: 0.3s, common_http_protocol_options: {idle_timeout: 0.1s},"),
        ("old", "", "drain_timeout: 0.3s, common_http_protocol_options: {max_connection_duration: 0.1s},"),
        ("two", "", "drain_timeout: 0.3s, common_http_protocol_options: {max_requests_per_connection: 2},"),
        ("upgrades", "allow_connect: true", "drain_timeout: 0.3s,"),
        ("asks", "connection_keepalive: {interval: 0.2s, timeout: 0.1s}", ""),
        ("whole", "", "request_timeout: 0.3s,"),
        ("still", "", "stream_idle_timeout: 0.3s,"),
        ("flushes", "", "stream_flush_timeout: 0.3s,"),
        ("stream", "", "common_http_protocol_options: {max_stream_duration: 0.3s},"),
    ];
    side::config(&listeners, "")
}

pub(crate) fn cases() -> Vec<Case> {
    [connections(), streams()].into_iter().flatten().collect()
}

fn connections() -> Vec<Case> {
    let websocket = crate::frames::block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]);
    let direct = get("/direct");
    let waits = |name, listener| {
        let begun = case(name, opens(1, &post("/"))).on(listener).asked(1);
        begun.until(GOAWAY, 0).until(GOAWAY, 0)
    };
    vec![
        case("an idle connection", b"").on("idle").until(GOAWAY, 0).until(GOAWAY, 0).whole(),
        case("an idle connection that was used", asks(1, &direct))
            .on("idle")
            .ends(1)
            .until(GOAWAY, 0)
            .until(GOAWAY, 0),
        case("a request while an idle connection drains", b"")
            .on("idle")
            .until(GOAWAY, 0)
            .send(asks(1, &direct))
            .ends(1)
            .until(GOAWAY, 0),
        case("an old connection", b"").on("old").until(GOAWAY, 0).until(GOAWAY, 0),
        waits("an old connection with a request under way", "old").upstream(Vec::new()),
        waits("a request behind the last GOAWAY", "old").upstream(Vec::new()).then(asks(3, &direct)),
        waits("the last answer of an old connection", "old").send(frame(DATA, END_STREAM, 1, b"")).ends(1),
        case("requests enough", asks(1, &direct))
            .on("two")
            .ends(1)
            .then(asks(3, &direct))
            .ends(3)
            .then(asks(5, &direct))
            .ends(5)
            .until(GOAWAY, 0)
            .whole(),
        case("what is not upgraded", opens(1, &websocket)).on("upgrades").ends(1).until(GOAWAY, 0),
        case("PINGs", b"").on("asks").until(PING, 0).until(PING, 0),
        case("PINGs that are not answered", b"").on("asks").mute().until(PING, 0).till_closed(),
        case("PINGs that are not answered, with a request under way", asks(1, &get("/")))
            .on("asks")
            .mute()
            .upstream(Vec::new())
            .until(PING, 0)
            .till_closed(),
    ]
}

fn streams() -> Vec<Case> {
    let whole = |name, listener| case(name, asks(1, &get("/"))).on(listener).upstream(Vec::new()).ends(1);
    let begun = |name, listener| case(name, opens(1, &post("/"))).on(listener).upstream(Vec::new()).ends(1);
    let no_window = || settings(&[(4, 0)]);
    let answer = |name, path| {
        let body = frame(DATA, END_STREAM, 1, b"hello");
        case(name, asks(1, &get(path)))
            .with_settings(no_window())
            .upstream(vec![Until(HEADERS, 1), Send([ok(1, &[]), body].concat())])
    };
    vec![
        begun("a request that takes too long to come", "whole"),
        whole("a stream on which nothing happens", "still"),
        begun("a stream on which nothing happens before the request's end", "still"),
        case("a stream on which nothing happens within the answer", asks(1, &get("/")))
            .on("still")
            .upstream(vec![Until(HEADERS, 1), Send(ok(1, &[]))])
            .ends(1),
        case("an answer that is not taken", asks(1, &get("/direct")))
            .on("still")
            .with_settings(no_window())
            .ends(1),
        answer("an answer whose end is not taken", "/").on("flushes").ends(1),
        answer("an answer whose end is not taken within the idle time", "/").on("still").ends(1),
        answer("an answer whose end is not taken, and the route says how long", "/flushed")
            .on("whole")
            .ends(1),
        answer("an answer whose end is taken bit by bit", "/")
            .on("flushes")
            .send(frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()))
            .until(DATA, 1)
            .send(frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()))
            .until(DATA, 1)
            .ends(1),
        case("an answer that is not taken while it goes on", asks(1, &get("/")))
            .on("still")
            .with_settings(no_window())
            .upstream(vec![Until(HEADERS, 1), Send([ok(1, &[]), frame(DATA, 0, 1, b"hi")].concat())])
            .ends(1),
        whole("a stream that lasts too long", "stream"),
        begun("a stream that lasts too long before the request's end", "stream"),
    ]
}
