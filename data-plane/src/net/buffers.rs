//! Spare buffers of a worker. A connection has one while bytes stand in it, so idle connections have none.

use std::cell::RefCell;
use std::thread::LocalKey;

use bytes::BytesMut;

/// As much as is read at once to begin with.
pub(crate) const SIZE: usize = 8 * 1024;

/// So many are kept to read into: one is free again once what was read is on its way.
const SPARE: usize = 8;

/// As much as has room at once before it is written: a head, and a small body.
const OUTPUT: usize = 2 * 1024;

/// So many are kept to write from: all connections of a round hold theirs until the round's turn to write.
const SPARE_OUTPUT: usize = 64;

/// One that has grown beyond this is not kept.
const LARGE: usize = 16 * 1024;

thread_local! {
    static INPUT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer to read into.
pub(crate) fn take_input() -> BytesMut {
    INPUT.with_borrow_mut(|spare| {
        // What was taken out of one may still be in use, mostly out of that which was given back last.
        match spare.iter_mut().rposition(|buffer| buffer.try_reclaim(SIZE)) {
            Some(place) => spare.swap_remove(place),
            None => {
                spare.pop();
                BytesMut::with_capacity(SIZE)
            }
        }
    })
}

/// Gives a buffer back that was read into.
pub(crate) fn give_input(mut buffer: BytesMut) {
    buffer.clear();
    give(&INPUT, SPARE, buffer);
}

/// An empty buffer to write from.
pub(crate) fn take_output() -> Vec<u8> {
    OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(OUTPUT))
}

/// Gives a buffer back that was written.
pub(crate) fn give_output(mut buffer: Vec<u8>) {
    if buffer.capacity() <= LARGE {
        buffer.clear();
        give(&OUTPUTS, SPARE_OUTPUT, buffer);
    }
}

fn give<T>(spare: &'static LocalKey<RefCell<Vec<T>>>, most: usize, buffer: T) {
    spare.with_borrow_mut(|spare| {
        if spare.len() < most {
            spare.push(buffer);
        }
    });
}
