//! One end of a connection: it does its steps and writes down what it sees.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::beside::until;
use crate::case::{Step, ok};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, Peer, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, status,
};

/// The payload of PINGs whose answers tell that all before them was read.
const SETTLED: &[u8] = b"settled?";

/// The payload of the PING after which an upstream does nothing more.
const FINISHED: &[u8] = b"finished";

/// How long a request may take to the upstream, and a frame to come.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Wire {
    peer: Peer,
    /// How many requests have reached upstreams.
    asked: Arc<AtomicUsize>,
    /// Whether PINGs are not answered.
    mute: bool,
    /// The stream and text of each frame.
    seen: Vec<(u32, String)>,
    /// The streams that the other end has ended.
    done: BTreeSet<u32>,
    ended: bool,
    finished: bool,
}

impl Wire {
    pub(crate) fn new(peer: Peer, asked: &Arc<AtomicUsize>, mute: bool) -> Self {
        peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            peer,
            asked: asked.clone(),
            mute,
            seen: Vec::new(),
            done: BTreeSet::new(),
            ended: false,
            finished: false,
        }
    }

    /// Makes the end that reads from this stream finish, once it has read what was sent before.
    pub(crate) fn finish(mut stream: &TcpStream) {
        let _ = stream.write_all(&frame(PING, 0, 0, FINISHED));
    }

    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    self.peer.send(bytes);
                }
                Step::Until(kind, stream) => {
                    self.read(|frame| frame.kind == *kind && frame.stream == *stream);
                }
                Step::End(stream) if self.done.contains(stream) => {}
                Step::End(stream) => self.read(|frame| frame.stream == *stream && ends(frame)),
                Step::Asked(count) => {
                    until(PATIENCE, || (self.asked.load(Ordering::SeqCst) >= *count).then_some(()));
                }
                Step::Settle => self.settle(),
                Step::Serve => self.serve(),
                Step::HalfClose => {
                    let _ = self.peer.stream.shutdown(Shutdown::Write);
                }
                Step::Close => {
                    let _ = self.peer.stream.shutdown(Shutdown::Both);
                    self.ended = true;
                }
            }
        }
    }

    /// Reads until the other end has answered, or is gone. Twice, since a PING may be answered before what came with it.
    fn settle(&mut self) {
        for _ in 0..2 {
            self.peer.send(&frame(PING, 0, 0, SETTLED));
            self.read(|frame| is_ack(frame, SETTLED));
        }
    }

    /// Reads to the end.
    pub(crate) fn drain(&mut self) {
        self.read(|_| false);
    }

    /// Answers each request at its end.
    fn serve(&mut self) {
        while !self.ended && !self.finished {
            let mut asked = None;
            self.read(|frame| {
                asked = Some(frame.stream).filter(|_| ends(frame) && frame.kind != RST_STREAM);
                asked.is_some()
            });
            if let Some(stream) = asked {
                let body = frame(DATA, END_STREAM, stream, b"served");
                self.peer.send(&[ok(stream, &[]), body].concat());
            }
        }
    }

    /// Reads until a frame that is looked for; SETTINGS and PINGs are acknowledged on the way.
    fn read(&mut self, mut sought: impl FnMut(&Frame) -> bool) {
        while !self.ended && !self.finished {
            let start = Instant::now();
            let Some(next) = self.peer.next() else {
                self.ended = true;
                if start.elapsed() >= PATIENCE {
                    self.seen.push((u32::MAX, "nothing".to_owned()));
                }
                return;
            };
            if next.kind == SETTINGS && next.flags & ACK == 0 {
                self.peer.send(&frame(SETTINGS, ACK, 0, &[]));
            }
            if next.kind == PING && next.flags & ACK == 0 && !self.mute {
                self.peer.send(&frame(PING, ACK, 0, &next.payload));
            }
            if next.kind == HEADERS && status(&next).is_none() {
                self.asked.fetch_add(1, Ordering::SeqCst);
            }
            if ends(&next) {
                self.done.insert(next.stream);
            }
            self.finished = is_ack(&next, FINISHED);
            if !self.finished && !is_ack(&next, SETTLED) {
                self.seen.push((next.stream, text(&next)));
            }
            if sought(&next) {
                return;
            }
        }
    }

    /// What was seen, stream by stream unless the whole is of interest.
    pub(crate) fn told(mut self, whole: bool) -> String {
        if !whole {
            self.seen.retain(|(stream, text)| {
                *stream > 0 || !(text.starts_with("SETTINGS") || text.starts_with("WINDOW_UPDATE"))
            });
            self.seen.sort_by_key(|(stream, _)| *stream);
        }
        let end = if self.ended { "closed" } else { "open" };
        let texts = self.seen.into_iter().map(|(_, text)| text);
        texts.chain([end.to_owned()]).collect::<Vec<_>>().join("; ")
    }
}

/// Whether a frame is its stream's last.
fn ends(frame: &Frame) -> bool {
    frame.kind == RST_STREAM || matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM > 0
}

fn is_ack(frame: &Frame, payload: &[u8]) -> bool {
    frame.kind == PING && frame.flags & ACK > 0 && frame.payload == payload
}

fn text(frame: &Frame) -> String {
    let number = |at: usize| {
        let bytes = frame.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    };
    let stream = frame.stream;
    let end = if frame.flags & END_STREAM > 0 { " END_STREAM" } else { "" };
    let ack = if frame.flags & ACK > 0 { " ACK" } else { "" };
    match frame.kind {
        DATA => format!("DATA {stream}{end} {}", frame.payload.len()),
        HEADERS => {
            let status = status(frame).map_or(String::new(), |status| format!(" {status}"));
            format!("HEADERS {stream}{end}{status}")
        }
        RST_STREAM => format!("RST_STREAM {stream} {}", code(number(0))),
        SETTINGS => {
            let values = frame
                .payload
                .chunks(6)
                .map(|six| format!(" {}={}", six[1], u32::from_be_bytes([six[2], six[3], six[4], six[5]])));
            format!("SETTINGS{ack}{}", values.collect::<String>())
        }
        PING => format!("PING{ack}"),
        GOAWAY => {
            let why = String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default()).into_owned();
            format!("GOAWAY {} {} {why:?}", number(0), code(number(4)))
        }
        CONTINUATION => format!("CONTINUATION {stream}"),
        WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} {}", number(0)),
        kind => format!("{kind} {stream}"),
    }
}

fn code(number: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
    ];
    usize::try_from(number)
        .ok()
        .and_then(|at| names.get(at))
        .map_or(number.to_string(), |name| (*name).to_owned())
}
