//! Query parameters that are no fields, as `UnknownQueryParams` in the extensions of a body's message.

use std::collections::BTreeMap;

const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.UnknownQueryParams";

/// The extensions: type URLs and encoded messages.
pub(super) fn extensions(parameters: &BTreeMap<String, Vec<String>>) -> Option<(&'static str, Vec<u8>)> {
    if parameters.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    for (name, values) in parameters {
        let mut list = Vec::new();
        values.iter().for_each(|value| put(&mut list, 1, value.as_bytes()));
        let mut entry = Vec::new();
        put(&mut entry, 1, name.as_bytes());
        put(&mut entry, 2, &list);
        put(&mut out, 1, &entry);
    }
    Some((TYPE_URL, out))
}

/// A field of so many bytes, as messages have it.
fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        let long = "x".repeat(200);
        let (_, bytes) = extensions(&BTreeMap::from([("a".to_owned(), vec![long, "b".to_owned()])])).unwrap();
        assert_eq!(bytes[..11], [0x0a, 0xd4, 0x01, 0x0a, 1, b'a', 0x12, 0xce, 0x01, 0x0a, 0xc8]);
        assert_eq!(bytes[bytes.len() - 3..], [0x0a, 1, b'b']);
    }
}
