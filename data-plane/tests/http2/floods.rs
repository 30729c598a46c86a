//! Clients that send too many frames that cost nothing.

use crate::case::{Case, afterwards, asks, case, meanwhile, opens, ping, post};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, get, settings,
};
use crate::side;

pub(crate) fn config() -> String {
    let listeners = [
        ("l", "", ""),
        ("none_empty", "max_consecutive_inbound_frames_with_empty_payload: 0", ""),
        (
            "few",
            "max_inbound_priority_frames_per_stream: 2, max_inbound_window_update_frames_per_data_frame_sent: 1",
            "",
        ),
        ("answers", "max_outbound_control_frames: 5", ""),
        ("frames", "max_outbound_frames: 20", ""),
        ("resets", "stream_reset_burst: 5, stream_reset_rate: 1", ""),
    ];
    side::config(&listeners, "")
}

pub(crate) fn cases() -> Vec<Case> {
    [empty(), updates(), outbound(), resets()].into_iter().flatten().collect()
}

fn empty() -> Vec<Case> {
    let nothing = frame(DATA, 0, 1, b"");
    let headers = frame(HEADERS, END_STREAM, 1, &get("/direct"));
    let end = frame(CONTINUATION, END_HEADERS, 1, b"");
    let more = frame(CONTINUATION, 0, 1, b"");
    vec![
        meanwhile("one empty DATA", nothing.clone()),
        meanwhile("two empty DATA", nothing.repeat(2)),
        meanwhile(
            "two empty DATA around another",
            [&nothing[..], &frame(DATA, 0, 1, b"x"), &nothing].concat(),
        ),
        meanwhile("two empty DATA around a PING", [&nothing[..], &ping(), &nothing].concat()),
        meanwhile("an empty DATA that is one too many", nothing.clone()).on("none_empty"),
        case(
            "an empty DATA that ends the stream",
            [opens(1, &post("/")), frame(DATA, END_STREAM, 1, b"")].concat(),
        )
        .on("none_empty")
        .ends(1),
        meanwhile("DATA of padding alone", frame(DATA, PADDED, 1, b"\x02\0\0").repeat(3)),
        case("an empty CONTINUATION", [&headers[..], &end].concat()).ends(1),
        case("empty CONTINUATIONs", [&headers[..], &more, &more, &end].concat()),
    ]
}

fn updates() -> Vec<Case> {
    let priority = |count| frame(PRIORITY, 0, 3, b"\0\0\0\0\x01").repeat(count);
    let window = |count| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(count);
    let stream = |count| frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()).repeat(count);
    vec![
        case("100 PRIORITY", priority(100)),
        case("101 PRIORITY", priority(101)),
        meanwhile("4 PRIORITY beside a stream", priority(4)).on("few"),
        meanwhile("5 PRIORITY beside a stream", priority(5)).on("few"),
        afterwards("2 PRIORITY behind a stream", priority(2)).on("few"),
        afterwards("3 PRIORITY behind a stream", priority(3)).on("few"),
        case("5 WINDOW_UPDATE", window(5)),
        case("6 WINDOW_UPDATE", window(6)),
        meanwhile("7 WINDOW_UPDATE beside a stream", window(7)),
        meanwhile("8 WINDOW_UPDATE beside a stream", window(8)),
        meanwhile("8 WINDOW_UPDATE of a stream", stream(8)),
        afterwards("25 WINDOW_UPDATE behind a DATA", window(25)),
        afterwards("26 WINDOW_UPDATE behind a DATA", window(26)),
        afterwards("7 WINDOW_UPDATE behind a DATA", window(7)).on("few"),
        afterwards("8 WINDOW_UPDATE behind a DATA", window(8)).on("few"),
    ]
}

fn outbound() -> Vec<Case> {
    let asked = |count: u32| (0..count).flat_map(|at| asks(at * 2 + 1, &get("/direct"))).collect::<Vec<_>>();
    vec![
        (0..5).fold(case("5 PINGs at once", ping().repeat(5)).on("answers"), |case, _| case.until(PING, 0)),
        case("6 PINGs at once", ping().repeat(6)).on("answers"),
        case("6 SETTINGS at once", frame(SETTINGS, 0, 0, &[]).repeat(6)).on("answers"),
        case("10 answers of two frames at once", asked(10)).on("frames").ends(19),
        case("11 answers of two frames at once", asked(11)).on("frames").ends(21),
        case("30 heads at once whose bodies must wait", asked(30))
            .on("frames")
            .with_settings(settings(&[(4, 0)]))
            .until(HEADERS, 59),
    ]
}

fn resets() -> Vec<Case> {
    let one = |at: u32, path: &str| {
        let stream = at * 2 + 1;
        [asks(stream, &get(path)), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    };
    let many = |count, path: &str| (0..count).flat_map(|at| one(at, path)).collect::<Vec<_>>();
    vec![
        case("5 streams that are reset at once", many(5, "/direct")).on("resets"),
        case("7 streams that are reset at once", many(7, "/direct")).on("resets"),
        case("300 streams that are reset at once", many(300, "/hang")).upstream(Vec::new()),
    ]
}
