//! Requests that change something must come from where they go to, or from where they may.

use crate::fraction::RuntimeFraction;
use crate::head::RequestHead;
use crate::matcher::StringMatcher;

/// `CsrfPolicy`
#[derive(Debug)]
pub struct CsrfPolicy {
    /// For how many requests it holds.
    pub enabled: RuntimeFraction,
    /// For how many it is only counted.
    pub shadow: RuntimeFraction,
    /// Other origins, as `host:port`.
    pub additional_origins: Box<[StringMatcher]>,
}

/// What a policy makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request changes nothing.
    Irrelevant,
    /// It comes from where it may.
    Valid,
    /// It comes from elsewhere.
    Invalid,
    /// It does not say where it comes from.
    Missing,
}

impl CsrfPolicy {
    /// Judges a request.
    pub fn judge(&self, head: &RequestHead<'_>) -> Origin {
        if !matches!(head.method, "POST" | "PUT" | "DELETE" | "PATCH") {
            return Origin::Irrelevant;
        }
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut source = host_and_port(header(http::header::ORIGIN));
        if source.is_empty() || source == "null" {
            source = host_and_port(header(http::header::REFERER));
        }
        if source.is_empty() {
            return Origin::Missing;
        }
        let known = source == host_and_port(head.authority)
            || self.additional_origins.iter().any(|matcher| matcher.is_match(source.as_bytes()));
        if known { Origin::Valid } else { Origin::Invalid }
    }
}

/// `host:port` of a URL; anything else as it is.
fn host_and_port(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once("://") else { return url };
    if !matches!(scheme, "http" | "https") {
        return url;
    }
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::fraction::Fraction;

    #[test]
    fn origins_are_compared() {
        let policy = CsrfPolicy {
            enabled: RuntimeFraction::fixed(Fraction::ALWAYS),
            shadow: RuntimeFraction::fixed(Fraction::NEVER),
            additional_origins: Box::new([StringMatcher::exact("friend:8080")]),
        };
        let check = |method, name: &'static str, value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert(name, http::HeaderValue::from_static(value));
            }
            let head = RequestHead {
                method,
                scheme: "http",
                authority: "own",
                path: "/",
                protocol: None,
                headers: &headers,
            };
            assert_eq!(policy.judge(&head), expected, "{method} {name}: {value}");
        };
        check("GET", "origin", "http://other", Origin::Irrelevant);
        check("POST", "origin", "http://own", Origin::Valid);
        check("POST", "origin", "https://friend:8080", Origin::Valid);
        check("POST", "referer", "http://own/page?x", Origin::Valid);
        check("DELETE", "origin", "http://own.evil", Origin::Invalid);
        check("POST", "origin", "null", Origin::Missing);
        check("PUT", "origin", "", Origin::Missing);
    }
}
