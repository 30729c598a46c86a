//! Earliest deadline first: each host in turn, as often as its weight says.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule of items by weight.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Entry>,
    added: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    item: usize,
}

impl Schedule {
    /// A schedule of these items.
    pub(super) fn new(items: impl Iterator<Item = usize>, weight: impl Fn(usize) -> f64) -> Self {
        let mut schedule = Self::default();
        for item in items {
            schedule.add(0.0, item, weight(item));
        }
        schedule
    }

    /// The next item.
    pub(super) fn next(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let entry = self.heap.pop()?;
        self.add(entry.deadline, entry.item, weight(entry.item));
        Some(entry.item)
    }

    fn add(&mut self, now: f64, item: usize, weight: f64) {
        self.added += 1;
        self.heap.push(Entry { deadline: now + 1.0 / weight.max(1e-6), order: self.added, item });
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, for the heap gives that one out; among equals, the one that waits longest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
