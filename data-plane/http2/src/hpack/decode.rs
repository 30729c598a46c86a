//! Decodes header blocks.

use super::entry::{Entry, Name};
use super::table::Table;
use super::{DEFAULT_TABLE, Error, Field, huffman, integer, static_table, table::Entry as _};

/// A decoded string this long is not worth keeping the room for.
const LARGEST_SCRATCH: usize = 4096;

/// Decodes the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table<Entry>,
    /// What our SETTINGS_HEADER_TABLE_SIZE says.
    setting: usize,
    /// What a size update may ask for at most.
    limit: usize,
    /// Where Huffman codes are decoded to.
    scratch: Vec<u8>,
}

impl Decoder {
    /// `max_table` is what our SETTINGS_HEADER_TABLE_SIZE says. If it is less than [`DEFAULT_TABLE`], it holds from
    /// [`Decoder::settings_acknowledged`] on: until then the peer cannot know.
    pub fn new(max_table: usize) -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE),
            setting: max_table,
            limit: max_table.max(DEFAULT_TABLE),
            scratch: Vec::new(),
        }
    }

    /// The peer has acknowledged our first SETTINGS. If they shrank the table, its next block has to say so first
    /// (RFC 9113, 4.3.1).
    pub fn settings_acknowledged(&mut self) {
        self.limit = self.setting;
    }

    /// Decodes a whole block, field by field, in order. `each` gets a field and its size: name, value and 32 bytes.
    ///
    /// Whoever has enough may let fields drop, but must let the block end: it changes the table.
    ///
    /// # Errors
    /// The table is lost, and with it the connection: COMPRESSION_ERROR.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(Field, usize)) -> Result<(), Error> {
        let mut input = block;
        self.size_updates(&mut input)?;
        while let Some((&first, rest)) = input.split_first() {
            input = rest;
            if first & 0x80 != 0 {
                let entry = self.entry(integer::decode(first, 7, &mut input)?)?;
                each(entry.field(), entry.size());
            } else {
                let (field, size) = self.literal(first, &mut input)?;
                each(field, size);
            }
        }
        self.scratch.shrink_to(LARGEST_SCRATCH);
        Ok(())
    }

    /// Size updates stand before the first field (RFC 7541, 4.2).
    fn size_updates(&mut self, input: &mut &[u8]) -> Result<(), Error> {
        while let Some((&first, rest)) = input.split_first()
            && first & 0xe0 == 0x20
        {
            *input = rest;
            let max = integer::decode(first, 5, input)?;
            if max > self.limit {
                return Err(Error::SizeUpdate);
            }
            self.table.set_max(max);
        }
        if self.table.max() > self.limit { Err(Error::SizeUpdate) } else { Ok(()) }
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<&Entry, Error> {
        let entry = match index.checked_sub(static_table::LEN + 1) {
            Some(age) => self.table.get(age),
            None => static_table::get(index),
        };
        entry.ok_or(Error::Index)
    }

    fn literal(&mut self, first: u8, input: &mut &[u8]) -> Result<(Field, usize), Error> {
        let indexing = first & 0x40 != 0;
        if !indexing && first & 0x20 != 0 {
            return Err(Error::SizeUpdate);
        }
        let index = integer::decode(first, if indexing { 6 } else { 4 }, input)?;
        let (name, name_len) = if index == 0 {
            let name = string(input, &mut self.scratch)?;
            (Name::from_bytes(name), name.len())
        } else {
            self.entry(index)?.name()
        };
        let entry = Entry::new(name, name_len, string(input, &mut self.scratch)?);
        let size = entry.size();
        if indexing {
            let field = entry.field();
            self.table.insert(entry);
            return Ok((field, size));
        }
        let mut field = entry.into_field();
        if first & 0x10 != 0
            && let Field::Header(_, value) = &mut field
        {
            value.set_sensitive(true);
        }
        Ok((field, size))
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_TABLE)
    }
}

/// Takes a string, plain out of the input or decoded into `scratch`.
fn string<'i: 's, 's>(input: &mut &'i [u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Error> {
    let (&first, rest) = input.split_first().ok_or(Error::Truncated)?;
    *input = rest;
    let len = integer::decode(first, 7, input)?;
    let (text, rest) = input.split_at_checked(len).ok_or(Error::Truncated)?;
    *input = rest;
    if first & 0x80 == 0 {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(scratch)
}
