//! The chunked coding, sans-IO: takes chunks out of what has come, and refuses what two readers might read in two ways.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::error::Invalid;
use super::head::{self, EndOfLines, Limits};

/// As long as all extensions of a body's chunks may be: nobody reads them, and they must not be a way to send for ever.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Where in the coding the next byte stands.
#[derive(Debug)]
enum State {
    /// In a chunk's size.
    Size {
        size: u64,
        /// It has begun.
        digits: bool,
    },
    /// Behind a chunk's size, up to its line's end.
    Extension {
        size: u64,
    },
    /// At the LF of a size's line.
    SizeLf {
        size: u64,
    },
    /// In a chunk.
    Data {
        left: u64,
    },
    /// At the CR after a chunk.
    DataCr,
    /// At the LF after a chunk.
    DataLf,
    /// Behind the last chunk.
    Trailers(EndOfLines),
    Done,
    /// To be told when what came before is read.
    Broken(Invalid),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    extensions: usize,
    trailers: Limits,
}

/// What a decoder has for its reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing until more comes.
    More,
    End,
}

impl Chunked {
    pub(crate) fn new(trailers: Limits) -> Self {
        Self { state: State::Size { size: 0, digits: false }, extensions: 0, trailers }
    }

    /// What comes next of the input; `Data` may be a part of a chunk.
    pub(crate) fn step(&mut self, input: &mut BytesMut) -> Result<Step, Invalid> {
        self.walk(input);
        match &mut self.state {
            State::Broken(why) => Err(*why),
            State::Done => Ok(Step::End),
            State::Data { left } if !input.is_empty() => {
                let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                Ok(Step::Data(input.split_to(count).freeze()))
            }
            State::Trailers(end) => {
                let Some(length) = end.find(input, self.trailers.bytes).map_err(|_| Invalid::Trailers)?
                else {
                    return Ok(Step::More);
                };
                self.state = State::Done;
                let block = input.split_to(length);
                if matches!(&*block, b"\n" | b"\r\n") {
                    return Ok(Step::End);
                }
                head::parse_trailers(&block.freeze(), self.trailers.headers).map(Step::Trailers)
            }
            _ => Ok(Step::More),
        }
    }

    /// Goes on to the next chunk; says whether there is none, and no trailer either.
    pub(crate) fn ends_here(&mut self, input: &mut BytesMut) -> bool {
        self.walk(input);
        if matches!(self.state, State::Trailers(_)) {
            let end = match &**input {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => return false,
            };
            input.advance(end);
            self.state = State::Done;
        }
        matches!(self.state, State::Done)
    }

    /// What is wrong with what was passed.
    pub(crate) fn verdict(&self) -> Result<(), Invalid> {
        match self.state {
            State::Broken(why) => Err(why),
            _ => Ok(()),
        }
    }

    /// Passes everything that stands between chunks.
    fn walk(&mut self, input: &mut BytesMut) {
        let mut passed = 0;
        for &byte in input.iter() {
            if matches!(self.state, State::Data { .. } | State::Trailers(_) | State::Done | State::Broken(_))
            {
                break;
            }
            self.state = self.after(byte).unwrap_or_else(State::Broken);
            passed += 1;
        }
        input.advance(passed);
    }

    /// Counts what nobody reads.
    fn pad(&mut self) -> Result<(), Invalid> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(Invalid::ChunkExtension) } else { Ok(()) }
    }

    /// The state behind a byte that is not a chunk's.
    fn after(&mut self, byte: u8) -> Result<State, Invalid> {
        Ok(match (&self.state, byte) {
            // It says nothing, and nobody needs much of it.
            (State::Size { size: 0, digits: true }, b'0') => {
                self.pad()?;
                State::Size { size: 0, digits: true }
            }
            (&State::Size { size, .. }, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map(u64::from).ok_or(Invalid::ChunkSize)?;
                if size >> (u64::BITS - 4) > 0 {
                    return Err(Invalid::ChunkSize);
                }
                State::Size { size: size << 4 | digit, digits: true }
            }
            (State::Size { digits: false, .. }, _) => return Err(Invalid::ChunkSize),
            (&State::Size { size, .. } | &State::Extension { size }, b'\r') => State::SizeLf { size },
            (&State::Size { size, .. }, b';' | b' ' | b'\t') => State::Extension { size },
            (State::Size { .. }, _) => return Err(Invalid::ChunkSize),
            (State::Extension { .. }, b'\n' | 0) => return Err(Invalid::LineEnd),
            (&State::Extension { size }, _) => {
                self.pad()?;
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailers(EndOfLines::default()),
            (&State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::SizeLf { .. }, _) => return Err(Invalid::LineEnd),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: false },
            _ => return Err(Invalid::ChunkEnd),
        })
    }
}
