//! `x-request-id`: a random UUID. The tracer writes into it whether and why the request is traced.

use bytes::Bytes;
use http::HeaderName;
use rand::RngCore;

/// The header.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A fresh id, not traced yet.
pub(crate) fn generate(rng: &mut impl RngCore) -> Bytes {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    for (bytes, digits) in [(0..4, 0..8), (4..6, 9..13), (6..8, 14..18), (8..10, 19..23), (10..16, 24..36)] {
        hex::encode_to_slice(&id[bytes], &mut text[digits]).expect("two digits a byte");
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
