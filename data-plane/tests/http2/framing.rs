//! Frames of the wrong size, in the wrong place or with the wrong values.

use crate::case::{Case, afterwards, asks, case, meanwhile, opens, ping, post};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITIZED, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", ""), ("apart", "", "stream_error_on_invalid_http_message: true,")], "")
}

pub(crate) fn cases() -> Vec<Case> {
    [sizes(), values(), of_settings(), continuations(), unknown()].into_iter().flatten().collect()
}

/// A request's frames in place of one: the block is cut after so many bytes.
fn cut(at: usize, between: &[u8], last: &[u8]) -> Vec<u8> {
    let block = get("/direct");
    let (first, rest) = block.split_at(at);
    let first = frame(HEADERS, END_STREAM, 1, first);
    [&first, between, &frame(CONTINUATION, END_HEADERS, 1, rest), last].concat()
}

fn sizes() -> Vec<Case> {
    let head_alone = [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1];
    vec![
        meanwhile("DATA of 16385 bytes", frame(DATA, 0, 1, &[0; 16385])),
        meanwhile("DATA that says to have 16777215 bytes", head_alone),
        case("HEADERS of 16385 bytes", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 16385])),
        case("an unknown frame of 16385 bytes", frame(99, 0, 0, &[0; 16385])),
        case("PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        case("PING of 9 bytes", frame(PING, 0, 0, &[0; 9])),
        case("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        case("SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, &settings(&[(3, 1)]))),
        case("WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[1; 3])),
        meanwhile("RST_STREAM of 3 bytes", frame(RST_STREAM, 0, 1, &[0; 3])),
        case("PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4])),
        case("GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, &[0; 7])),
        case("HEADERS too short for a priority", frame(HEADERS, 5 | PRIORITIZED, 1, &[0; 4])),
        meanwhile("DATA padded beyond its length", frame(DATA, PADDED, 1, b"\x05abc")),
        meanwhile("DATA of padding alone", frame(DATA, PADDED, 1, b"\x03abc")),
        meanwhile("DATA padded without a length", frame(DATA, PADDED, 1, b"")),
        case(
            "HEADERS padded beyond its length",
            frame(HEADERS, 5 | PADDED, 1, &[b"\xff".to_vec(), get("/direct")].concat()),
        ),
        case(
            "HEADERS padded",
            frame(HEADERS, 5 | PADDED, 1, &[b"\x03".to_vec(), get("/direct"), b"abc".to_vec()].concat()),
        )
        .ends(1),
    ]
}

fn values() -> Vec<Case> {
    let itself = [b"\0\0\0\x01\x01".to_vec(), get("/direct")].concat();
    let other = [b"\0\0\0\0\x01".to_vec(), get("/direct")].concat();
    vec![
        afterwards("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        case("PING ACK that nobody asked for", frame(PING, ACK, 0, &[0; 8])),
        case("PING", ping()),
        case("WINDOW_UPDATE of nothing on the connection", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        meanwhile("WINDOW_UPDATE of nothing on a stream", frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        case(
            "WINDOW_UPDATE beyond the connection's limit",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()),
        ),
        meanwhile(
            "WINDOW_UPDATE beyond a stream's limit",
            frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffffu32.to_be_bytes()),
        ),
        case("PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\0\x01")),
        case("PRIORITY of a stream on itself", frame(PRIORITY, 0, 1, b"\0\0\0\x01\x01")),
        case("HEADERS of a stream that depends on itself", frame(HEADERS, 5 | PRIORITIZED, 1, &itself)),
        case("HEADERS with a priority", frame(HEADERS, 5 | PRIORITIZED, 1, &other)).ends(1),
        case("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        case("GOAWAY before a request", [frame(GOAWAY, 0, 0, &[0; 8]), asks(1, &get("/direct"))].concat())
            .ends(1)
            .unsettled(),
        meanwhile("GOAWAY while a request is under way", frame(GOAWAY, 0, 0, &[0; 8])),
        meanwhile(
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[b"\0\0\0\x02".to_vec(), get("/direct")].concat()),
        ),
    ]
}

fn of_settings() -> Vec<Case> {
    let says = |name, values: &[(u16, u32)]| case(name, frame(SETTINGS, 0, 0, &settings(values)));
    vec![
        case("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        case("SETTINGS ACK a second time", frame(SETTINGS, ACK, 0, &[])),
        says("ENABLE_PUSH 2", &[(2, 2)]),
        says("ENABLE_PUSH 1", &[(2, 1)]),
        says("INITIAL_WINDOW_SIZE 2^31", &[(4, 1 << 31)]),
        says("MAX_FRAME_SIZE 1", &[(5, 1)]),
        says("MAX_FRAME_SIZE 2^24", &[(5, 1 << 24)]),
        says("ENABLE_CONNECT_PROTOCOL 2", &[(8, 2)]),
        says("ENABLE_CONNECT_PROTOCOL taken back", &[(8, 1), (8, 0)]),
        says("NO_RFC7540_PRIORITIES in later SETTINGS", &[(9, 1)]),
        says("an unknown setting", &[(99, 1)]),
        says("32 settings", &[(99, 1); 32]),
        says("33 settings", &[(99, 1); 33]),
    ]
}

fn continuations() -> Vec<Case> {
    let block = get("/direct");
    let bytewise = (1..13).map(|at| frame(CONTINUATION, 0, 1, &block[at..=at])).collect::<Vec<_>>().concat();
    let first = frame(HEADERS, END_STREAM, 1, &block[..1]);
    let many = [first, bytewise, frame(CONTINUATION, END_HEADERS, 1, &block[13..])].concat();
    let cut_off = block[..block.len() - 3].to_vec();
    vec![
        case("CONTINUATION", cut(5, b"", b"")).ends(1),
        case("CONTINUATION of an empty HEADERS", cut(0, b"", b"")).ends(1),
        case("an empty CONTINUATION", cut(block.len(), b"", b"")).ends(1),
        case("many CONTINUATIONs", many).ends(1),
        case("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &block)),
        meanwhile("CONTINUATION behind whole HEADERS", frame(CONTINUATION, END_HEADERS, 1, &block)),
        case("PING within a block", cut(5, &ping(), b"")),
        case("DATA within a block", cut(5, &frame(DATA, 0, 1, b"x"), b"")),
        case("an unknown frame within a block", cut(5, &frame(99, 0, 0, b"x"), b"")),
        case("CONTINUATION of another stream", cut(5, &frame(CONTINUATION, 0, 3, b"x"), b"")),
        case("an index beyond the table", asks(1, b"\xff\x80\x01")),
        case("index 0", asks(1, b"\x80")),
        case("a block that is cut off", asks(1, &cut_off)),
        case(
            "a string that is no Huffman code",
            asks(1, &[block.clone(), b"\0\x01a\x81\0".to_vec()].concat()),
        ),
        case(
            "a table that grows too large",
            asks(1, &[b"\x3f\xff\xff\x01".to_vec(), block.clone()].concat()),
        ),
        case("an update of the table's size", asks(1, &[b"\x20".to_vec(), block.clone()].concat())).ends(1),
        case("an update of the table's size at the end", asks(1, &[block, b"\x20".to_vec()].concat())),
    ]
}

fn unknown() -> Vec<Case> {
    let before =
        |kind, stream, payload: &[u8]| [frame(kind, 0, stream, payload), asks(1, &get("/direct"))].concat();
    vec![
        case("a frame of unknown type", before(99, 0, b"x")).ends(1),
        case("a frame of unknown type on an idle stream", before(99, 1, b"x")).ends(1),
        case("ALTSVC of a client", before(10, 0, b"\0\0x")).ends(1),
        case("PRIORITY_UPDATE", before(16, 0, b"\0\0\0\x01u=1")).ends(1),
        case("ORIGIN", before(12, 0, b"")).ends(1),
        afterwards("an error behind an answer", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        case(
            "an error while two streams are under way",
            [opens(1, &post("/")), opens(3, &post("/"))].concat(),
        )
        .upstream(Vec::new())
        .asked(2)
        .then(asks(5, &[get("/direct"), block(&[("X", "y")])].concat())),
        case("an invalid request beside one under way, apart", opens(1, &post("/")))
            .on("apart")
            .upstream(Vec::new())
            .asked(1)
            .then(asks(3, &[get("/direct"), block(&[("X", "y")])].concat())),
        meanwhile("WINDOW_UPDATE of nothing, apart", frame(WINDOW_UPDATE, 0, 1, &[0; 4])).on("apart"),
    ]
}
