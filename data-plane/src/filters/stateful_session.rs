//! `envoy.filters.http.stateful_session`: requests of a session go to the host that served it before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use sail_proxy_config::http_filter::stateful_session::{
    SessionState, StatefulSession, StatefulSessionPerRoute,
};
use sail_proxy_decide::route::cookie;
use sail_proxy_decide::route::hash::CookieHash;

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::head::Head;
use crate::stats::sets::http_stateful_session as stats;

/// Between the address and the upstream's own value, in an envelope.
const UPSTREAM_VALUE: &str = ";UV:";

/// What a cookie says, in Envoy's protobuf.
#[derive(Clone, PartialEq, Message)]
struct Session {
    #[prost(string, tag = "1")]
    address: String,
    /// In seconds since 1970; 0: never.
    #[prost(int64, tag = "2")]
    expires: i64,
}

/// What is kept until the response.
struct Kept {
    /// The route's, if it has one.
    of_route: Option<Arc<StatefulSessionPerRoute>>,
    address: Option<String>,
}

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<StatefulSession>,
    stats: Option<stats::Scope>,
}

impl Filter {
    pub(crate) fn new(config: &Arc<StatefulSession>, build: &Build<'_>) -> Self {
        let stats = config
            .stat_prefix
            .as_ref()
            .map(|prefix| build.store.scope(&format!("{}.stateful_session.{prefix}", build.prefix)));
        Self { config: config.clone(), stats }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let of_route = exchange.per_filter(name).and_then(|config| config.get::<StatefulSessionPerRoute>());
        let config = match of_route.as_deref() {
            Some(StatefulSessionPerRoute::Disabled) => return Flow::Continue,
            Some(StatefulSessionPerRoute::Session(session)) => session,
            None => &*self.config,
        };
        let Some(state) = &config.state else { return Flow::Continue };
        let address = match state {
            SessionState::Cookie(cookie) if !is_below(head.path.as_str(), &cookie.path) => {
                if let Some(stats) = self.stats.as_ref().filter(|_| of_route.is_none()) {
                    stats.inc(stats::no_session);
                }
                return Flow::Continue;
            }
            SessionState::Cookie(wanted) => cookie(&head.view(), &wanted.name).and_then(address),
            SessionState::Header(name) => head.headers.get(name).and_then(plain),
            SessionState::Envelope(name) => open(name, head),
        };
        if let Some(address) = &address {
            exchange.set_upstream_or(address.clone(), config.strict, config.status_on_not_found);
        }
        exchange.state().put(name, Kept { of_route, address });
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Kept { of_route, address } = exchange.state().take(name)?;
        let (config, stats) = match of_route.as_deref() {
            // What routes say is not counted, as in Envoy.
            Some(StatefulSessionPerRoute::Session(session)) => (session, None),
            _ => (&*self.config, self.stats.as_ref()),
        };
        let host = exchange
            .info
            .borrow()
            .upstream
            .as_ref()
            .and_then(|upstream| Some(upstream.host.as_ref()?.to_string()));
        let count = |counter| {
            if let Some(stats) = stats {
                stats.inc(counter);
            }
        };
        let Some(host) = host else {
            if address.is_some() && config.strict {
                count(stats::failed_closed);
            }
            return None;
        };
        let changed = address.as_ref().is_none_or(|address| *address != host);
        // A new session counts as one whose host is gone, as in Envoy.
        if !changed {
            count(stats::routed);
        } else if !config.strict {
            count(stats::failed_open);
        }
        tell(config, &host, changed, reply.response.headers_mut());
        None
    }
}

/// Tells the client which host served it, where it does not know.
fn tell(config: &StatefulSession, host: &str, changed: bool, headers: &mut HeaderMap) {
    match &config.state {
        Some(SessionState::Cookie(cookie)) if changed => {
            if let Ok(value) = HeaderValue::try_from(set_cookie(cookie, host, now())) {
                headers.append(SET_COOKIE, value);
            }
        }
        Some(SessionState::Header(name)) if changed => {
            if let Ok(value) = HeaderValue::try_from(STANDARD.encode(host)) {
                headers.insert(name, value);
            }
        }
        Some(SessionState::Envelope(name)) => close(name, host, headers),
        _ => {}
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whether a client sends a cookie of this path along.
fn is_below(path: &str, of_cookie: &str) -> bool {
    let Some(rest) = path.strip_prefix(of_cookie) else { return false };
    of_cookie.is_empty() || of_cookie.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?', '#'])
}

/// The address in a cookie's value, unless it ran out.
fn address(value: &str) -> Option<String> {
    address_at(value, now())
}

fn address_at(value: &str, now: Duration) -> Option<String> {
    let bytes = STANDARD.decode(value).ok()?;
    match Session::decode(&*bytes) {
        Ok(Session { address, expires }) => {
            let over = expires != 0 && u64::try_from(expires).is_ok_and(|at| now.as_secs() > at);
            (!address.is_empty() && !over).then_some(address)
        }
        // As Envoy wrote it before.
        Err(_) => String::from_utf8(bytes).ok(),
    }
}

fn set_cookie(cookie: &CookieHash, host: &str, now: Duration) -> String {
    let ttl = cookie.ttl.unwrap_or_default();
    let expires = if ttl.is_zero() {
        0
    } else {
        i64::try_from((now + Duration::from_secs(ttl.as_secs())).as_secs()).unwrap_or(0)
    };
    let session = Session { address: host.to_owned(), expires };
    cookie.header(&STANDARD.encode(session.encode_to_vec()), ttl)
}

fn plain(value: &HeaderValue) -> Option<String> {
    String::from_utf8(STANDARD.decode(value).ok()?).ok()
}

/// Takes the upstream's own value out of the envelope; gives the address.
fn open(name: &http::HeaderName, head: &mut Head) -> Option<String> {
    let value = head.headers.get(name)?.to_str().ok()?;
    let (address, own) = value.split_once(UPSTREAM_VALUE)?;
    let address = String::from_utf8(STANDARD.decode(address).ok()?).ok()?;
    let own = HeaderValue::from_bytes(&STANDARD.decode(own).ok()?).ok()?;
    head.headers.insert(name, own);
    Some(address)
}

/// Puts the host's address before the upstream's own value.
fn close(name: &http::HeaderName, host: &str, headers: &mut HeaderMap) {
    let mut all = headers.get_all(name).iter();
    let (Some(own), None) = (all.next(), all.next()) else { return };
    let value = format!("{}{UPSTREAM_VALUE}{}", STANDARD.encode(host), STANDARD.encode(own));
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_envoys() {
        let cookie = CookieHash {
            name: "s".into(),
            ttl: Some(Duration::from_secs(120)),
            path: "/p".into(),
            attributes: ["SameSite=None".into()].into(),
        };
        let now = Duration::from_secs(1_700_000_000);
        let header = set_cookie(&cookie, "127.0.0.1:80", now);
        let value = header.split('"').nth(1).unwrap();
        assert_eq!(header, format!("s=\"{value}\"; Max-Age=120; Path=/p; SameSite=None; HttpOnly"));
        assert_eq!(address_at(value, now).as_deref(), Some("127.0.0.1:80"));
        assert_eq!(address_at(value, now + Duration::from_secs(121)), None, "it ran out");
        assert_eq!(address_at(&STANDARD.encode("127.0.0.1:80"), now).as_deref(), Some("127.0.0.1:80"));
        assert_eq!(address_at("%%%", now), None);
    }

    #[test]
    fn cookies_have_paths() {
        let check = |path, of, expected| assert_eq!(is_below(path, of), expected, "{path} {of}");
        check("/x", "", true);
        check("/x", "/", true);
        check("/p?q", "/p", true);
        check("/p/x", "/p", true);
        check("/px", "/p", false);
        check("/px", "/p/", false);
    }
}
