//! The bytes of a message while it is written (<https://protobuf.dev/programming-guides/encoding/>).

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// What has been written so far.
#[derive(Default)]
pub(super) struct Out(Vec<u8>);

/// Where a value of unknown length begins.
#[must_use]
pub(super) struct Open(usize);

impl Out {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back all from here on.
    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Whether nothing but zeros stands from here on.
    pub(super) fn is_zero_from(&self, start: usize) -> bool {
        self.0.iter().skip(start).all(|byte| *byte == 0)
    }

    pub(super) fn key(&mut self, number: u32, kind: WireType) {
        encode_key(number, kind, &mut self.0);
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        encode_varint(value, &mut self.0);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.unsigned(value.cast_unsigned());
    }

    /// Small numbers of either sign in few bytes.
    pub(super) fn zigzag(&mut self, value: i64) {
        self.signed((value << 1) ^ (value >> 63));
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes behind their length.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Begins a value whose length is known when it ends.
    pub(super) fn open(&mut self) -> Open {
        let open = Open(self.0.len());
        // Room for a length of one byte, which is most often enough.
        self.0.push(0);
        open
    }

    /// Begins a field whose length is known when it ends.
    pub(super) fn open_field(&mut self, number: u32) -> Open {
        self.key(number, WireType::LengthDelimited);
        self.open()
    }

    /// Ends the value: its length is put before it.
    pub(super) fn close(&mut self, Open(start): Open) {
        let length = self.0.len() - start - 1;
        match self.0.get_mut(start) {
            Some(room) if length < 0x80 => *room = length as u8,
            _ => {
                let mut longer = Vec::with_capacity(encoded_len_varint(length as u64));
                encode_varint(length as u64, &mut longer);
                self.0.splice(start..=start, longer);
            }
        }
    }
}
