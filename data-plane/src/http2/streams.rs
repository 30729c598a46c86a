//! The streams of a connection, by their ids.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::stream::Stream;

/// Ids count up by themselves: they need no mixing but to the upper bits, which the table looks at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Streams {
    known: HashMap<u32, Stream, BuildHasherDefault<ById>>,
    open: usize,
}

impl Streams {
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        self.known.get_mut(&id)
    }

    pub(super) fn peek(&self, id: u32) -> Option<&Stream> {
        self.known.get(&id)
    }

    pub(super) fn begin(&mut self, id: u32, stream: Stream) {
        self.known.insert(id, stream);
        self.open += 1;
    }

    /// So many are open. One that has ended may be known still.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// It counts no more; whether it did.
    pub(super) fn close(&mut self, id: u32) -> bool {
        let closes = self.known.get_mut(&id).is_some_and(|stream| std::mem::take(&mut stream.open));
        self.open -= usize::from(closes);
        closes
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.close(id);
        self.known.remove(&id);
    }

    pub(super) fn for_each(&mut self, each: impl FnMut(&mut Stream)) {
        self.known.values_mut().for_each(each);
    }

    /// Of those with a later id than this.
    pub(super) fn for_each_after(&mut self, id: u32, mut each: impl FnMut(&mut Stream)) {
        self.known.iter_mut().filter(|(known, _)| **known > id).for_each(|(_, stream)| each(stream));
    }
}
