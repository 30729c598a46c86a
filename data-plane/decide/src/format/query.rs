//! Queries as `QUERY_PARAMS(DECODED)` tells them.

/// What stays encoded, because a line of a log, or an address, could be read wrongly with it.
const KEPT: &[u8] = b" \"<>\\^{|}";

/// Escapes of printable characters are read; a `%` that two characters follow, and not two digits, goes.
pub fn decode(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    let mut rest = query;
    while let Some((text, after)) = rest.split_once('%') {
        out.push_str(text);
        rest = after;
        let Some(digits) = after.as_bytes().get(..2) else {
            out.push('%');
            continue;
        };
        let Some(byte) = hex(digits) else { continue };
        if (byte.is_ascii_graphic() || byte == b' ') && !KEPT.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&after[..2]);
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(*digits.first()?)? * 16 + digit(*digits.get(1)?)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Envoy makes of them.
    #[test]
    fn escapes() {
        for (query, expected) in [
            ("", ""),
            ("a=1%202&b=x+y%zz%41%", "a=1%202&b=x+yzzA%"),
            ("a=%E2%82%AC&c=%00%ff", "a=%E2%82%AC&c=%00%ff"),
            ("a=b?c=%3Fd%26%7e%22%3c", "a=b?c=?d&~%22%3c"),
            ("%25%34%31", "%41"),
            ("%%41", "A"),
            ("%", "%"),
            ("%4", "%4"),
            ("%1%41", "1A"),
            ("%\u{e9}", "\u{e9}"),
        ] {
            assert_eq!(decode(query), expected, "{query}");
        }
    }
}
