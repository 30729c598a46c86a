//! Distinguished names as text, as RFC 2253 writes them and Envoy tells them: the last part first, nothing between them
//! but commas.

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::X509Name;
use x509_parser::x509::AttributeTypeAndValue;

/// A name as text.
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(one: &AttributeTypeAndValue<'_>) -> String {
    let kind = oid2abbrev(one.attr_type(), oid_registry())
        .map_or_else(|_| one.attr_type().to_id_string(), str::to_owned);
    let value = one.as_str().map_or_else(|_| hex_of(one.as_slice()), escaped);
    format!("{kind}={value}")
}

fn hex_of(bytes: &[u8]) -> String {
    format!("#{}", hex::encode_upper(bytes))
}

/// A value with what has a meaning of its own set off, and everything beyond ASCII in hexadecimal.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..0x7f => out.push(char::from(byte)),
            other => out.push_str(&format!("\\{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a,b+c"), "a\\,b\\+c");
        assert_eq!(escaped(" #x "), "\\ #x\\ ");
        assert_eq!(escaped("#é"), "\\#\\C3\\A9");
    }

    #[test]
    fn names_begin_with_their_end() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Org, One");
        params.distinguished_name.push(DnType::CommonName, "cli");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(text(parsed.subject()), "CN=cli,O=Org\\, One,C=DE");
    }
}
