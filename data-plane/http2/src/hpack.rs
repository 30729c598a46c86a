//! HPACK, the compression of headers (RFC 7541): blocks of bytes to typed fields, and fields to blocks.
//!
//! A connection has one [`Decoder`] and one [`Encoder`]; their tables are right only as long as every block passes
//! through them, in order. What a field means, whether a message may carry it, and how many are kept is the caller's.

mod decode;
mod encode;
mod entry;
mod hash;
mod huffman;
mod index;
mod integer;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub use decode::Decoder;
pub use encode::Encoder;

/// The size of a table before any setting says otherwise.
pub const DEFAULT_TABLE: usize = 4096;

/// What an entry of a table costs besides its name and its value.
const OVERHEAD: usize = 32;

/// A field of a header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A pseudo-header. Its value obeys the rules of header values, but need not make sense.
    Pseudo(Pseudo, Bytes),
    /// A header.
    Header(HeaderName, HeaderValue),
    /// A name or a value that is none: upper case, control characters, blanks around the value, an unknown
    /// pseudo-header. The message is malformed (RFC 9113, 8.2.1); the connection goes on.
    Invalid,
}

/// The pseudo-headers of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pseudo {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:protocol`, of an extended CONNECT (RFC 8441).
    Protocol,
    /// `:status`
    Status,
}

impl Pseudo {
    /// The name, with its colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
        }
    }

    fn from_bytes(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":protocol" => Some(Self::Protocol),
            b":status" => Some(Self::Status),
            _ => None,
        }
    }
}

/// Why a block cannot be decoded. The table is lost with it: COMPRESSION_ERROR for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The block ends within a field.
    #[error("header block ends within a field")]
    Truncated,
    /// A number beyond 32 bits, or longer than such a number needs to be.
    #[error("integer in a header block is too large")]
    Integer,
    /// Index 0, or one behind the end of the table.
    #[error("header block refers to an entry that the table does not have")]
    Index,
    /// Padding of more than seven bits or not of ones, or the symbol of the end.
    #[error("string in a header block is not a Huffman code")]
    Huffman,
    /// A size beyond what was allowed, one within a block, or none where the size had to shrink.
    #[error("size update of the header table is out of place or out of bounds")]
    SizeUpdate,
}
