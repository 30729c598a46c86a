//! Spare buffers of a worker. A connection has one while bytes stand in it, so idle connections have none.

use std::cell::RefCell;

use bytes::BytesMut;

/// As much as is read at once to begin with.
pub(super) const SIZE: usize = 8 * 1024;

/// So many are kept.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room.
pub(super) fn take() -> BytesMut {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    // What was taken out of it may still be in use: then this is a new one.
    buffer.reserve(SIZE);
    buffer
}

/// Gives a buffer back.
pub(super) fn give(mut buffer: BytesMut) {
    buffer.clear();
    BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}
