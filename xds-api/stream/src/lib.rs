//! The xDS protocol without I/O. A [`session::Session`] is the server's end of one stream, a [`client::Client`] the
//! other end across reconnects; both are state machines that are fed messages and hand out messages.
//!
//! Inside, everything is incremental (delta); the state-of-the-world variant is an adapter at the wire. Time,
//! nonces and versions are arguments.

pub mod client;
pub mod kind;
pub mod resource;
pub mod session;
pub mod watch;
pub mod wire;
