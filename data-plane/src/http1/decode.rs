//! A message's body, sans-IO: what its framing makes of the bytes that have come.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::chunked::{self, Chunked};
use super::error::{Error, Invalid};
use super::framing::Framing;
use super::head::Limits;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Decoder {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Ended,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Decoder {
    pub(crate) fn new(framing: Framing, trailers: Limits) -> Self {
        match framing {
            Framing::Length(0) | Framing::Interim | Framing::Switched => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::new(trailers)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// How much is still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Ended => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next part; `None` if more must come, or the body has ended.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Invalid> {
        let data = match self {
            Self::Ended => return Ok(None),
            Self::Chunked(chunked) if input.is_empty() => return chunked.verdict().map(|()| None),
            _ if input.is_empty() => return Ok(None),
            Self::UntilClose => input.split(),
            Self::Length(left) => {
                let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                input.split_to(count)
            }
            Self::Chunked(chunked) => {
                let part = match chunked.step(input)? {
                    chunked::Step::Data(data) => Some(Part::Data(data)),
                    chunked::Step::Trailers(trailers) => Some(Part::Trailers(trailers)),
                    chunked::Step::More | chunked::Step::End => None,
                };
                // The last part is to be known as the last.
                if chunked.ends_here(input) {
                    *self = Self::Ended;
                }
                return Ok(part);
            }
        };
        Ok(Some(Part::Data(data.freeze())))
    }

    /// The connection has ended: so has a body without another end, and no other.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        match self {
            Self::UntilClose | Self::Ended => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Error::Closed),
        }
    }
}
