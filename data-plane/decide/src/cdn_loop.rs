//! The `CDN-Loop` header (RFC 8586).

/// The header is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid CDN-Loop header.")]
pub struct Invalid;

/// How often a CDN's id stands in the header.
pub fn count(header: &str, id: &str) -> Result<usize, Invalid> {
    let mut found = 0;
    for entry in split(header, ',')? {
        let mut parts = split(entry, ';')?.into_iter().map(str::trim);
        let name = parts.next().unwrap_or_default();
        if name.is_empty() {
            // Lists may have empty elements.
            if parts.next().is_some() {
                return Err(Invalid);
            }
            continue;
        }
        if !is_id(name) || !parts.all(is_parameter) {
            return Err(Invalid);
        }
        found += usize::from(name == id);
    }
    Ok(found)
}

/// A host name, an address, or a word.
fn is_id(name: &str) -> bool {
    name.bytes().all(|byte| is_token(byte) || matches!(byte, b':' | b'[' | b']' | b'@' | b'(' | b')'))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_parameter(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else { return false };
    let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let filled = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    filled(name) && (quoted || filled(value))
}

/// Splits outside of quoted strings.
fn split(text: &str, at: char) -> Result<Vec<&str>, Invalid> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(Invalid);
    }
    parts.push(&text[start..]);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted() {
        assert_eq!(count("cdn", "cdn"), Ok(1));
        assert_eq!(count("a, cdn; v=1; k=\"x, cdn; \\\" y\",cdn,,b:80", "cdn"), Ok(2));
        assert_eq!(count("", "cdn"), Ok(0));
        assert_eq!(count("a b", "cdn"), Err(Invalid));
        assert_eq!(count("a; v", "cdn"), Err(Invalid));
        assert_eq!(count("a; v=\"", "cdn"), Err(Invalid));
    }
}
