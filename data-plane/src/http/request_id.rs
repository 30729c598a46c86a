//! `x-request-id`: a random UUID whose fifteenth character says whether and why the request is traced.

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::RngCore;

/// The header.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where the reason stands.
const REASON: usize = 14;

/// Why a request is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    NotTraced,
    Sampled,
    ServiceForced,
    ClientForced,
}

impl Reason {
    fn letter(self) -> u8 {
        match self {
            Self::NotTraced => b'4',
            Self::Sampled => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }
}

/// A fresh id, not traced yet.
pub(crate) fn generate(rng: &mut impl RngCore) -> HeaderValue {
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
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
}

/// The reason that an id carries; `None` for what is not one of our ids.
pub(crate) fn reason(id: &[u8]) -> Option<Reason> {
    if id.len() != 36 {
        return None;
    }
    match id[REASON] {
        b'9' => Some(Reason::Sampled),
        b'a' => Some(Reason::ServiceForced),
        b'b' => Some(Reason::ClientForced),
        _ => Some(Reason::NotTraced),
    }
}

/// Writes the reason into the request's id, if that is a UUID.
pub(crate) fn set_reason(headers: &mut HeaderMap, reason: Reason) {
    let Some(id) =
        headers.get(REQUEST_ID).filter(|id| id.len() == 36 && id.as_bytes()[REASON] != reason.letter())
    else {
        return;
    };
    let mut text = id.as_bytes().to_vec();
    text[REASON] = reason.letter();
    if let Ok(id) = HeaderValue::from_bytes(&text) {
        headers.insert(REQUEST_ID, id);
    }
}

/// A number from the id that is the same in every proxy the request passes; decides sampling.
pub(crate) fn stable_random(id: &[u8]) -> Option<u64> {
    let hex = std::str::from_utf8(id.get(..8)?).ok()?;
    u64::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn ids_carry_a_reason() {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
        let id = generate(&mut rng);
        assert!(id.to_str().unwrap().parse::<uuid::Uuid>().is_ok_and(|uuid| uuid.get_version_num() == 4));
        assert_eq!(reason(id.as_bytes()), Some(Reason::NotTraced));
        let mut headers = HeaderMap::from_iter([(REQUEST_ID, id)]);
        set_reason(&mut headers, Reason::Sampled);
        assert_eq!(reason(headers[REQUEST_ID].as_bytes()), Some(Reason::Sampled));
        assert_eq!(reason(b"not a uuid"), None);
    }
}
