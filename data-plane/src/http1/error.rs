//! Why an exchange over HTTP/1 broke off.

use std::io;

use crate::http::body::BodyError;

/// See the module's documentation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The upstream ended the connection before the response was complete.
    #[error("connection closed before the response was complete")]
    Closed,
    /// The same, in the middle of its head.
    #[error("connection closed in the middle of a response's head")]
    Partial,
    /// The socket or TLS.
    #[error("connection error: {0}")]
    Io(#[from] io::Error),
    /// What came was no HTTP/1, or more than is allowed of it.
    #[error("invalid response: {0}")]
    Invalid(#[from] Invalid),
    /// The connection was given up under its request.
    #[error("connection given up")]
    Interrupted,
    /// The request's own body broke off, or was not as long as its head said.
    #[error("request body: {0}")]
    Body(Box<BodyError>),
}

/// Why a request is answered before anybody looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the head takes too long")]
    TooSlow,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("too many headers")]
    TooManyHeaders,
    #[error("another version of HTTP")]
    Version,
    #[error("transfer-encoding over HTTP/1.0")]
    OldCoding,
    #[error("transfer-encoding is not \"chunked\"")]
    Coding,
    #[error("a header has a control character")]
    Character,
    #[error("the target is no URL")]
    Url,
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    #[error("the target is https, and the connection in the clear")]
    HttpsInTheClear,
    #[error("the request line or a header is malformed")]
    Malformed,
}

/// What is wrong with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("a line does not end where it should")]
    LineEnd,
    #[error("the status line or a header is malformed")]
    Head,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("too many headers")]
    TooManyHeaders,
    #[error("content-length is no length, or given twice")]
    ContentLength,
    #[error("transfer-encoding is not \"chunked\", or stands beside what excludes it")]
    TransferEncoding,
    #[error("a chunk's size is malformed")]
    ChunkSize,
    #[error("a chunk's extensions are too long")]
    ChunkExtension,
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    #[error("the trailers are malformed or too large")]
    Trailers,
}
