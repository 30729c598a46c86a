//! Frames on streams that are not there, not yet or no more.

use crate::case::{Case, afterwards, asks, case, get_with, meanwhile, opens, post};
use crate::frames::{
    DATA, END_STREAM, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    side::config(&[("l", "", ""), ("one", "max_concurrent_streams: 1", "")], "")
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn cases() -> Vec<Case> {
    let direct = get("/direct");
    let trailers = block(&[("x-t", "v")]);
    let one = 1u32.to_be_bytes();
    vec![
        case("a request", asks(1, &direct)).ends(1),
        case("a request on stream 7", asks(7, &direct)).ends(7),
        case("DATA on an idle stream", frame(DATA, 0, 1, b"x")),
        case("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        case("DATA on an even stream", frame(DATA, 0, 2, b"x")),
        case("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &one)),
        case("RST_STREAM on an idle stream", reset(1, 8)),
        case("RST_STREAM on stream 0", reset(0, 8)),
        case("HEADERS on an even stream", asks(2, &direct)),
        case("HEADERS on stream 0", asks(0, &direct)),
        afterwards("DATA on a stream that is done", frame(DATA, 0, 1, b"x")),
        afterwards("WINDOW_UPDATE on a stream that is done", frame(WINDOW_UPDATE, 0, 1, &one)),
        afterwards("WINDOW_UPDATE of nothing on a stream that is done", frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        afterwards("RST_STREAM on a stream that is done", reset(1, 8)),
        afterwards("HEADERS on a stream that is done", asks(1, &direct)),
        case("DATA on a lower stream that never was", asks(5, &direct)).ends(5).then(frame(DATA, 0, 1, b"x")),
        case("HEADERS on a lower stream that never was", asks(5, &direct)).ends(5).then(asks(3, &direct)),
        case("DATA behind the request's end", asks(1, &get("/")))
            .upstream(Vec::new())
            .asked(1)
            .then(frame(DATA, 0, 1, b"x")),
        case("trailers behind the request's end", asks(1, &get("/")))
            .upstream(Vec::new())
            .asked(1)
            .then(asks(1, &trailers)),
        meanwhile("RST_STREAM NO_ERROR", reset(1, 0)),
        meanwhile("RST_STREAM CANCEL", reset(1, 8)),
        meanwhile("RST_STREAM REFUSED_STREAM", reset(1, 7)),
        meanwhile("RST_STREAM with an unknown code", reset(1, 256)),
        meanwhile("DATA behind the client's own RST_STREAM", [reset(1, 8), frame(DATA, 0, 1, b"x")].concat()),
        meanwhile("a stream too many", asks(3, &direct)).on("one"),
        meanwhile("a stream too many, before the limit is acknowledged", asks(3, &direct))
            .on("one")
            .unacknowledged(),
        meanwhile(
            "a window that grows too large by SETTINGS",
            [
                frame(WINDOW_UPDATE, 0, 1, &0x7fff_0000u32.to_be_bytes()),
                frame(SETTINGS, 0, 0, &settings(&[(4, 0x7fff_ffff)])),
            ]
            .concat(),
        ),
        case("two answers at once", [asks(1, &direct), asks(3, &direct)].concat()).ends(3).whole(),
        case(
            "HEAD",
            asks(
                1,
                &block(&[
                    (":method", "HEAD"),
                    (":scheme", "http"),
                    (":authority", "a"),
                    (":path", "/direct"),
                ]),
            ),
        )
        .ends(1),
        case("an answer without a body", asks(1, &get("/none"))).ends(1),
        case("an answer before the request's end", opens(1, &post("/direct"))).ends(1),
        case("DATA behind the answer", opens(1, &post("/direct")))
            .ends(1)
            .then(frame(DATA, 0, 1, b"x"))
            .then(frame(DATA, END_STREAM, 1, b"x")),
        case("100-continue", opens(1, &[post("/"), block(&[("expect", "100-continue")])].concat()))
            .until(HEADERS, 1)
            .then(frame(DATA, END_STREAM, 1, b"x"))
            .ends(1),
        case(
            "100-continue of a local reply",
            opens(1, &[post("/direct"), block(&[("expect", "100-continue")])].concat()),
        )
        .ends(1),
        case(
            "request trailers",
            [opens(1, &post("/")), frame(DATA, 0, 1, b"abc"), asks(1, &trailers)].concat(),
        )
        .ends(1),
        case("te: trailers", asks(1, &get_with("/direct", &[("te", "trailers")]))).ends(1),
        case("a response that takes too long", asks(1, &get("/short"))).upstream(Vec::new()).ends(1),
    ]
}
