//! The PROXY protocol's headers, both versions: read from a client, and written for an upstream. Pure: bytes in, bytes
//! out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_START: &[u8] = b"PROXY ";
/// The longest header of version 1, as its specification has it.
const V1_MAX: usize = 107;
/// No TLVs that anybody sends take more.
const V2_MAX: usize = 64 * 1024;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A TLV of version 2.
pub(crate) type Tlv = (u8, Bytes);

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: Version,
    /// How many bytes it takes.
    pub(crate) length: usize,
    /// Source and destination; `None`: the connection speaks for itself.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(crate) tlvs: Vec<Tlv>,
}

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It may become a header.
    NeedMore,
    /// It is none.
    Not,
    /// It is one.
    Header(Header),
    /// It begins as one of this version, and is broken.
    Broken(Version),
}

/// Reads a header off the first bytes.
pub(crate) fn parse(seen: &[u8]) -> Found {
    let begins = |start: &[u8]| seen.len() < start.len() && start.starts_with(seen);
    if seen.starts_with(SIGNATURE) {
        v2(seen)
    } else if seen.starts_with(V1_START) {
        v1(seen)
    } else if begins(SIGNATURE) || begins(V1_START) {
        Found::NeedMore
    } else {
        Found::Not
    }
}

fn v1(seen: &[u8]) -> Found {
    let window = &seen[..seen.len().min(V1_MAX)];
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        return if seen.len() < V1_MAX { Found::NeedMore } else { Found::Broken(Version::V1) };
    };
    let addresses = match std::str::from_utf8(&window[V1_START.len()..end]).ok().and_then(v1_addresses) {
        Some(addresses) => addresses,
        None => return Found::Broken(Version::V1),
    };
    Found::Header(Header { version: Version::V1, length: end + 2, addresses, tlvs: Vec::new() })
}

/// `TCP4 192.0.2.1 192.0.2.2 56324 443`; `None`: broken.
fn v1_addresses(text: &str) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let mut parts = text.split(' ');
    let family = parts.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let text = parts.next()?;
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    if parts.next().is_some() {
        return None;
    }
    Some(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))))
}

fn v2(seen: &[u8]) -> Found {
    let broken = Found::Broken(Version::V2);
    let Some([version_command, family, high, low]) =
        seen.get(12..16).and_then(|b| <[u8; 4]>::try_from(b).ok())
    else {
        return Found::NeedMore;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || version_command & 0xf > 1 || length > V2_MAX {
        return broken;
    }
    let Some(body) = seen.get(16..length) else { return Found::NeedMore };
    let local = version_command & 0xf == 0;
    let (addresses, rest) = match family {
        _ if local => (None, &[][..]),
        0x11 | 0x21 => match v2_addresses(family, body) {
            Some((addresses, rest)) => (Some(addresses), rest),
            None => return broken,
        },
        // Not said: there are no addresses to skip.
        0x00 => (None, body),
        // Datagrams, and sockets of the sender's host.
        _ => return broken,
    };
    match tlvs(rest) {
        Some(tlvs) => Found::Header(Header { version: Version::V2, length, addresses, tlvs }),
        None => broken,
    }
}

fn v2_addresses(family: u8, body: &[u8]) -> Option<((SocketAddr, SocketAddr), &[u8])> {
    let size = if family == 0x11 { 4 } else { 16 };
    let ip = |at: usize| -> Option<IpAddr> {
        let bytes = body.get(at..at + size)?;
        match size {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let port = |at: usize| body.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let source = SocketAddr::new(ip(0)?, port(2 * size)?);
    let destination = SocketAddr::new(ip(size)?, port(2 * size + 2)?);
    Some(((source, destination), body.get(2 * size + 4..)?))
}

fn tlvs(mut rest: &[u8]) -> Option<Vec<Tlv>> {
    let mut all = Vec::new();
    while let [kind, high, low, after @ ..] = rest {
        let (value, next) = after.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        all.push((*kind, Bytes::copy_from_slice(value)));
        rest = next;
    }
    rest.is_empty().then_some(all)
}

/// Writes a header; without addresses, one that says nothing of them.
pub(crate) fn write(version: Version, addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &[Tlv]) -> Vec<u8> {
    let addresses = addresses.map(|(source, destination)| alike(source, destination));
    match version {
        Version::V1 => match addresses {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    source.ip(),
                    destination.ip(),
                    source.port(),
                    destination.port()
                )
                .into_bytes()
            }
        },
        Version::V2 => write_v2(addresses, tlvs),
    }
}

fn write_v2(addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &[Tlv]) -> Vec<u8> {
    let mut body = Vec::new();
    let (command, family) = match addresses {
        None => (0x20, 0x00),
        Some((source, destination)) => {
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => body.extend(ip.octets()),
                    IpAddr::V6(ip) => body.extend(ip.octets()),
                }
            }
            body.extend(source.port().to_be_bytes());
            body.extend(destination.port().to_be_bytes());
            (0x21, if source.is_ipv4() { 0x11 } else { 0x21 })
        }
    };
    // A connection that speaks for itself has nothing more to say.
    for (kind, value) in tlvs.iter().filter(|_| addresses.is_some()) {
        // What does not fit the header's length is left out as a whole.
        let Ok(length) = u16::try_from(value.len()) else { continue };
        if body.len() + 3 + value.len() > usize::from(u16::MAX) {
            continue;
        }
        body.push(*kind);
        body.extend(length.to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut header = SIGNATURE.to_vec();
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

/// Both addresses in one family: IPv6, if they differ.
fn alike(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (v6(source), v6(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn what_is_written_is_read() {
        let tlvs = vec![(0xEA, Bytes::from_static(b"vpce-1")), (1, Bytes::new())];
        for version in [Version::V1, Version::V2] {
            for addresses in [
                None,
                addresses("192.0.2.1:56324", "198.51.100.2:443"),
                addresses("[2001:db8::1]:1", "[2001:db8::2]:65535"),
                addresses("192.0.2.1:1", "[2001:db8::2]:2"),
            ] {
                let bytes = write(version, addresses, &tlvs);
                for end in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..end]), Found::NeedMore, "{version:?} after {end} bytes");
                }
                let more = [&bytes[..], b"GET /"].concat();
                let Found::Header(header) = parse(&more) else { panic!("{version:?} {addresses:?}") };
                assert_eq!((header.version, header.length), (version, bytes.len()));
                assert_eq!(
                    header.addresses,
                    addresses.map(|(source, destination)| alike(source, destination))
                );
                let carries = version == Version::V2 && addresses.is_some();
                let expect = if carries { tlvs.clone() } else { Vec::new() };
                assert_eq!(header.tlvs, expect);
            }
        }
    }

    #[test]
    fn what_is_broken_is_refused() {
        let v1 = |text: &str| parse(text.as_bytes());
        assert_eq!(v1("GET / HTTP/1.1\r\n"), Found::Not);
        assert_eq!(v1("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), Found::Broken(Version::V1));
        assert_eq!(v1("PROXY TCP4 ::1 ::1 1 2\r\n"), Found::Broken(Version::V1));
        assert_eq!(v1("PROXY TCP4 1.2.3.4 5.6.7.8 1 66000\r\n"), Found::Broken(Version::V1));
        assert_eq!(v1(&format!("PROXY {}", "x".repeat(200))), Found::Broken(Version::V1));
        let mut v2 =
            write(Version::V2, addresses("192.0.2.1:1", "192.0.2.2:2"), &[(1, Bytes::from_static(b"ab"))]);
        v2[13] = 0x12;
        assert_eq!(parse(&v2), Found::Broken(Version::V2), "datagrams");
        v2[13] = 0x11;
        v2[16 + 12 + 2] = 9;
        assert_eq!(parse(&v2), Found::Broken(Version::V2), "a TLV beyond the end");
    }
}
