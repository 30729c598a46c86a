//! The dynamic table (RFC 7541, 2.3.2): the newest entry first, the oldest leaves when room is needed.

use std::collections::VecDeque;

/// What a table holds.
pub(super) trait Entry {
    /// Name, value and overhead.
    fn size(&self) -> usize;
}

/// A dynamic table, of the decoder or of the encoder.
#[derive(Debug)]
pub(super) struct Table<E> {
    /// Grows as it is used: most connections need a few entries of the 128 that 4096 bytes could hold.
    entries: VecDeque<E>,
    size: usize,
    max: usize,
}

impl<E: Entry> Table<E> {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max }
    }

    /// The entry that `age` others are newer than.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<&E> {
        self.entries.get(age)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict_to(max);
    }

    /// Adds an entry. One larger than the table only empties it.
    pub(super) fn insert(&mut self, entry: E) {
        let size = entry.size();
        if size > self.max {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.max - size);
        self.size += size;
        self.entries.push_front(entry);
    }

    fn evict_to(&mut self, room: usize) {
        while self.size > room
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}
