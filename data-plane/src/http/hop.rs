//! Headers that speak of one connection and must not cross to the next.

use http::HeaderMap;
use http::header::{CONNECTION, EXPECT, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};

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
    if present.hop {
        strip(headers);
    }
    if wants_trailers {
        headers.insert(TE, http::HeaderValue::from_static("trailers"));
    } else if present.te {
        headers.remove(TE);
    }
    if present.expect {
        // The codec answers it when the body is asked for; another expectation is the upstream's to judge.
        if headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            headers.remove(EXPECT);
        }
    }
}

/// Whether an HTTP/1.0 client wants to keep its connection.
pub(crate) fn keeps_alive(headers: &HeaderMap) -> bool {
    names(headers, "keep-alive")
}

/// Whether `connection` names something.
fn names(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(name)))
    })
}

/// Whether a message is the last on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// Strips a response.
pub(crate) fn strip_response(headers: &mut HeaderMap) -> Last {
    if !Present::of(headers).hop {
        return Last::No;
    }
    let last = if names(headers, "close") { Last::Yes } else { Last::No };
    strip(headers);
    last
}

/// What an upgrade asks to become.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    if !names(headers, "upgrade") {
        return None;
    }
    headers.get(UPGRADE)?.to_str().ok().map(ToOwned::to_owned)
}

fn strip(headers: &mut HeaderMap) {
    if let Some(connection) = headers.remove(CONNECTION)
        && let Ok(text) = connection.to_str()
    {
        for name in text.split(',').map(str::trim) {
            let kept = ["close", "keep-alive", "upgrade", "te", "host", "http2-settings"];
            if !name.is_empty() && !kept.iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
                headers.remove(name);
            }
        }
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
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
    fn upgrades_need_both_headers() {
        assert_eq!(upgrade_of(&headers(&[("upgrade", "websocket")])), None);
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade_of(&both).as_deref(), Some("WebSocket"));
    }
}
