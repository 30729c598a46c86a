//! What stands in a request's head and the HTTP/1 codec does not tell: a fragment behind the path, and a length beside
//! chunks. It drops both, which is safe; Envoy refuses such requests.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;

const FRAGMENT: u8 = 1;
const CHUNKED_LENGTH: u8 = 2;

/// Of the head that is being read. Bytes are looked at as they come, so that what is split between two packets goes
/// unseen, and is dropped.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    seen: AtomicU8,
    fragment: Mutex<Vec<u8>>,
}

impl Untold {
    /// Looks at bytes that begin or continue a head.
    pub(super) fn look(&self, bytes: &[u8]) {
        let line = memchr::memchr(b'\n', bytes).map_or(bytes, |end| &bytes[..end]);
        if let Some(at) = memchr::memchr(b'#', line) {
            let rest = &line[at..];
            let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            // Elsewhere than in a target it means nothing: there is a version behind a target.
            if rest[end..].starts_with(b" HTTP/") {
                self.fragment.lock().splice(.., rest[..end].iter().copied());
                self.seen.fetch_or(FRAGMENT, Relaxed);
            }
        }
        // Most requests without a body have one of these methods.
        let bodiless = matches!(bytes.first(), Some(b'G' | b'H' | b'O'));
        if !bodiless && has_both(bytes) {
            self.seen.fetch_or(CHUNKED_LENGTH, Relaxed);
        }
    }

    /// The fragment behind the path, if there is one; it is told once.
    pub(super) fn take_fragment(&self) -> Option<Vec<u8>> {
        let seen = self.seen.load(Relaxed) & FRAGMENT != 0;
        seen.then(|| {
            self.seen.fetch_and(!FRAGMENT, Relaxed);
            std::mem::take(&mut *self.fragment.lock())
        })
    }

    /// Whether a length stands beside chunks; it is told once.
    pub(super) fn take_chunked_length(&self) -> bool {
        let seen = self.seen.load(Relaxed) & CHUNKED_LENGTH != 0;
        if seen {
            self.seen.fetch_and(!CHUNKED_LENGTH, Relaxed);
        }
        seen
    }
}

/// Whether a head has both headers.
fn has_both(head: &[u8]) -> bool {
    let (mut length, mut coding) = (false, false);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let is = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        match line.first() {
            None | Some(b'\r') => break,
            Some(b'c' | b'C') => length |= is(b"content-length:"),
            Some(b't' | b'T') => coding |= is(b"transfer-encoding:"),
            _ => {}
        }
    }
    length && coding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_once() {
        let untold = Untold::default();
        untold.look(b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(untold.take_fragment().as_deref(), Some(&b"#b"[..]));
        assert_eq!(untold.take_fragment(), None);
        untold.look(b"POST / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(untold.take_chunked_length());
        assert!(!untold.take_chunked_length());
    }

    #[test]
    fn what_is_elsewhere_is_not() {
        let untold = Untold::default();
        untold.look(b"POST /a HTTP/1.1\r\ncontent-length: 1\r\n\r\ntransfer-encoding: #\n");
        assert!(!untold.take_chunked_length());
        assert_eq!(untold.take_fragment(), None);
    }
}
