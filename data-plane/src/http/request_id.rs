//! `x-request-id`: a random UUID. The tracer writes into it whether and why the request is traced.

use bytes::Bytes;
use http::HeaderName;
use rand::RngCore;

/// The header.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A fresh id, not traced yet.
pub(crate) fn generate(rng: &mut impl RngCore) -> Bytes {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    Bytes::copy_from_slice(&text)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn ids_are_random_uuids() {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
        let id = generate(&mut rng);
        let text = std::str::from_utf8(&id).unwrap();
        assert!(text.parse::<uuid::Uuid>().is_ok_and(|uuid| uuid.get_version_num() == 4));
    }
}
