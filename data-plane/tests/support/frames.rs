//! HTTP/2 by hand: frames that no library would send, and those that come back.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses its part; what fails here fails the test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
/// Of HEADERS: its payload begins with a priority.
pub const PRIORITIZED: u8 = 32;

/// What a client says before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of SETTINGS.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// Fields as HPACK literals that leave no trace in the table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    raw_block(&fields)
}

/// The same, of bytes that need not be text.
pub fn raw_block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            string(&mut bytes, text);
        }
    }
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text);
}

/// The fields of a request for a path.
pub fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)])
}

/// A connection whose first SETTINGS is sent.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Connects, with this payload of the first SETTINGS.
    pub fn connect(to: SocketAddr, settings: &[u8]) -> Self {
        let mut peer = Self::over(TcpStream::connect(to).unwrap());
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        peer
    }

    /// A connection on which nothing is said yet.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Whether a client's preface comes.
    pub fn greeted(&mut self) -> bool {
        let mut bytes = [0; PREFACE.len()];
        self.stream.read_exact(&mut bytes).is_ok() && bytes == PREFACE
    }

    /// Whether the proxy still takes bytes.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the connection's end, or where nothing comes.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The first frame of this stream that says how it went, or GOAWAY; settings are acknowledged on the way.
    pub fn outcome(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let next = self.next()?;
            match next.kind {
                SETTINGS if next.flags & ACK == 0 => {
                    self.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                GOAWAY => return Some(next),
                HEADERS | RST_STREAM if next.stream == stream => return Some(next),
                _ => {}
            }
        }
    }
}

/// Whether these are response headers with this status.
pub fn has_status(frame: &Frame, status: u16) -> bool {
    self::status(frame) == Some(status)
}

/// The status that response headers begin with, unless it comes from HPACK's dynamic table.
pub fn status(frame: &Frame) -> Option<u16> {
    if frame.kind != HEADERS {
        return None;
    }
    // Behind updates of the table's size.
    let start = frame.payload.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let (first, rest) = frame.payload.get(start..)?.split_first()?;
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match first {
        0x88..=0x8e => Some(indexed[usize::from(first - 0x88)]),
        // A literal whose name is that of the static table's `:status`.
        0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e => {
            let (length, rest) = rest.split_first()?;
            let text = rest.get(..usize::from(length & 0x7f))?;
            match length & 0x80 {
                0 => std::str::from_utf8(text).ok()?.parse().ok(),
                _ => Some(three_digits(text)),
            }
        }
        _ => None,
    }
}

/// Three digits in HPACK's Huffman code: `0` to `2` have five bits, the others six.
fn three_digits(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut take = |count| bits.by_ref().take(count).fold(0, |sum, bit| sum * 2 + bit);
    (0..3).fold(0, |number, _| {
        let digit = match take(5) {
            low @ 0..=2 => low,
            high => high * 2 + take(1) - 22,
        };
        number * 10 + digit
    })
}

#[test]
fn statuses_are_read() {
    let of =
        |payload: &[u8]| status(&Frame { kind: HEADERS, flags: 0, stream: 1, payload: payload.to_vec() });
    assert_eq!(of(&[0x20, 0x88]), Some(200));
    assert_eq!(of(&[0x48, 3, b'5', b'0', b'2']), Some(502));
    // 4, 0 and 8: 011010 00000 011110.
    assert_eq!(of(&[0x08, 0x83, 0b0110_1000, 0b0000_1111, 0b0111_1111]), Some(408));
    assert_eq!(of(&[0x00, 1, b'a', 1, b'b']), None);
}
