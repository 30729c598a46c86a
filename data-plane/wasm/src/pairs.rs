//! Lists of pairs as the ABI writes them: a count, lengths, and every key and value with a zero byte behind it.

/// Bytes of the pairs.
pub fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let mut out = vec![0; 4];
    let mut count = 0u32;
    for (key, value) in pairs.clone() {
        count += 1;
        out.extend_from_slice(&length(key).to_le_bytes());
        out.extend_from_slice(&length(value).to_le_bytes());
    }
    out[..4].copy_from_slice(&count.to_le_bytes());
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

fn length(bytes: &[u8]) -> u32 {
    // Nothing that long fits into the memory that it is for.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The pairs in bytes; `None` if these are none. No bytes are no pairs.
pub fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let number = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let lengths_end = count.checked_mul(8)?.checked_add(4)?;
    let mut rest = bytes.get(lengths_end..)?;
    let mut pairs = Vec::with_capacity(count);
    for place in 0..count {
        let key = take(&mut rest, number(4 + place * 8)?)?;
        let value = take(&mut rest, number(8 + place * 8)?)?;
        pairs.push((key, value));
    }
    Some(pairs)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let end = length.checked_add(1)?;
    if rest.len() < end {
        return None;
    }
    let (taken, left) = rest.split_at(end);
    *rest = left;
    Some(&taken[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_there_and_back() {
        let pairs: Vec<(&[u8], &[u8])> = vec![(b"a", b"1"), (b"", b"xyz"), (b"key", b"")];
        let bytes = encode(pairs.iter().copied());
        assert_eq!(bytes.len(), 4 + 3 * 8 + 8 + 6);
        assert_eq!(decode(&bytes), Some(pairs));
        assert_eq!(decode(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let bytes = encode([(&b"key"[..], &b"value"[..])].into_iter());
        for end in 1..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode(&[0xff; 4]), None);
        assert_eq!(decode(&[0xff; 64]), None);
    }
}
