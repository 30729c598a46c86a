//! Reads what a peer sends without a connection, for tests and fuzzers: what must hold of any bytes.

use http::Request;
use sail_proxy_config::hcm::Http2Limits;
use sail_proxy_http2::frame::{HEADER, MIN_MAX_SIZE, PREFACE, kind, write};

use super::connection::{Inner, Options, Side};
use super::counts::Counts;
use super::error::Error;
use crate::http1::Limits;
use crate::stats::sets;
use crate::stats::{Scope, Store};

const MAX_STREAMS: usize = 3;

/// What became of the bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    accepted: Vec<(u32, Result<String, Error>)>,
    open: usize,
    ended: Option<Error>,
    answered: Vec<u8>,
}

/// Any bytes of a client, behind its first words.
pub(crate) fn clients(bytes: &[u8], size: usize) {
    let mut first = PREFACE.to_vec();
    write(&mut first, kind::SETTINGS, 0, 0, &[]);
    check(Side::Server, &[&first, bytes].concat(), size);
}

/// Any bytes of an upstream that was asked for something twice.
pub(crate) fn upstreams(bytes: &[u8], size: usize) {
    let mut first = Vec::new();
    write(&mut first, kind::SETTINGS, 0, 0, &[]);
    check(Side::Client, &[&first, bytes].concat(), size);
}

/// No panic, no memory without bound, and the same outcome however the bytes are cut into pieces.
fn check(side: Side, bytes: &[u8], size: usize) {
    let whole = read(side, [bytes]);
    assert_eq!(read(side, bytes.chunks(size.max(1))), whole, "in pieces of {size}");
}

fn read<'a>(side: Side, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let store = Store::new();
    let scope: Scope<sets::http::Set> = store.scope("probe");
    let traffic =
        scope.traffic(sets::http::downstream_cx_rx_bytes_total, sets::http::downstream_cx_tx_bytes_total);
    let counts = Counts::OfClients(store.scope::<sets::http2::Set>(""));
    let mut inner = Inner::new(side, None, options(), traffic, counts);
    if side == Side::Client {
        for _ in 0..2 {
            let (parts, ()) = Request::get("http://a/").body(()).unwrap_or_default().into_parts();
            inner.send_request(&parts, true);
        }
    }
    for piece in pieces {
        inner.take_in(piece);
        let kept = inner.input.len();
        assert!(kept <= MIN_MAX_SIZE as usize + HEADER + piece.len(), "{kept} bytes are kept");
        assert!(inner.streams.open() <= MAX_STREAMS, "{} streams", inner.streams.open());
        if inner.ended.is_some() {
            break;
        }
    }
    Outcome {
        accepted: (inner.accepted.drain(..))
            .map(|accepted| (accepted.stream, accepted.request.map(|request| format!("{request:?}"))))
            .collect(),
        open: inner.streams.open(),
        ended: inner.ended,
        answered: inner.output.buffer().clone(),
    }
}

fn options() -> Options {
    Options {
        stream_window: 65_535,
        connection_window: 65_535,
        max_streams: Some(MAX_STREAMS as u32),
        table: 4096,
        heads: Limits { headers: 100, bytes: 60 * 1024 },
        max_field: 64 * 1024,
        connect: true,
        stream_errors: true,
        huffman: false,
        asks_after: None,
        limits: Http2Limits::default(),
    }
}
