//! Reads server name and application protocols from a TLS client's first message, without answering it.

use super::Finding;
use super::fingerprint::{self, Seen};

/// What a client says in its first message, as far as filter chains match on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Lower-cased.
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<String>,
    pub(crate) fingerprints: Fingerprints,
    /// It cannot be read: the handshake will refuse it.
    pub(crate) broken: bool,
}

/// What the message says of the client's maker, as far as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprints {
    pub(crate) ja3: Option<Box<str>>,
    pub(crate) ja4: Option<Box<str>>,
}

/// What is asked of a first message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// It may have so many bytes.
    pub(crate) max: usize,
    pub(crate) ja3: bool,
    pub(crate) ja4: bool,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Whether the bytes begin a TLS connection, and what its client says.
pub(crate) fn inspect(seen: &[u8], asked: Asked) -> Finding<Hello> {
    match hello_bytes(seen, asked.max) {
        Finding::NeedMore => Finding::NeedMore,
        Finding::Not => Finding::Not,
        // A client that says TLS and then garbage is TLS: the handshake will refuse it with an alert.
        Finding::Found(message) => {
            let mut hello = parse(&message).unwrap_or(Hello { broken: true, ..Hello::default() });
            if !hello.broken && (asked.ja3 || asked.ja4) {
                hello.fingerprints = fingerprints(&message, asked);
            }
            Finding::Found(hello)
        }
    }
}

/// The handshake message, put together from its records.
fn hello_bytes(mut seen: &[u8], max: usize) -> Finding<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        match *seen {
            [] => return Finding::NeedMore,
            [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => {
                return Finding::NeedMore;
            }
            [HANDSHAKE, 3, _, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length == 0 {
                    return Finding::Not;
                }
                let take = length.min(rest.len());
                message.extend_from_slice(&rest[..take]);
                if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
                    return Finding::Not;
                }
                if let [_, a, b, c, body @ ..] = &message[..] {
                    let expected = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                    if expected > max {
                        return Finding::Not;
                    }
                    if body.len() >= expected {
                        return Finding::Found(body[..expected].to_vec());
                    }
                }
                if take < length {
                    return Finding::NeedMore;
                }
                seen = &rest[length..];
            }
            _ => return Finding::Not,
        }
    }
}

fn parse(body: &[u8]) -> Option<Hello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?; // version, random
    reader.sized8()?; // session
    reader.sized16()?; // cipher suites
    reader.sized8()?; // compression
    let mut extensions = Reader(reader.sized16()?);
    let mut hello = Hello::default();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = Reader(extensions.sized16()?);
        match kind {
            fingerprint::SERVER_NAME => {
                let mut names = Reader(data.sized16()?);
                while !names.0.is_empty() {
                    let kind = names.take(1)?;
                    let name = names.sized16()?;
                    if kind == [0] {
                        hello.server_name = std::str::from_utf8(name).ok().map(str::to_ascii_lowercase);
                        break;
                    }
                }
            }
            fingerprint::ALPN => {
                let mut protocols = Reader(data.sized16()?);
                while !protocols.0.is_empty() {
                    hello.alpn.push(String::from_utf8_lossy(protocols.sized8()?).into_owned());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

fn fingerprints(body: &[u8], asked: Asked) -> Fingerprints {
    let Some(seen) = look_closer(body) else { return Fingerprints::default() };
    Fingerprints { ja3: asked.ja3.then(|| seen.ja3().into()), ja4: asked.ja4.then(|| seen.ja4().into()) }
}

/// Reads what fingerprints are made of.
fn look_closer(body: &[u8]) -> Option<Seen> {
    let mut reader = Reader(body);
    let mut seen = Seen { version: reader.u16()?, ..Seen::default() };
    reader.take(32)?;
    reader.sized8()?;
    seen.ciphers = Reader(reader.sized16()?).plain();
    reader.sized8()?;
    let mut extensions = Reader(reader.sized16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = Reader(extensions.sized16()?);
        if !fingerprint::is_grease(kind) {
            seen.extensions.push(kind);
        }
        match kind {
            fingerprint::GROUPS => seen.groups = Reader(data.sized16()?).plain(),
            fingerprint::SIGNATURES => seen.signatures = Reader(data.sized16()?).plain(),
            fingerprint::VERSIONS => seen.versions = Reader(data.sized8()?).plain(),
            fingerprint::POINT_FORMATS => seen.point_formats = data.sized8()?.to_vec(),
            fingerprint::ALPN => {
                let mut protocols = Reader(data.sized16()?);
                seen.alpn = protocols.sized8().map(<[u8]>::to_vec);
            }
            _ => {}
        }
    }
    Some(seen)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// All the numbers that are left, but for those of GREASE.
    fn plain(mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.u16()).filter(|value| !fingerprint::is_grease(*value)).collect()
    }

    fn sized8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn sized16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const ASKED: Asked = Asked { max: 16 * 1024, ja3: true, ja4: true };

    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn finds_name_and_protocols_and_waits_for_the_whole() {
        let bytes = hello("Reviews.Example.com", &["istio-peer-exchange", "istio"]);
        for end in 0..bytes.len() {
            assert_eq!(inspect(&bytes[..end], ASKED), Finding::NeedMore, "after {end} bytes");
        }
        let Finding::Found(found) = inspect(&bytes, ASKED) else { panic!("not found") };
        assert_eq!(found.server_name.as_deref(), Some("reviews.example.com"));
        assert_eq!(found.alpn, ["istio-peer-exchange", "istio"]);
        assert_eq!(found.fingerprints.ja3.map(|text| text.len()), Some(32));
        let ja4 = found.fingerprints.ja4.unwrap();
        assert!(ja4.starts_with("t13d") && ja4[8..].starts_with("ie_"), "{ja4}");
    }

    #[test]
    fn plain_text_is_not_tls() {
        assert_eq!(inspect(b"GET / HTTP/1.1\r\n", ASKED), Finding::Not);
        assert_eq!(inspect(b"\x16\x03\x01\x00\x05\x02", ASKED), Finding::Not);
    }
}
