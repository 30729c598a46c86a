//! HTTP/2 on the wire, without I/O: frames, settings, HPACK (RFC 9113, RFC 7541).
//!
//! Bytes in, values out, and the reverse. What a connection does with them (streams, windows, whom it serves) is the
//! proxy's.

pub mod frame;
pub mod hpack;
