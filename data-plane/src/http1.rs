//! HTTP/1.1 on both sides of the proxy: a codec that runs inside the future of the request it serves. Towards an upstream a
//! connection needs neither a task nor a channel of its own; whoever waits for the response reads the socket. A client's
//! connection has one task, which runs its requests, too.
//!
//! `head`, `request`, `framing`, `chunked`, `decode` and `encode` are sans-IO: bytes in, values out. `upstream` and
//! `downstream` speak to a stream. A connection whose peer breaks the rules of RFC 9112 is given up: nothing is repaired,
//! since what one reader repairs another reads differently.

mod chunked;
mod date;
mod decode;
pub(crate) mod downstream;
mod encode;
mod error;
mod framing;
mod head;
mod incoming;
mod interrupt;
mod names;
mod noted;
mod outgoing;
pub(crate) mod probe;
pub(crate) mod request;
mod sender;
pub(crate) mod upstream;
mod wire;

pub(crate) use encode::Form;
pub(crate) use error::{Error, Refusal};
pub(crate) use head::{Limits, RequestRules, Rules};
pub(crate) use incoming::Incoming;
pub(crate) use interrupt::Interrupt;
pub(crate) use names::Names;
pub(crate) use upstream::{Connection, Left, Options, informs};

#[cfg(test)]
mod tests;
