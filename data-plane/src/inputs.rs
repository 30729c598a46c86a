//! Properties of what reads a client's bytes in this crate, for tests and fuzzers alone: `e2e/fuzz` runs them. Each takes
//! any bytes and panics if its property does not hold.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;

use crate::http::head::{Head, Keep};
use crate::http::path::{self, EscapedSlashes, Outcome, Rules};
use crate::http::{forwarded, hop};
use crate::inspect::{self, Finding};
use crate::net::proxy_protocol::{self, Found};
use crate::{http1, http2};

/// An inspector says the same of the whole as of the part that was enough for it.
fn settles<T: PartialEq + std::fmt::Debug>(data: &[u8], inspect: impl Fn(&[u8]) -> Finding<T>) {
    let whole = inspect(data);
    let enough = (0..=data.len()).find(|&end| inspect(&data[..end]) != Finding::NeedMore);
    let settled = enough.map_or(Finding::NeedMore, |end| inspect(&data[..end]));
    assert_eq!(whole, settled, "more bytes changed the finding after {enough:?}");
}

/// As many bytes as are tried at each length.
const PREFIXES: usize = 512;

/// TLS's first flight.
pub fn client_hello(data: &[u8]) {
    let asked = |max| inspect::tls::Asked { max, ja3: true, ja4: true };
    settles(&data[..data.len().min(PREFIXES)], |seen| inspect::tls::inspect(seen, asked(16 * 1024)));
    let _ = inspect::tls::inspect(data, asked(64));
}

/// HTTP's first line.
pub fn http_inspector(data: &[u8]) {
    settles(&data[..data.len().min(PREFIXES)], inspect::http::inspect);
}

/// A PROXY protocol header: it ends within the bytes, no part of it is enough, and written again it says the same.
pub fn proxy_protocol(data: &[u8]) {
    let Found::Header(header) = proxy_protocol::parse(data) else { return };
    assert!(header.length <= data.len(), "{} of {}", header.length, data.len());
    for end in 0..header.length.min(PREFIXES) {
        assert_eq!(proxy_protocol::parse(&data[..end]), Found::NeedMore, "after {end} bytes");
    }
    let written = proxy_protocol::write(header.version, header.addresses, &header.tlvs);
    let Found::Header(again) = proxy_protocol::parse(&written) else {
        panic!("{header:?} is not read again")
    };
    assert_eq!((again.version, again.addresses), (header.version, header.addresses));
    if header.addresses.is_some() {
        assert_eq!(again.tlvs, header.tlvs);
    }
}

/// An address in a header is that address when it is written.
pub fn forwarded(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let name = HeaderName::from_static("x-client");
    let mut headers = HeaderMap::new();
    headers.insert(name.clone(), value);
    if let Some(address) = forwarded::address_in(&headers, &name) {
        let written = HeaderValue::try_from(address.to_string()).expect("an address is a header's value");
        headers.insert(name.clone(), written);
        assert_eq!(forwarded::address_in(&headers, &name), Some(address));
    }
}

const STRICT: Rules =
    Rules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::Forward };

/// A path in its one form stays as it is, and has nothing in it that another reader would resolve.
pub fn path(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    for escaped_slashes in [EscapedSlashes::Keep, EscapedSlashes::Reject, EscapedSlashes::Forward] {
        for (normalize, merge_slashes) in [(true, true), (true, false), (false, true)] {
            let rules = Rules { normalize, merge_slashes, escaped_slashes };
            if let Outcome::Path(path) = path::normalize(target, rules) {
                let again = path::normalize(&path, rules);
                assert_eq!(again, Outcome::Path(path.clone()), "{target:?} by {rules:?}");
            }
        }
    }
    if let Outcome::Path(path) = path::normalize(target, STRICT) {
        has_one_reading(target, path.split('?').next().unwrap_or_default());
    }
}

fn has_one_reading(target: &str, path: &str) {
    let Some(path) = path.strip_prefix('/') else { panic!("{target:?} went on as {path:?}") };
    let segments: Vec<Vec<u8>> =
        path.split('/').map(|segment| percent_decode_str(segment).collect()).collect();
    for (number, segment) in segments.iter().enumerate() {
        let resolved = matches!(segment.as_slice(), b"." | b"..");
        let divided = segment.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
        let empty = segment.is_empty() && number + 1 < segments.len();
        assert!(!resolved && !divided && !empty, "{target:?} went on as {path:?}");
    }
}

/// A request's head as HTTP/1 brings it: what policies see of its path and host is what goes upstream, and nothing goes
/// there that would end a line or speak of the connection.
pub fn http1_head(data: &[u8]) {
    let Some(request) = http1::probe::requests::first(data) else { return };
    let (parts, ()) = request.into_parts();
    let Ok((mut head, _)) = Head::new(parts, false) else { return };
    match path::normalize(head.path.as_str(), STRICT) {
        Outcome::Path(path) => match path.as_ref().try_into() {
            Ok(path) => head.path = path,
            Err(_) => return,
        },
        Outcome::Redirect(_) | Outcome::Reject => return,
    }
    hop::strip_request(&mut head.headers, head.present);
    let (seen_path, seen_host) = (head.path.as_str().to_owned(), head.authority().to_owned());
    assert_eq!(head.view().path, seen_path);
    if let Some(parts) = head.http2_parts(Keep::Headers) {
        assert_eq!(parts.uri.path_and_query().map_or("", |path| path.as_str()), seen_path);
        assert_eq!(parts.uri.authority().map_or("", |authority| authority.as_str()), seen_host);
    }
    // A CONNECT names no path, but whom it wants to reach (RFC 9112 §3.2.3).
    let target = if head.is_connect() { &seen_host } else { &seen_path };
    let parts = head.http1_parts(Keep::Nothing);
    assert_eq!(parts.uri.to_string(), *target);
    let hosts: Vec<_> = parts.headers.get_all(header::HOST).iter().collect();
    assert!(
        hosts.len() <= 1 && hosts.iter().all(|host| host.as_bytes() == seen_host.as_bytes()),
        "{hosts:?}"
    );
    assert!(!target.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "{target:?} is not one word");
    for (name, value) in &parts.headers {
        let broken = value.as_bytes().iter().any(|&byte| matches!(byte, b'\r' | b'\n' | 0));
        assert!(!broken, "{name}: {value:?}");
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        assert!(!parts.headers.contains_key(&name), "{name} went on");
    }
}

/// A client's requests over HTTP/1: the same ones however they are cut into pieces, whose size the first byte says.
pub fn http1_requests(data: &[u8]) {
    let Some((&size, requests)) = data.split_first() else { return };
    http1::probe::requests::check(requests, usize::from(size));
}

/// A client's frames: the same requests and answers however they are cut into pieces, whose size the first byte says.
pub fn http2_client(data: &[u8]) {
    let Some((&size, frames)) = data.split_first() else { return };
    http2::probe::clients(frames, usize::from(size));
}

/// An upstream's frames: the same holds of them.
pub fn http2_upstream(data: &[u8]) {
    let Some((&size, frames)) = data.split_first() else { return };
    http2::probe::upstreams(frames, usize::from(size));
}

/// An upstream's answer over HTTP/1: the same outcome however it is cut into pieces, whose size the first byte says.
pub fn http1_response(data: &[u8]) {
    let Some((&size, answer)) = data.split_first() else { return };
    http1::probe::check(answer, usize::from(size));
}
