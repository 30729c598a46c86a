//! JA3 and JA4: what a TLS client's first message says about who wrote the client.

use sha2::{Digest as _, Sha256};

/// What of a first message goes into fingerprints, in the client's order. GREASE is left out.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The version in the message's head.
    pub(super) version: u16,
    /// The versions of the extension, where there is one.
    pub(super) versions: Vec<u16>,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) groups: Vec<u16>,
    pub(super) point_formats: Vec<u8>,
    pub(super) signatures: Vec<u16>,
    /// The first protocol of ALPN.
    pub(super) alpn: Option<Vec<u8>>,
}

pub(super) const SERVER_NAME: u16 = 0;
pub(super) const GROUPS: u16 = 10;
pub(super) const POINT_FORMATS: u16 = 11;
pub(super) const SIGNATURES: u16 = 13;
pub(super) const ALPN: u16 = 16;
pub(super) const VERSIONS: u16 = 43;

/// Values that clients send to see whether servers mind.
pub(super) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

impl Seen {
    /// MD5 over numbers as they stand.
    pub(super) fn ja3(&self) -> String {
        let list = |values: &[u16]| join(values.iter().map(ToString::to_string), "-");
        let formats = join(self.point_formats.iter().map(ToString::to_string), "-");
        let text = format!(
            "{},{},{},{},{formats}",
            self.version,
            list(&self.ciphers),
            list(&self.extensions),
            list(&self.groups)
        );
        hex::encode(md5(text.as_bytes()))
    }

    /// What can be read off, then SHA-256 over numbers in their order of size.
    pub(super) fn ja4(&self) -> String {
        let sorted = |values: &mut dyn Iterator<Item = u16>| {
            let mut values: Vec<u16> = values.collect();
            values.sort_unstable();
            hexadecimal(&values)
        };
        let others = |value: &u16| ![SERVER_NAME, ALPN].contains(value);
        let ciphers = sorted(&mut self.ciphers.iter().copied());
        let mut extensions = sorted(&mut self.extensions.iter().copied().filter(others));
        if !self.signatures.is_empty() {
            extensions.push('_');
            extensions.push_str(&hexadecimal(&self.signatures));
        }
        format!(
            "t{}{}{:02}{:02}{}_{}_{}",
            self.newest(),
            if self.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' },
            self.ciphers.len().min(99),
            self.extensions.len().min(99),
            self.alpn_ends(),
            short(&ciphers),
            if self.extensions.is_empty() { short("") } else { short(&extensions) },
        )
    }

    fn newest(&self) -> &'static str {
        match self.versions.iter().copied().max().unwrap_or(self.version) {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        }
    }

    /// First and last character of the first protocol; in hexadecimal where they are not plain.
    fn alpn_ends(&self) -> String {
        let Some((Some(first), Some(last))) =
            self.alpn.as_ref().map(|alpn| (alpn.first().copied(), alpn.last().copied()))
        else {
            return "00".to_owned();
        };
        if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
            return [char::from(first), char::from(last)].iter().collect();
        }
        let (first, last) = (format!("{first:02x}"), format!("{last:02x}"));
        format!("{}{}", &first[..1], &last[1..])
    }
}

fn hexadecimal(values: &[u16]) -> String {
    join(values.iter().map(|value| format!("{value:04x}")), ",")
}

fn join(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

fn short(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    hex::encode(&Sha256::digest(text)[..6])
}

/// RFC 1321. Nothing here depends on its strength: JA3 is made of it.
fn md5(message: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 16];
        for (word, four) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (mix, at) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), 5 * step + 1),
                2 => (b ^ c ^ d, 3 * step + 5),
                _ => (c ^ (b | !d), 7 * step),
            };
            let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(mix).wrapping_add(constant).wrapping_add(words[at % 16]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16][step % 4]));
        }
        for (whole, part) in state.iter_mut().zip([a, b, c, d]) {
            *whole = whole.wrapping_add(part);
        }
    }
    let mut digest = [0; 16];
    for (four, word) in digest.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_md5() {
        assert_eq!(hex::encode(md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex::encode(md5(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
        assert_eq!(hex::encode(md5(&[b'1'; 60])), hex::encode(md5(&[b'1'; 60])));
        assert_eq!(
            hex::encode(md5(
                b"12345678901234567890123456789012345678901234567890123456789012345678901234567890"
            )),
            "57edf4a22be3c955ac49da2e2107b67a"
        );
    }

    #[test]
    fn the_example_of_ja4s_authors() {
        let seen = Seen {
            version: 0x0303,
            versions: vec![0x0304, 0x0303],
            ciphers: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
                0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012,
                0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
            ],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            alpn: Some(b"h2".to_vec()),
            ..Seen::default()
        };
        assert_eq!(seen.ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn grease_is_known() {
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0a1a) && !is_grease(0x1301));
    }
}
