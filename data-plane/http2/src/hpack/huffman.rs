//! The Huffman code (RFC 7541, Appendix B).
//!
//! The code is canonical: symbols in the order of length, then of value, have codes that count up. So the lengths say
//! all; every table here is computed from them by the compiler.

use super::Error;

/// The symbol of the end, which no string contains.
const END: usize = 256;
const SYMBOLS: usize = 257;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Codes up to this length, among them those of all letters and digits, are looked up at once.
const DIRECT: usize = 8;

/// The length of every symbol's code.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// Every symbol's code, in its lowest bits.
static CODES: [u32; SYMBOLS] = CANON.codes;

/// By the next eight bits: the symbol that they begin with, and above it its length, 0 if it is longer.
static DIRECTLY: [u16; 1 << DIRECT] = {
    let mut table = [0; 1 << DIRECT];
    let mut symbol = 0;
    while symbol < END {
        let length = LENGTHS[symbol] as usize;
        if length <= DIRECT {
            let first = (CANON.codes[symbol] as usize) << (DIRECT - length);
            let mut bits = first;
            while bits < first + (1 << (DIRECT - length)) {
                table[bits] = (length << 8 | symbol) as u16;
                bits += 1;
            }
        }
        symbol += 1;
    }
    table
};

/// What follows from the lengths.
struct Canon {
    codes: [u32; SYMBOLS],
    /// The symbols in the order of their codes.
    order: [u16; SYMBOLS],
    /// For each length: the first code behind it, with 32 bits.
    ends: [u64; LONGEST + 1],
    /// For each length: what to take from a code for its place in the order.
    offsets: [u32; LONGEST + 1],
}

static ORDER: [u16; SYMBOLS] = CANON.order;
static ENDS: [u64; LONGEST + 1] = CANON.ends;
static OFFSETS: [u32; LONGEST + 1] = CANON.offsets;

const CANON: Canon = {
    let mut canon =
        Canon { codes: [0; SYMBOLS], order: [0; SYMBOLS], ends: [0; LONGEST + 1], offsets: [0; LONGEST + 1] };
    let mut code: u32 = 0;
    let mut place = 0;
    let mut length = SHORTEST;
    while length <= LONGEST {
        canon.offsets[length] = code.wrapping_sub(place as u32);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                canon.codes[symbol] = code;
                canon.order[place] = symbol as u16;
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        canon.ends[length] = (code as u64) << (32 - length);
        code <<= 1;
        length += 1;
    }
    assert!(
        place == SYMBOLS && canon.ends[LONGEST] == 1 << 32,
        "the lengths are not those of a complete code"
    );
    canon
};

/// Bits of a string, the next ones at the top.
#[derive(Default)]
struct Bits {
    word: u64,
    /// How many there are; what is below them in the word is of no meaning.
    len: usize,
}

impl Bits {
    /// Takes as many bytes as fit, and has 56 bits then if the input had as many.
    #[inline]
    fn fill(&mut self, input: &mut &[u8]) {
        if let Some(next) = input.first_chunk::<8>() {
            self.word |= u64::from_be_bytes(*next) >> self.len;
            *input = &input[(63 - self.len) / 8..];
            self.len |= 56;
            return;
        }
        while self.len < 56
            && let Some((&byte, rest)) = input.split_first()
        {
            self.word &= !(u64::MAX >> self.len);
            self.word |= u64::from(byte) << (56 - self.len);
            self.len += 8;
            *input = rest;
        }
    }

    #[inline]
    fn skip(&mut self, len: usize) {
        self.word <<= len;
        self.len -= len;
    }
}

/// Appends what `input` stands for.
pub(super) fn decode(mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    out.reserve(input.len() * 8 / SHORTEST);
    let mut bits = Bits::default();
    loop {
        bits.fill(&mut input);
        while bits.len >= DIRECT {
            let (symbol, len) = direct(bits.word);
            if len == 0 {
                break;
            }
            out.push(symbol);
            bits.skip(len);
        }
        if bits.len >= LONGEST {
            let (symbol, len) = long(bits.word)?;
            out.push(symbol);
            bits.skip(len);
        } else if input.is_empty() {
            return decode_end(bits, out);
        }
    }
}

/// The end, where a code may be cut off: then it is padding.
fn decode_end(mut bits: Bits, out: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        // Padding is the beginning of the symbol of the end: so is any number of ones.
        bits.word |= u64::MAX >> bits.len;
        if bits.len < 8 && bits.word == u64::MAX {
            return Ok(());
        }
        let (symbol, len) = match direct(bits.word) {
            (_, 0) => long(bits.word)?,
            short => short,
        };
        if len > bits.len {
            return Err(Error::Huffman);
        }
        out.push(symbol);
        bits.skip(len);
    }
}

/// The symbol that `word` begins with and the length of its code, 0 if it is longer than `DIRECT`.
#[inline]
fn direct(word: u64) -> (u8, usize) {
    let found = DIRECTLY[(word >> (64 - DIRECT)) as usize];
    (found as u8, usize::from(found >> 8))
}

/// The same for a code that is longer.
fn long(word: u64) -> Result<(u8, usize), Error> {
    let top = word >> 32;
    let len = (DIRECT + 1..LONGEST).find(|&len| top < ENDS[len]).unwrap_or(LONGEST);
    let code = (top >> (32 - len)) as u32;
    let symbol = ORDER[code.wrapping_sub(OFFSETS[len]) as usize];
    Ok((u8::try_from(symbol).map_err(|_| Error::Huffman)?, len))
}

/// The length of `text` in the code.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` in the code.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut word, mut len) = (0u64, 0);
    for &byte in text {
        let symbol = usize::from(byte);
        word = word << LENGTHS[symbol] | u64::from(CODES[symbol]);
        len += u32::from(LENGTHS[symbol]);
        if len >= 32 {
            len -= 32;
            out.extend_from_slice(&((word >> len) as u32).to_be_bytes());
        }
    }
    // What is left, behind it ones to the end of the byte.
    let rest = (word << 32 | u64::from(u32::MAX)) >> len;
    out.extend_from_slice(&(rest as u32).to_be_bytes()[..len.div_ceil(8) as usize]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_len(text));
        out
    }

    #[test]
    fn the_order_gives_the_codes_of_the_rfc() {
        for (symbol, code) in [
            (usize::from(b'0'), 0x0),
            (usize::from(b't'), 0x9),
            (usize::from(b' '), 0x14),
            (usize::from(b':'), 0x5c),
            (usize::from(b'&'), 0xf8),
            (usize::from(b'!'), 0x3f8),
            (usize::from(b'\\'), 0x7fff0),
            (0, 0x1ff8),
            (1, 0x7f_ffd8),
            (195, 0x7_fff1),
            (249, 0xfff_fffe),
            (22, 0x3fff_fffe),
            (END, 0x3fff_ffff),
        ] {
            assert_eq!(CODES[symbol], code, "{symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back_at_every_place() {
        for byte in 0..=u8::MAX {
            for before in 0..16 {
                let mut text = vec![b'a'; before];
                text.extend([byte, b'!', byte]);
                assert_eq!(decoded(&encoded(&text)).as_deref(), Ok(&text[..]));
            }
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // 'a' is 00011.
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(Error::Huffman));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[0xff]), Err(Error::Huffman));
        for len in 0..12 {
            let mut whole = encoded(&vec![b'0'; 8 * len]);
            assert_eq!(decoded(&whole), Ok(vec![b'0'; 8 * len]));
            whole.push(0xff);
            assert_eq!(decoded(&whole), Err(Error::Huffman));
        }
    }

    #[test]
    fn the_end_is_no_symbol_of_a_string() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0]), Err(Error::Huffman));
        // Cut off within a code of 28 bits.
        assert_eq!(decoded(&encoded(&[2])[..3]), Err(Error::Huffman));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }

        #[test]
        fn what_is_decoded_is_the_only_code_of_it(input: Vec<u8>) {
            if let Ok(text) = decoded(&input) {
                prop_assert_eq!(encoded(&text), input);
            }
        }
    }
}
