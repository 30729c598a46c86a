//! The hash by which the encoder finds what it has sent before.
//!
//! It is made to be cheap, not to resist anybody: what it finds is always compared, and who makes collisions gets
//! chains as long as the table, which is short.

/// With this seed no two names of the static table share a slot there.
pub(super) const SEED: u64 = 66;

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes `bytes` behind what `seed` stands for.
#[inline]
pub(super) const fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ bytes.len() as u64);
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>()
        && !after.is_empty()
    {
        hash = mix(hash ^ u64::from_le_bytes(*word));
        rest = after;
    }
    mix(hash ^ tail(bytes))
}

/// The last bytes: up to eight, those before them are hashed already or once more.
#[inline]
const fn tail(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32;
    }
    match bytes {
        [] => 0,
        [a] => *a as u64,
        [a, b] => *a as u64 | (*b as u64) << 8,
        [a, b, .., c] => *a as u64 | (*b as u64) << 8 | (*c as u64) << 16,
    }
}

#[inline]
const fn mix(word: u64) -> u64 {
    let wide = word as u128 * FACTOR as u128;
    (wide as u64) ^ ((wide >> 64) as u64)
}
