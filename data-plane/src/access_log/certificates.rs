//! What logs say of certificates beyond what every connection keeps. It is read from the certificate when a line asks.

use std::borrow::Cow;

use identity::{CertInfo, SanKind};
use rustls::pki_types::CertificateDer;

use super::fields::Text;
use crate::stream_info::TlsInfo;

/// The peer's names of a kind.
pub(super) fn peer_sans<'a>(tls: &TlsInfo, kind: SanKind) -> Text<'a> {
    sans(tls.peer_chain.first()?, kind)
}

/// Our names of a kind.
pub(super) fn local_sans<'a>(tls: &TlsInfo, kind: SanKind) -> Text<'a> {
    sans(tls.local_certificate.as_deref()?, kind)
}

fn sans<'a>(certificate: &CertificateDer<'_>, kind: SanKind) -> Text<'a> {
    let info = CertInfo::from_der(certificate).ok()?;
    let names: Vec<&str> =
        info.sans.iter().filter(|san| san.kind == kind).map(|san| san.value.as_str()).collect();
    (!names.is_empty()).then(|| names.join(",").into())
}

/// SHA-256 of each, in hexadecimal.
pub(super) fn sha256_list<'a>(chain: &[CertificateDer<'_>]) -> Text<'a> {
    use sha2::{Digest, Sha256};
    join(chain.iter().map(|certificate| hex::encode(Sha256::digest(certificate))))
}

/// SHA-1 of each, in hexadecimal.
pub(super) fn sha1_list<'a>(chain: &[CertificateDer<'_>]) -> Text<'a> {
    join(chain.iter().map(|certificate| hex::encode(sha1(certificate))))
}

/// Serial numbers, in hexadecimal.
pub(super) fn serials<'a>(chain: &[CertificateDer<'_>]) -> Text<'a> {
    join(chain.iter().filter_map(|certificate| Some(CertInfo::from_der(certificate).ok()?.serial)))
}

/// PEM, escaped as in a URL.
pub(super) fn pem<'a>(certificate: &CertificateDer<'_>) -> Text<'a> {
    Some(crate::http::xfcc::pem(std::slice::from_ref(certificate)).into())
}

/// The validity's begin and end.
pub(super) fn validity(tls: &TlsInfo) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
    let info = CertInfo::from_der(tls.peer_chain.first()?).ok()?;
    Some((info.not_before, info.not_after))
}

fn join<'a>(items: impl Iterator<Item = String>) -> Text<'a> {
    let all: Vec<String> = items.collect();
    (!all.is_empty()).then(|| Cow::Owned(all.join(",")))
}

/// The digest that fingerprints of old had; nothing here trusts it.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, four) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = four.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next =
                a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (four, word) in digest.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    #[test]
    fn sha1_is_sha1() {
        assert_eq!(hex::encode(super::sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex::encode(super::sha1(&[b'a'; 100])), "7f9000257a4918d7072655ea468540cdcbd42e0c");
    }
}
