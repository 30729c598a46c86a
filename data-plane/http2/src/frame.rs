//! Frames, as RFC 9113 lays them out, and what can be wrong with one by itself.

use std::ops::Range;

/// What a client says first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's header, in bytes.
pub const HEADER: usize = 9;

/// The size of a frame's payload that everybody must take.
pub const MIN_MAX_SIZE: u32 = 16_384;

/// As many settings as are taken at once.
const MOST_SETTINGS: usize = 32;

/// The largest window (RFC 9113, 6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

const SELF_DEPENDENT: &str = "a stream that depends on itself";

/// The kinds of frames (RFC 9113, 6).
pub mod kind {
    #![allow(missing_docs, reason = "the RFC's names")]
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
}

/// Their flags.
pub mod flag {
    #![allow(missing_docs, reason = "the RFC's names")]
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// An error code (RFC 9113, 7). Peers may send any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u32);

#[allow(missing_docs, reason = "the RFC's names")]
impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const CONNECT_ERROR: Self = Self(10);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    pub const INADEQUATE_SECURITY: Self = Self(12);
    pub const HTTP_1_1_REQUIRED: Self = Self(13);
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the payload.
    pub length: u32,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// The header of the next frame, once it has come.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, rest @ ..] = *head;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(rest) & MAX_WINDOW,
        })
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; HEADER] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame's meaning. Parts of the payload are given by their place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A part of a body. The padding counts for flow control, too.
    Data {
        /// Where the data stands.
        data: Range<usize>,
        /// Whether the body ends with it.
        ends: bool,
    },
    /// A head, or its beginning.
    Headers {
        /// Where the block stands.
        block: Range<usize>,
        /// Whether no body follows.
        ends: bool,
        /// Whether the block is whole.
        whole: bool,
    },
    /// More of a head.
    Continuation {
        /// Whether the block is whole now.
        whole: bool,
    },
    /// A wish for an order (RFC 9113 has given them up).
    Priority,
    /// The stream's end.
    Reset(Reason),
    /// The peer's settings.
    Settings(Settings),
    /// The peer has taken ours.
    SettingsAck,
    /// To be answered.
    Ping([u8; 8]),
    /// An answer.
    Pong([u8; 8]),
    /// The connection ends.
    GoAway {
        /// The last stream that is worked on.
        last: u32,
        /// Why.
        reason: Reason,
    },
    /// More may be sent.
    WindowUpdate(u32),
    /// One that means nothing to us.
    Unknown,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// The code for the peer.
    pub reason: Reason,
    /// Words for people.
    pub text: &'static str,
    /// Whether only the frame's stream is concerned.
    pub of_stream: bool,
}

const fn wrong(reason: Reason, text: &'static str) -> Error {
    Error { reason, text, of_stream: false }
}

const fn size(text: &'static str) -> Error {
    wrong(Reason::FRAME_SIZE_ERROR, text)
}

const fn protocol(text: &'static str) -> Error {
    wrong(Reason::PROTOCOL_ERROR, text)
}

impl Frame {
    /// Reads a frame's payload, which must be whole.
    ///
    /// # Errors
    /// What the RFC says of frames by themselves: sizes, streams, padding, values of settings.
    pub fn read(head: Head, payload: &[u8]) -> Result<Self, Error> {
        let on_stream = |text| if head.stream == 0 { Err(protocol(text)) } else { Ok(()) };
        let on_connection = |text| if head.stream == 0 { Ok(()) } else { Err(protocol(text)) };
        Ok(match head.kind {
            kind::DATA => {
                on_stream("DATA without a stream")?;
                Self::Data { data: unpadded(head, payload, 0)?, ends: head.has(flag::END_STREAM) }
            }
            kind::HEADERS => {
                on_stream("HEADERS without a stream")?;
                Self::headers(head, payload)?
            }
            kind::CONTINUATION => {
                on_stream("CONTINUATION without a stream")?;
                Self::Continuation { whole: head.has(flag::END_HEADERS) }
            }
            kind::PRIORITY => {
                on_stream("PRIORITY without a stream")?;
                if payload.len() != 5 {
                    return Err(size("PRIORITY of a wrong size"));
                }
                if depends_on_itself(head, payload) {
                    return Err(Error { of_stream: true, ..protocol(SELF_DEPENDENT) });
                }
                Self::Priority
            }
            kind::RST_STREAM => {
                on_stream("RST_STREAM without a stream")?;
                Self::Reset(Reason(exact(payload).ok_or(size("RST_STREAM of a wrong size"))?))
            }
            kind::SETTINGS => {
                on_connection("SETTINGS on a stream")?;
                match (head.has(flag::ACK), payload) {
                    (true, []) => Self::SettingsAck,
                    (true, _) => Err(size("an acknowledgement of settings with settings"))?,
                    (false, _) => Self::Settings(Settings::read(payload)?),
                }
            }
            kind::PUSH_PROMISE => Err(protocol("PUSH_PROMISE, which nobody may send"))?,
            kind::PING => {
                on_connection("PING on a stream")?;
                let payload = payload.try_into().map_err(|_| size("PING of a wrong size"))?;
                if head.has(flag::ACK) { Self::Pong(payload) } else { Self::Ping(payload) }
            }
            kind::GOAWAY => {
                on_connection("GOAWAY on a stream")?;
                let (Some(last), Some(reason)) =
                    (payload.first_chunk(), payload.get(4..).and_then(<[u8]>::first_chunk))
                else {
                    return Err(size("GOAWAY of a wrong size"));
                };
                Self::GoAway { last: number(*last) & MAX_WINDOW, reason: Reason(number(*reason)) }
            }
            kind::WINDOW_UPDATE => {
                let by = exact(payload).ok_or(size("WINDOW_UPDATE of a wrong size"))? & MAX_WINDOW;
                if by == 0 {
                    let error = protocol("WINDOW_UPDATE by nothing");
                    return Err(Error { of_stream: head.stream != 0, ..error });
                }
                Self::WindowUpdate(by)
            }
            _ => Self::Unknown,
        })
    }

    fn headers(head: Head, payload: &[u8]) -> Result<Self, Error> {
        let priority = if head.has(flag::PRIORITY) { 5 } else { 0 };
        let block = unpadded(head, payload, priority)?;
        if priority > 0 && payload.get(block.start - priority..).is_some_and(|at| depends_on_itself(head, at))
        {
            return Err(protocol(SELF_DEPENDENT));
        }
        Ok(Self::Headers { block, ends: head.has(flag::END_STREAM), whole: head.has(flag::END_HEADERS) })
    }
}

/// Whether the dependency that `payload` begins with is the stream's own (RFC 7540, 5.3.1).
fn depends_on_itself(head: Head, payload: &[u8]) -> bool {
    payload.first_chunk().is_some_and(|on| number(*on) & MAX_WINDOW == head.stream)
}

fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

fn exact(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(number)
}

/// The payload without its padding, and without so many bytes of fields before its content.
fn unpadded(head: Head, payload: &[u8], fields: usize) -> Result<Range<usize>, Error> {
    let (start, padding) = match (head.has(flag::PADDED), payload.first()) {
        (false, _) => (fields, 0),
        (true, Some(&padding)) => (1 + fields, usize::from(padding)),
        (true, None) => return Err(protocol("padding without its length")),
    };
    if start > payload.len() {
        return Err(size("a frame that is shorter than its fields"));
    }
    if start + padding > payload.len() {
        return Err(protocol("more padding than payload"));
    }
    Ok(start..payload.len() - padding)
}

/// What a peer says of itself (RFC 9113, 6.5.2); `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's names")]
pub struct Settings {
    pub header_table_size: Option<u32>,
    pub enable_push: Option<u32>,
    pub max_concurrent_streams: Option<u32>,
    pub initial_window_size: Option<u32>,
    pub max_frame_size: Option<u32>,
    pub max_header_list_size: Option<u32>,
    /// RFC 8441
    pub enable_connect_protocol: Option<u32>,
}

impl Settings {
    fn fields(&mut self) -> [(u16, &mut Option<u32>); 7] {
        [
            (1, &mut self.header_table_size),
            (2, &mut self.enable_push),
            (3, &mut self.max_concurrent_streams),
            (4, &mut self.initial_window_size),
            (5, &mut self.max_frame_size),
            (6, &mut self.max_header_list_size),
            (8, &mut self.enable_connect_protocol),
        ]
    }

    fn read(payload: &[u8]) -> Result<Self, Error> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(size("SETTINGS of a wrong size"));
        }
        if entries.len() > MOST_SETTINGS {
            return Err(wrong(Reason::ENHANCE_YOUR_CALM, "too many settings"));
        }
        let mut settings = Self::default();
        for [a, b, value @ ..] in entries {
            let id = u16::from_be_bytes([*a, *b]);
            if let Some((_, field)) = settings.fields().into_iter().find(|(known, _)| *known == id) {
                *field = Some(number(*value));
            }
        }
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Error> {
        let is_flag = |value: Option<u32>| value.is_none_or(|value| value <= 1);
        if !is_flag(self.enable_push) || !is_flag(self.enable_connect_protocol) {
            return Err(protocol("a setting that is neither 0 nor 1"));
        }
        if self.initial_window_size.is_some_and(|size| size > MAX_WINDOW) {
            return Err(wrong(Reason::FLOW_CONTROL_ERROR, "an initial window that is too large"));
        }
        if self.max_frame_size.is_some_and(|size| !(MIN_MAX_SIZE..1 << 24).contains(&size)) {
            return Err(protocol("a size of frames that is too small or too large"));
        }
        Ok(())
    }

    /// Writes a frame of them.
    pub fn write(mut self, out: &mut Vec<u8>) {
        let fields = self.fields().map(|(id, value)| (id, *value));
        let said = || fields.iter().filter_map(|(id, value)| value.map(|value| (*id, value)));
        let length = u32::try_from(said().count() * 6).unwrap_or(0);
        out.extend(Head { length, kind: kind::SETTINGS, flags: 0, stream: 0 }.bytes());
        for (id, value) in said() {
            out.extend(id.to_be_bytes());
            out.extend(value.to_be_bytes());
        }
    }
}

/// Writes a frame whose payload is so few bytes.
pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&Head { length, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Writes GOAWAY.
pub fn write_goaway(out: &mut Vec<u8>, last: u32, reason: Reason, text: &str) {
    let length = u32::try_from(8 + text.len()).unwrap_or(u32::MAX);
    out.extend(Head { length, kind: kind::GOAWAY, flags: 0, stream: 0 }.bytes());
    out.extend(last.to_be_bytes());
    out.extend(reason.0.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame, (u32, bool)> {
        let mut bytes = Vec::new();
        write(&mut bytes, kind, flags, stream, payload);
        let head = Head::read(&bytes).unwrap();
        assert_eq!(head.length as usize, bytes.len() - HEADER);
        Frame::read(head, &bytes[HEADER..]).map_err(|error| (error.reason.0, error.of_stream))
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let whole = flag::PADDED | flag::PRIORITY | flag::END_HEADERS;
        let headers = read(kind::HEADERS, whole, 3, &[2, 0, 0, 0, 1, 16, 0x82, 0x86, 0, 0]).unwrap();
        assert_eq!(headers, Frame::Headers { block: 6..8, ends: false, whole: true });
        let data = read(kind::DATA, flag::PADDED | flag::END_STREAM, 3, &[1, b'a', 0]).unwrap();
        assert_eq!(data, Frame::Data { data: 1..2, ends: true });
        assert_eq!(read(kind::DATA, flag::PADDED, 3, &[0]), Ok(Frame::Data { data: 1..1, ends: false }));
        assert_eq!(read(kind::DATA, flag::PADDED, 3, &[1]), Err((1, false)));
        assert_eq!(read(kind::DATA, flag::PADDED, 3, &[]), Err((1, false)));
    }

    #[test]
    fn what_is_wrong_with_a_frame_has_the_codes_of_the_rfc() {
        let (connection, stream) = (false, true);
        for (kind, flags, on, payload, expected) in [
            (kind::DATA, 0, 0, &[0; 1][..], (1, connection)),
            (kind::HEADERS, flag::PRIORITY, 3, &[0, 0, 0, 3, 0], (1, connection)),
            (kind::PRIORITY, 0, 3, &[0; 4], (6, connection)),
            (kind::PRIORITY, 0, 0, &[0, 0, 0, 1, 0], (1, connection)),
            (kind::PRIORITY, 0, 3, &[0x80, 0, 0, 3, 0], (1, stream)),
            (kind::RST_STREAM, 0, 3, &[0; 5], (6, connection)),
            (kind::RST_STREAM, 0, 0, &[0; 4], (1, connection)),
            (kind::SETTINGS, 0, 1, &[], (1, connection)),
            (kind::SETTINGS, 0, 0, &[0; 5], (6, connection)),
            (kind::SETTINGS, flag::ACK, 0, &[0; 6], (6, connection)),
            (kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2], (1, connection)),
            (kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0], (3, connection)),
            (kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1], (1, connection)),
            (kind::PUSH_PROMISE, 0, 1, &[0; 4], (1, connection)),
            (kind::PING, 0, 0, &[0; 7], (6, connection)),
            (kind::GOAWAY, 0, 0, &[0; 7], (6, connection)),
            (kind::WINDOW_UPDATE, 0, 0, &[0; 4], (1, connection)),
            (kind::WINDOW_UPDATE, 0, 5, &[0; 4], (1, stream)),
            (kind::WINDOW_UPDATE, 0, 5, &[0; 3], (6, connection)),
        ] {
            assert_eq!(read(kind, flags, on, payload), Err(expected), "kind {kind}, {payload:?}");
        }
    }

    #[test]
    fn settings_come_back_as_they_were_written() {
        let settings = Settings {
            max_concurrent_streams: Some(100),
            initial_window_size: Some(65_535),
            enable_connect_protocol: Some(1),
            ..Settings::default()
        };
        let mut bytes = Vec::new();
        settings.write(&mut bytes);
        let head = Head::read(&bytes).unwrap();
        assert_eq!(Frame::read(head, &bytes[HEADER..]), Ok(Frame::Settings(settings)));
        // One that nobody knows is left out.
        let unknown = read(kind::SETTINGS, 0, 0, &[0xff, 1, 0, 0, 0, 1]);
        assert_eq!(unknown, Ok(Frame::Settings(Settings::default())));
    }
}
