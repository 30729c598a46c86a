//! Sockets: bytes in and out of the kernel, and nothing about what they mean.

pub(crate) mod buffers;
pub(crate) mod input;
pub(crate) mod local;
pub(crate) mod original_dst;
pub(crate) mod prefixed;
pub(crate) mod proxy_protocol;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tcp_info;

pub(crate) use stream::{Raw, Stream};
