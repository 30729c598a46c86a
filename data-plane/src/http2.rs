//! HTTP/2 on both sides of the proxy, over the crate that knows its wire.
//!
//! `connection` is what both ends share, `receive` and `send` are its two directions; `downstream` and `upstream` are the
//! ends. A connection has one task, which reads, and writes what a round has gathered; heads and bodies are put into its
//! output by whoever serves a stream, without a task or a channel between. A peer that breaks the rules of RFC 9113
//! loses its stream or its connection, as the RFC says and as Envoy does: nothing is repaired.

mod broken;
mod connection;
mod counts;
pub(crate) mod downstream;
mod error;
mod floods;
mod handle;
mod heads;
mod incoming;
mod keepalive;
mod leaving;
mod output;
pub(crate) mod probe;
mod pump;
mod receive;
mod send;
mod spare;
mod stream;
mod streams;
mod tunnel;
pub(crate) mod upstream;
mod window;

pub(crate) use connection::Options;
pub(crate) use counts::Counts;
pub(crate) use error::Error;
pub(crate) use floods::Flood;
pub(crate) use heads::Protocol;
pub(crate) use incoming::Incoming;
pub(crate) use tunnel::Tunnel;

#[cfg(test)]
mod tests;
