//! Why a stream over HTTP/2 broke off.

use std::io;

use sail_proxy_http2::frame::Reason;

use super::floods::Flood;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The peer reset the stream.
    #[error("the peer reset the stream with code {}", .0.0)]
    Reset(Reason),
    /// The peer has done nothing for the stream, by its own word: REFUSED_STREAM, or GOAWAY with an earlier stream.
    #[error("the peer refused the stream")]
    Refused,
    /// The peer ended the connection.
    #[error("connection closed")]
    Closed,
    /// The socket or TLS.
    #[error("connection error: {0}")]
    Io(io::ErrorKind),
    /// What came was against the rules.
    #[error("invalid HTTP/2: {0}")]
    Invalid(&'static str),
    /// A message was, as a whole.
    #[error("invalid message: {0}")]
    Message(&'static str),
    /// One of its fields was.
    #[error("invalid field: {0}")]
    Field(&'static str),
    /// It did too much of something.
    #[error("{}", .0.error().text)]
    Flood(Flood),
    /// A head was larger than allowed.
    #[error("a head that is larger than allowed")]
    TooLarge,
    /// It had more fields than allowed.
    #[error("a head of too many fields")]
    TooMany,
    /// The connection or the stream was given up on this side.
    #[error("given up")]
    GivenUp,
    /// The message that goes out broke off.
    #[error("the message sent has no end")]
    Unfinished,
    /// The peer did not answer a ping in time.
    #[error("no answer to a ping")]
    Silent,
}

impl Error {
    /// Whether the peer broke the rules.
    pub(crate) fn is_violation(self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Message(_) | Self::Field(_) | Self::Flood(_))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
