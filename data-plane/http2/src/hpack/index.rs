//! The encoder's table, and how it finds in it what it has sent before.

use super::OVERHEAD;
use super::table::{self, Table};

/// The encoder's dynamic table. Ages count from its newest entry, 0.
///
/// Two sets of chains lead to the entries, by the hash of the field and of the name. A chain leads from newer to
/// older entries, and entries leave in the order in which they came: so nothing is unlinked ever, a chain just ends
/// where it leads to an entry that is gone.
#[derive(Debug)]
pub(super) struct Index {
    table: Table<Entry>,
    /// How many entries were inserted, which is the number of the newest.
    inserted: u32,
    /// The number of the entry behind the one found last: messages resemble each other, so it is often the next.
    next: u32,
    fields: Chains,
    names: Chains,
    seen: Box<Seen>,
}

/// A field that was sent.
#[derive(Debug)]
pub(super) struct Entry {
    /// Name and value, copied: a slice of somebody's buffer would keep the buffer.
    text: Box<[u8]>,
    name_len: usize,
    /// The lower half of the field's hash.
    hash: u32,
    /// The next older entries in the same chains.
    older_field: u32,
    older_name: u32,
}

/// A field to be found, with the hashes of its name and of all of it.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) name: &'a [u8],
    pub(super) name_hash: u64,
    pub(super) value: &'a [u8],
    pub(super) hash: u64,
}

/// The hashes of the last fields and names that no table had, about 128.
#[derive(Debug, Default)]
struct Seen([Set; 16]);

/// Hashes with the same place. They are several, for what comes with every request must not push out each other.
#[derive(Debug, Default)]
struct Set {
    hashes: [u32; 8],
    oldest: u8,
}

/// The numbers of the newest entries, by hash. The length is a power of two.
#[derive(Debug)]
struct Chains(Vec<u32>);

impl Index {
    /// A table of `max` bytes that may become as large as `limit`.
    pub(super) fn new(max: usize, limit: usize) -> Self {
        Self {
            table: Table::new(max),
            inserted: 0,
            next: 0,
            fields: Chains::new(limit),
            names: Chains::new(limit),
            seen: Box::default(),
        }
    }

    pub(super) fn max(&self) -> usize {
        self.table.max()
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.table.set_max(max);
    }

    /// The age of the entry behind the one found last, if it has this name and value. This needs no hash.
    #[inline]
    pub(super) fn next_field(&mut self, name: &[u8], value: &[u8]) -> Option<usize> {
        let age = self.inserted.wrapping_sub(self.next) as usize;
        if !self.table.get(age)?.is(name, value) {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        Some(age)
    }

    /// The age of an entry with this name and value.
    pub(super) fn field(&mut self, sought: &Sought<'_>) -> Option<usize> {
        let hash = sought.hash as u32;
        let age = self.find(
            self.fields.newest(sought.hash),
            |entry| entry.older_field,
            |entry| entry.hash == hash && entry.is(sought.name, sought.value),
        )?;
        self.next = self.inserted.wrapping_sub(age as u32).wrapping_add(1);
        Some(age)
    }

    /// The age of the newest entry with this name.
    pub(super) fn name(&self, sought: &Sought<'_>) -> Option<usize> {
        self.find(
            self.names.newest(sought.name_hash),
            |entry| entry.older_name,
            |entry| entry.name() == sought.name,
        )
    }

    #[inline]
    fn find(
        &self,
        newest: u32,
        older: impl Fn(&Entry) -> u32,
        found: impl Fn(&Entry) -> bool,
    ) -> Option<usize> {
        let (mut number, mut least) = (newest, 0);
        loop {
            let age = self.inserted.wrapping_sub(number) as usize;
            // Numbers come again after 2^32 entries: whatever a stale one leads to, the way is always to the older.
            if age < least {
                return None;
            }
            let entry = self.table.get(age)?;
            if found(entry) {
                return Some(age);
            }
            (number, least) = (older(entry), age + 1);
        }
    }

    /// Whether this hash was seen lately; if not, it is now.
    pub(super) fn seen(&mut self, hash: u64) -> bool {
        self.seen.put(hash)
    }

    /// Adds a field, which must not be larger than the table.
    pub(super) fn insert(&mut self, field: &Sought<'_>) {
        let mut text = Vec::with_capacity(field.name.len() + field.value.len());
        text.extend_from_slice(field.name);
        text.extend_from_slice(field.value);
        let number = self.inserted.wrapping_add(1);
        let entry = Entry {
            text: text.into(),
            name_len: field.name.len(),
            hash: field.hash as u32,
            older_field: self.fields.put(field.hash, number),
            older_name: self.names.put(field.name_hash, number),
        };
        self.inserted = number;
        self.table.insert(entry);
    }
}

impl Entry {
    fn name(&self) -> &[u8] {
        &self.text[..self.name_len]
    }

    #[inline]
    fn is(&self, name: &[u8], value: &[u8]) -> bool {
        let (own_name, own_value) = self.text.split_at(self.name_len);
        own_value == value && own_name == name
    }
}

impl table::Entry for Entry {
    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl Seen {
    fn put(&mut self, hash: u64) -> bool {
        let set = &mut self.0[(hash >> 32) as usize % 16];
        let hash = hash as u32;
        // Without a way out, which would keep the compiler from comparing all at once.
        if set.hashes.iter().fold(false, |found, &own| found | (own == hash)) {
            return true;
        }
        set.hashes[usize::from(set.oldest % 8)] = hash;
        set.oldest = set.oldest.wrapping_add(1);
        false
    }
}

impl Chains {
    fn new(limit: usize) -> Self {
        let entries = limit / OVERHEAD;
        Self(vec![0; entries.next_power_of_two().clamp(1, 1024)])
    }

    #[inline]
    fn newest(&self, hash: u64) -> u32 {
        self.0[self.slot(hash)]
    }

    fn put(&mut self, hash: u64, number: u32) -> u32 {
        let slot = self.slot(hash);
        std::mem::replace(&mut self.0[slot], number)
    }

    #[inline]
    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(value: &[u8], hash: u64) -> Sought<'_> {
        Sought { name: b"name", name_hash: 7, value, hash }
    }

    #[test]
    fn fields_of_one_hash_are_told_apart() {
        let mut index = Index::new(4096, 4096);
        let values: Vec<String> = (0..20).map(|value| value.to_string()).collect();
        for value in &values {
            assert_eq!(index.field(&sought(value.as_bytes(), 1)), None);
            index.insert(&sought(value.as_bytes(), 1));
        }
        for (age, value) in values.iter().rev().enumerate() {
            assert_eq!(index.field(&sought(value.as_bytes(), 1)), Some(age));
        }
        assert_eq!(index.name(&sought(b"", 1)), Some(0));
        assert_eq!(index.name(&Sought { name: b"other", ..sought(b"", 1) }), None);
    }

    #[test]
    fn the_entry_behind_the_last_is_next() {
        let mut index = Index::new(4096, 4096);
        for (hash, value) in [b"a", b"b", b"c"].into_iter().enumerate() {
            index.insert(&sought(value, hash as u64));
        }
        assert_eq!(index.field(&sought(b"a", 0)), Some(2));
        assert_eq!(index.next_field(b"name", b"c"), None);
        assert_eq!(index.next_field(b"name", b"b"), Some(1));
        assert_eq!(index.next_field(b"name", b"c"), Some(0));
        assert_eq!(index.next_field(b"name", b"a"), None);
    }

    #[test]
    fn numbers_come_again() {
        // Room for three entries of 37 bytes.
        let mut index = Index::new(3 * 37, 4096);
        index.inserted = u32::MAX - 5;
        let values: Vec<[u8; 1]> = (b'a'..=b't').map(|value| [value]).collect();
        for (count, value) in values.iter().enumerate() {
            index.insert(&sought(value, count as u64 % 3));
            for age in 0..=count.min(2) {
                let value = &values[count - age];
                assert_eq!(index.field(&sought(value, (count - age) as u64 % 3)), Some(age));
            }
            assert_eq!(index.field(&sought(b"none", count as u64 % 3)), None);
            assert_eq!(index.name(&sought(b"none", 0)), Some(0));
        }
    }

    #[test]
    fn what_shares_a_place_is_seen_all_the_same() {
        let mut seen = Seen::default();
        assert!((1..=8).all(|hash| !seen.put(hash)));
        assert!((1..=8).all(|hash| seen.put(hash)));
        assert!(!seen.put(9));
        assert!(!seen.put(1) && seen.put(9) && seen.put(3));
    }
}
