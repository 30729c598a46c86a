//! HTTP/1.1 towards upstreams: a codec that runs inside the future of the request it serves. A connection needs neither a
//! task nor a channel of its own; whoever waits for the response reads the socket.
//!
//! `head`, `framing`, `chunked`, `decode` and `encode` are sans-IO: bytes in, values out. `connection` alone speaks to a
//! stream. A connection whose upstream breaks the rules of RFC 9112 is given up: nothing is repaired, since what one
//! reader repairs another reads differently.

mod buffers;
mod chunked;
mod connection;
mod decode;
mod encode;
mod error;
mod framing;
mod head;
mod interrupt;
mod outgoing;
pub(crate) mod probe;
mod received;

pub(crate) use connection::{Connection, Left, Options};
pub(crate) use encode::Spelling;
pub(crate) use error::Error;
pub(crate) use head::{Limits, USUAL_HEADERS};
pub(crate) use interrupt::Interrupt;
pub(crate) use received::Received;

#[cfg(test)]
mod tests;
