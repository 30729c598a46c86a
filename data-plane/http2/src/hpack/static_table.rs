//! The static table (RFC 7541, Appendix A), and the way from a name to its index.

use http::HeaderName;

use super::Pseudo;
use super::entry::Entry;
use super::hash::{SEED, hash};

/// How many entries there are: the dynamic table's indices start behind them.
pub(super) const LEN: usize = 61;
/// How many of them are pseudo-headers, which come first.
const PSEUDO: usize = 14;

/// Indices of names that the encoder treats by themselves.
pub(super) const AUTHORIZATION: usize = 23;
pub(super) const COOKIE: usize = 32;
pub(super) const PROXY_AUTHORIZATION: usize = 49;
pub(super) const SET_COOKIE: usize = 55;

/// The entry of an index, from 1.
#[inline]
pub(super) fn get(index: usize) -> Option<&'static Entry> {
    ENTRIES.get(index.wrapping_sub(1))
}

/// The index of a pseudo-header with this value, if there is one.
pub(super) fn pseudo_field(pseudo: Pseudo, value: &[u8]) -> Option<usize> {
    match (pseudo, value) {
        (Pseudo::Method, b"GET") => Some(2),
        (Pseudo::Method, b"POST") => Some(3),
        (Pseudo::Path, b"/") => Some(4),
        (Pseudo::Path, b"/index.html") => Some(5),
        (Pseudo::Scheme, b"http") => Some(6),
        (Pseudo::Scheme, b"https") => Some(7),
        (Pseudo::Status, b"200") => Some(8),
        (Pseudo::Status, b"204") => Some(9),
        (Pseudo::Status, b"206") => Some(10),
        (Pseudo::Status, b"304") => Some(11),
        (Pseudo::Status, b"400") => Some(12),
        (Pseudo::Status, b"404") => Some(13),
        (Pseudo::Status, b"500") => Some(14),
        (Pseudo::Authority, b"") => Some(1),
        _ => None,
    }
}

/// The first index with the name of a pseudo-header.
pub(super) fn pseudo_name(pseudo: Pseudo) -> Option<usize> {
    match pseudo {
        Pseudo::Authority => Some(1),
        Pseudo::Method => Some(2),
        Pseudo::Path => Some(4),
        Pseudo::Scheme => Some(6),
        Pseudo::Status => Some(8),
        Pseudo::Protocol => None,
    }
}

/// The index with the name of a header, whose hash is `hash`.
#[inline]
pub(super) fn header_name(name: &HeaderName, hash: u64) -> Option<usize> {
    let index = usize::from(SLOTS[slot(hash)]);
    get(index)?.has_name(name).then_some(index)
}

/// Whether the entry of `index` has this value.
pub(super) fn has_value(index: usize, value: &[u8]) -> bool {
    get(index).is_some_and(|entry| entry.has_value(value))
}

const fn slot(hash: u64) -> usize {
    (hash % SLOTS_LEN as u64) as usize
}

const SLOTS_LEN: usize = 256;

/// Indices by the hash of the name; 0 where there is none. No name shares its slot.
static SLOTS: [u8; SLOTS_LEN] = {
    let mut slots = [0; SLOTS_LEN];
    let mut next = 0;
    while next < NAMES.len() {
        let slot = slot(hash(SEED, NAMES[next].as_bytes()));
        assert!(slots[slot] == 0, "hash::SEED does not separate the names");
        next += 1;
        slots[slot] = (PSEUDO + next) as u8;
    }
    slots
};

/// The entries, and the names of those behind the pseudo-headers for what is computed before the program runs.
macro_rules! entries {
    ($($pseudo:ident $pseudo_value:literal)* ; $($name:literal $value:literal)*) => {
        static ENTRIES: [Entry; LEN] = [
            $(Entry::pseudo(Pseudo::$pseudo, $pseudo_value),)*
            $(Entry::header($name, $value),)*
        ];
        const NAMES: [&str; LEN - PSEUDO] = [$($name),*];
    };
}

entries! {
    Authority ""
    Method "GET"
    Method "POST"
    Path "/"
    Path "/index.html"
    Scheme "http"
    Scheme "https"
    Status "200"
    Status "204"
    Status "206"
    Status "304"
    Status "400"
    Status "404"
    Status "500"
    ;
    "accept-charset" ""
    "accept-encoding" "gzip, deflate"
    "accept-language" ""
    "accept-ranges" ""
    "accept" ""
    "access-control-allow-origin" ""
    "age" ""
    "allow" ""
    "authorization" ""
    "cache-control" ""
    "content-disposition" ""
    "content-encoding" ""
    "content-language" ""
    "content-length" ""
    "content-location" ""
    "content-range" ""
    "content-type" ""
    "cookie" ""
    "date" ""
    "etag" ""
    "expect" ""
    "expires" ""
    "from" ""
    "host" ""
    "if-match" ""
    "if-modified-since" ""
    "if-none-match" ""
    "if-range" ""
    "if-unmodified-since" ""
    "last-modified" ""
    "link" ""
    "location" ""
    "max-forwards" ""
    "proxy-authenticate" ""
    "proxy-authorization" ""
    "range" ""
    "referer" ""
    "refresh" ""
    "retry-after" ""
    "server" ""
    "set-cookie" ""
    "strict-transport-security" ""
    "transfer-encoding" ""
    "user-agent" ""
    "vary" ""
    "via" ""
    "www-authenticate" ""
}
