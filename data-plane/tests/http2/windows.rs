//! Settings, and the windows of streams and connections.

use crate::case::{Case, Step, asks, case, opens, ping, post};
use crate::frames::{
    ACK, DATA, END_STREAM, HEADERS, PADDED, PREFACE, SETTINGS, WINDOW_UPDATE, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    let listeners = [
        ("l", "", ""),
        ("small", "initial_stream_window_size: 65535, initial_connection_window_size: 65535", ""),
        (
            "odd",
            "initial_stream_window_size: 70000, initial_connection_window_size: 100000, max_concurrent_streams: 100, hpack_table_size: 0",
            "",
        ),
        ("connect", "allow_connect: true, max_concurrent_streams: 2147483647", ""),
    ];
    side::config(&listeners, "")
}

fn data(size: usize) -> Vec<u8> {
    frame(DATA, 0, 1, &vec![b'x'; size])
}

fn grows(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub(crate) fn cases() -> Vec<Case> {
    [greetings(), said(), taken(), given()].into_iter().flatten().collect()
}

fn greetings() -> Vec<Case> {
    let direct = asks(1, &get("/direct"));
    let empty = frame(SETTINGS, 0, 0, &[]);
    vec![
        case("HTTP/1", b"").greeting(*b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"),
        case("a preface with a wrong byte", b"").greeting(*b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n"),
        case("a request before SETTINGS", direct.clone()).greeting(PREFACE).unacknowledged(),
        case("PING before SETTINGS", ping()).greeting(PREFACE).unacknowledged(),
        case("SETTINGS ACK before SETTINGS", frame(SETTINGS, ACK, 0, &[])).greeting(PREFACE).unacknowledged(),
        case("SETTINGS behind those of the server", empty.clone())
            .greeting(PREFACE)
            .unacknowledged()
            .then(direct.clone())
            .ends(1),
        case("a preface in two parts", [&PREFACE[10..], &empty, &direct].concat())
            .greeting(&PREFACE[..10])
            .unacknowledged()
            .ends(1),
        case("all at once", b"").greeting([PREFACE, &empty, &direct].concat()).ends(1).whole(),
    ]
}

fn said() -> Vec<Case> {
    let direct = asks(1, &get("/direct"));
    vec![
        case("settings", direct.clone()).ends(1).whole(),
        case("settings of small windows", direct.clone()).on("small").ends(1).whole(),
        case("settings of odd windows", asks(1, &[&b"\x20"[..], &get("/direct")].concat()))
            .on("odd")
            .ends(1)
            .whole(),
        case("settings with extended CONNECT", direct.clone()).on("connect").ends(1).whole(),
        case("a table of ours that is smaller, and no update of its size", direct.clone()).on("odd"),
        case("a table of ours that is smaller, not yet acknowledged", direct)
            .on("odd")
            .unacknowledged()
            .ends(1),
        case("a preface in place of a frame", PREFACE),
    ]
}

/// Bodies that clients send.
fn taken() -> Vec<Case> {
    let uploads =
        |name, listener| case(name, opens(1, &post("/"))).on(listener).upstream(Vec::new()).asked(1);
    let padded = frame(DATA, PADDED, 1, &[&[255], &[b'x'; 1000][..], &[0; 255]].concat());
    let four = |name, listener| {
        uploads(name, listener)
            .then(data(16_000))
            .then(data(16_000))
            .then(data(16_000))
            .then(data(16_000))
            .whole()
    };
    vec![
        four("windows of 64 KiB are opened again at half", "small"),
        four("windows of 16 MiB are not", "l"),
        uploads("a body that is larger than windows not yet acknowledged", "l")
            .unacknowledged()
            .send(data(16_000).repeat(5)),
        case("DATA of a stream that is done counts for the connection", asks(1, &get("/direct")))
            .on("small")
            .ends(1)
            .then(data(16_000))
            .then(data(16_000))
            .then(data(16_000))
            .whole(),
        case("padding counts", asks(1, &get("/direct"))).on("small").ends(1).then(padded.repeat(27)).whole(),
    ]
}

/// Bodies that clients get.
fn given() -> Vec<Case> {
    let body = [crate::case::ok(1, &[]), data(10_000).repeat(3), frame(DATA, END_STREAM, 1, b"")].concat();
    let answers = |case: Case| case.upstream(vec![Step::Until(HEADERS, 1), Step::Send(body.clone())]);
    let three = [(1, 4), (3, 4), (5, 1)].map(|(stream, count)| {
        let data = frame(DATA, 0, stream, &[b'x'; 10_000]).repeat(count);
        [crate::case::ok(stream, &[]), data, frame(DATA, END_STREAM, stream, b"")].concat()
    });
    let three = three.concat();
    let asked = |name, window: u32| {
        let asked = case(name, asks(1, &get("/"))).with_settings(settings(&[(4, window)]));
        answers(asked)
    };
    vec![
        asked("a window of nothing", 0)
            .until(HEADERS, 1)
            .then(grows(1, 10))
            .until(DATA, 1)
            .then(grows(1, 100_000))
            .ends(1),
        asked("a window that shrinks below nothing", 100)
            .until(DATA, 1)
            .then(frame(SETTINGS, 0, 0, &settings(&[(4, 50)])))
            .then(grows(1, 50))
            .then(grows(1, 51))
            .until(DATA, 1),
        asked("a window that grows by SETTINGS", 0)
            .until(HEADERS, 1)
            .then(frame(SETTINGS, 0, 0, &settings(&[(4, 100_000)])))
            .ends(1),
        asked("larger frames are allowed", 100_000)
            .with_settings(settings(&[(4, 100_000), (5, 30_000)]))
            .ends(1),
        case(
            "three bodies that wait",
            (0..3).flat_map(|at| asks(at * 2 + 1, &get("/direct"))).collect::<Vec<_>>(),
        )
        .with_settings(settings(&[(4, 0)]))
        .until(HEADERS, 5)
        .then([grows(5, 100), grows(1, 100), grows(3, 100)].concat())
        .ends(5)
        .whole(),
        case(
            "a window of the connection that is used up",
            (0..3).flat_map(|at| asks(at * 2 + 1, &get("/"))).collect::<Vec<_>>(),
        )
        .with_settings(settings(&[(4, 0)]))
        .upstream(vec![Step::Until(HEADERS, 5), Step::Send(three)])
        .until(HEADERS, 5)
        .then([grows(5, 100_000), grows(1, 100_000), grows(3, 100_000)].concat())
        .then(grows(0, 30_000))
        .ends(5),
    ]
}
