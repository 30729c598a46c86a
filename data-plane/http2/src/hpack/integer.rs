//! Integers with a prefix (RFC 7541, 5.1).

use super::Error;

/// Reads the integer whose first byte, already taken from `input`, carries `bits` bits of it.
#[inline]
pub(super) fn decode(first: u8, bits: u32, input: &mut &[u8]) -> Result<usize, Error> {
    let full = (1u8 << bits) - 1;
    let low = first & full;
    if low < full { Ok(usize::from(low)) } else { decode_rest(full, input) }
}

/// Five bytes hold 32 bits: a sixth would be an overflow or padding, and who pads has nothing good in mind.
fn decode_rest(full: u8, input: &mut &[u8]) -> Result<usize, Error> {
    let mut value = u64::from(full);
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = input.split_first().ok_or(Error::Truncated)?;
        *input = rest;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| Error::Integer)?;
            return Ok(value as usize);
        }
    }
    Err(Error::Integer)
}

/// Writes an integer with a prefix of `bits` bits behind the bits of `kind`.
#[inline]
pub(super) fn encode(out: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let full = (1usize << bits) - 1;
    if value < full {
        out.push(kind | value as u8);
    } else {
        out.push(kind | full as u8);
        encode_rest(out, value - full);
    }
}

fn encode_rest(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], bits: u32) -> Result<usize, Error> {
        let mut rest = &bytes[1..];
        let value = decode(bytes[0], bits, &mut rest)?;
        assert!(rest.is_empty());
        Ok(value)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // C.1.1 to C.1.3, with foreign bits before the prefix.
        for (bits, value, bytes) in
            [(5, 10, &[0xea][..]), (5, 1337, &[0xff, 0x9a, 0x0a][..]), (8, 42, &[0x2a][..])]
        {
            if bits < 8 {
                assert_eq!(decoded(bytes, bits), Ok(value));
                let mut out = Vec::new();
                encode(&mut out, 0xe0, bits, value);
                assert_eq!(out, bytes);
            }
        }
    }

    #[test]
    fn every_length_comes_back() {
        for bits in 4..=7 {
            for value in (0..32).flat_map(|n| [(1usize << n) - 1, 1 << n]).chain([u32::MAX as usize]) {
                let mut out = Vec::new();
                encode(&mut out, 0, bits, value);
                assert_eq!(decoded(&out, bits), Ok(value));
            }
        }
    }

    #[test]
    fn more_than_32_bits_are_refused() {
        assert_eq!(decoded(&[0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f], 7), Ok(u32::MAX as usize));
        assert_eq!(decoded(&[0x7f, 0x81, 0xff, 0xff, 0xff, 0x0f], 7), Err(Error::Integer));
        assert_eq!(decoded(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f], 7), Err(Error::Integer));
        assert_eq!(decoded(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 7), Err(Error::Integer));
        assert_eq!(decoded(&[0x7f, 0x80, 0x80], 7), Err(Error::Truncated));
    }
}
