//! Reads messages without a connection, for tests and fuzzers: what must hold of any bytes that a peer may send.

pub(crate) mod requests;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::decode::{Decoder, Part};
use super::error::Invalid;
use super::framing::{self, Asked, Framing};
use super::head::{HeadReader, Limits, RequestRules, Rules};

/// As Envoy bounds them.
pub(super) const LIMITS: Limits = Limits { headers: 100, bytes: 80 * 1024 };

/// What became of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// More must come.
    Partial,
    Complete {
        status: u16,
        body: Bytes,
        trailers: usize,
        rest: usize,
    },
    /// The body goes on until the connection ends.
    UntilClose {
        status: u16,
        body: Bytes,
    },
    Refused,
}

/// Any bytes: no panic, no memory without bound, and the same outcome however they are cut into pieces.
pub(crate) fn check(bytes: &[u8], size: usize) {
    for asked in [Asked::Other, Asked::Head, Asked::Connect] {
        let whole = read([bytes], asked);
        assert_eq!(read(bytes.chunks(size.max(1)), asked), whole, "in pieces of {size}");
    }
}

const RULES: Rules =
    Rules { limits: LIMITS, keeps_names: false, requests: RequestRules { any_method: false, clear: false } };

/// Reads the pieces as they come.
pub(crate) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: Asked) -> Outcome {
    let mut reader = Reader { asked, input: BytesMut::new(), heads: HeadReader::default(), response: None };
    for piece in pieces {
        reader.input.extend_from_slice(piece);
        if reader.advance().is_err() {
            return Outcome::Refused;
        }
        assert!(reader.input.len() <= LIMITS.bytes + piece.len(), "{} bytes are kept", reader.input.len());
    }
    reader.outcome()
}

struct Reader {
    asked: Asked,
    input: BytesMut,
    heads: HeadReader,
    response: Option<Response>,
}

struct Response {
    status: u16,
    decoder: Decoder,
    body: BytesMut,
    trailers: usize,
    /// What came after the end.
    rest: usize,
}

impl Reader {
    fn advance(&mut self) -> Result<(), Invalid> {
        while self.response.is_none() {
            if self.input.is_empty() {
                return Ok(());
            }
            let Some(mut head) = self.heads.next(&mut self.input, RULES, &mut HeaderMap::new())? else {
                return Ok(());
            };
            let framing = framing::of(&mut head, self.asked)?;
            if framing != Framing::Interim {
                self.response = Some(Response {
                    status: head.status.as_u16(),
                    decoder: Decoder::new(framing, LIMITS),
                    body: BytesMut::new(),
                    trailers: 0,
                    rest: 0,
                });
            }
        }
        let Some(response) = &mut self.response else { return Ok(()) };
        while let Some(part) = response.decoder.next(&mut self.input)? {
            match part {
                Part::Data(data) => response.body.extend_from_slice(&data),
                Part::Trailers(trailers) => response.trailers = trailers.len(),
            }
        }
        if response.decoder.is_ended() {
            response.rest += self.input.split().len();
        }
        Ok(())
    }

    fn outcome(self) -> Outcome {
        match self.response {
            None => Outcome::Partial,
            Some(Response { status, mut decoder, body, trailers, rest }) => {
                let body = body.freeze();
                if decoder.is_ended() {
                    Outcome::Complete { status, body, trailers, rest }
                } else if decoder.close().is_ok() {
                    Outcome::UntilClose { status, body }
                } else {
                    Outcome::Partial
                }
            }
        }
    }
}
