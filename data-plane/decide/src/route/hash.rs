//! What load balancers hash.

use std::time::Duration;

use http::HeaderName;
use xxhash_rust::xxh64::xxh64;

use super::cookie;
use crate::head::RequestHead;
use crate::matcher::{RegexRewrite, query_value};

/// `HashPolicy`
#[derive(Debug)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Whether nothing more is hashed once this gave a value.
    pub terminal: bool,
}

/// What a hash policy hashes.
#[derive(Debug)]
pub enum HashSource {
    /// A header, perhaps rewritten first.
    Header(HeaderName, Option<RegexRewrite>),
    /// A cookie; made up and set if it is absent and has a lifetime.
    Cookie(CookieHash),
    /// The client's IP address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Box<str>),
    /// A filter state object.
    FilterState(Box<str>),
}

/// A cookie to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieHash {
    /// Its name.
    pub name: Box<str>,
    /// The lifetime of one that is made up; zero: the session's. `None`: none is made up.
    pub ttl: Option<Duration>,
    /// Its path.
    pub path: Box<str>,
    /// Further attributes, as `Name=Value` or `Name`.
    pub attributes: Box<[Box<str>]>,
}

/// A hash, and a cookie that the response must set for the next request to hash the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The hash; `None`: no policy gave one.
    pub hash: Option<u64>,
    /// A `set-cookie` value.
    pub set_cookie: Option<String>,
}

/// What hashing needs besides the head.
#[derive(Clone, Copy, Debug)]
pub struct HashContext<'a> {
    /// The client's IP address, without port.
    pub source_ip: Option<std::net::IpAddr>,
    /// Randomness for a cookie that is made up.
    pub random: u64,
    /// Filter state by key.
    pub filter_state: &'a [(Box<str>, Box<str>)],
}

/// The hash of a request under a route's policies.
pub fn hash(policies: &[HashPolicy], head: &RequestHead<'_>, context: &HashContext<'_>) -> Hashed {
    let mut result = Hashed::default();
    for policy in policies {
        if let Some(value) = policy.source.value(head, context, &mut result.set_cookie) {
            // The old hash is rotated, so that the order of policies matters.
            result.hash = Some(result.hash.map_or(0, |old| old.rotate_left(1)) ^ value);
        }
        if policy.terminal && result.hash.is_some() {
            break;
        }
    }
    result
}

impl HashSource {
    fn value(
        &self,
        head: &RequestHead<'_>,
        context: &HashContext<'_>,
        set_cookie: &mut Option<String>,
    ) -> Option<u64> {
        match self {
            Self::Header(name, rewrite) => {
                // Sorted, so that the order of lines does not matter.
                let mut values: Vec<_> =
                    head.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
                values.sort_unstable();
                let joined = values.concat();
                match rewrite {
                    _ if values.is_empty() => None,
                    Some(rewrite) => {
                        Some(text(rewrite.rewrite(&String::from_utf8_lossy(&joined)).as_bytes()))
                    }
                    None => Some(text(&joined)),
                }
            }
            Self::Cookie(wanted) => {
                if let Some(value) = cookie(head, &wanted.name) {
                    return Some(text(value.as_bytes()));
                }
                let ttl = wanted.ttl?;
                let value = format!("{:016x}", context.random);
                *set_cookie = Some(wanted.header(&value, ttl));
                Some(text(value.as_bytes()))
            }
            Self::SourceIp => context.source_ip.map(|ip| text(ip.to_string().as_bytes())),
            Self::QueryParameter(name) => query_value(head.query(), name).map(|value| text(value.as_bytes())),
            Self::FilterState(key) => context
                .filter_state
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| text(value.as_bytes())),
        }
    }
}

impl CookieHash {
    /// A `set-cookie` value.
    pub fn header(&self, value: &str, ttl: Duration) -> String {
        let mut header = format!("{}=\"{value}\"", self.name);
        if !ttl.is_zero() {
            header.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        if !self.path.is_empty() {
            header.push_str(&format!("; Path={}", self.path));
        }
        for attribute in &self.attributes {
            header.push_str("; ");
            header.push_str(attribute);
        }
        header.push_str("; HttpOnly");
        header
    }
}

fn text(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}
