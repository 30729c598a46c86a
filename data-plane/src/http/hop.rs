//! Headers that speak of one connection and must not cross to the next.

use http::header::{CONNECTION, Entry, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::scan::Present;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Strips a request; an upgrade's own headers are put back by whoever forwards the upgrade.
pub(crate) fn strip_request(headers: &mut HeaderMap, present: Present) {
    let wants_trailers = present.te
        && headers.get_all(TE).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
        });
    strip(headers, present);
    if wants_trailers {
        headers.insert(TE, http::HeaderValue::from_static("trailers"));
    } else if present.te {
        headers.remove(TE);
    }
}

/// Whether `connection` names something.
fn names(headers: &HeaderMap, name: &str) -> bool {
    let has =
        |value: &HeaderValue| value.as_bytes().split(|&byte| byte == b',').any(|part| is_name(part, name));
    headers.get_all(CONNECTION).iter().any(has)
}

fn is_name(part: &[u8], name: &str) -> bool {
    part.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
}

/// Whether a message is the last on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// Strips a response.
pub(crate) fn strip_response(headers: &mut HeaderMap) -> Last {
    strip(headers, Present::of(headers))
}

/// What an upgrade asks to become.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    if !names(headers, "upgrade") {
        return None;
    }
    headers.get(UPGRADE)?.to_str().ok().map(ToOwned::to_owned)
}

fn strip(headers: &mut HeaderMap, present: Present) -> Last {
    let mut last = Last::No;
    if present.connection {
        let values = match headers.entry(CONNECTION) {
            Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
            Entry::Vacant(_) => SmallVec::<[HeaderValue; 1]>::new(),
        };
        for value in values {
            // What most say.
            if value != "keep-alive" && strip_named(headers, value.as_bytes()) == Last::Yes {
                last = Last::Yes;
            }
        }
    }
    if present.transfer_encoding {
        headers.remove(TRANSFER_ENCODING);
    }
    if present.upgrade {
        headers.remove(UPGRADE);
    }
    if present.keep_alive {
        headers.remove(KEEP_ALIVE);
    }
    if present.proxy_connection {
        headers.remove(PROXY_CONNECTION);
    }
    last
}

/// Strips what a `connection` header names, and says whether it names `close`.
fn strip_named(headers: &mut HeaderMap, names: &[u8]) -> Last {
    let mut last = Last::No;
    for name in names.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        let kept = ["keep-alive", "upgrade", "te", "host"];
        if is_name(name, "close") {
            last = Last::Yes;
        } else if !kept.iter().any(|kept| is_name(name, kept))
            && let Ok(name) = HeaderName::from_bytes(name)
        {
            headers.remove(name);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_connection_names_goes_too() {
        let mut map =
            headers(&[("connection", "keep-alive, x-secret"), ("x-secret", "1"), ("te", "gzip, trailers")]);
        let present = Present::of(&map);
        strip_request(&mut map, present);
        assert_eq!(map, headers(&[("te", "trailers")]));
    }

    #[test]
    fn a_response_says_whether_it_is_the_last() {
        let last = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(*name, http::HeaderValue::from_static(value));
            }
            let last = strip_response(&mut map);
            (last, map)
        };
        assert_eq!(last(&[("connection", "keep-alive"), ("a", "1")]), (Last::No, headers(&[("a", "1")])));
        let twice = [("connection", "keep-alive"), ("connection", "a, Close"), ("a", "1"), ("upgrade", "x")];
        assert_eq!(last(&twice), (Last::Yes, HeaderMap::new()));
    }

    #[test]
    fn upgrades_need_both_headers() {
        assert_eq!(upgrade_of(&headers(&[("upgrade", "websocket")])), None);
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade_of(&both).as_deref(), Some("WebSocket"));
    }
}
