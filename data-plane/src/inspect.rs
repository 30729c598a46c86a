//! Listener filters that read the first bytes of a connection to learn what it speaks. Pure: bytes in, finding out;
//! the listener does the reading.

mod fingerprint;
pub(crate) mod http;
pub(crate) mod tls;

/// What an inspector says about the bytes that it has seen so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding<T> {
    /// It may be; more bytes are needed.
    NeedMore,
    /// It is.
    Found(T),
    /// It is not, whatever follows.
    Not,
}
