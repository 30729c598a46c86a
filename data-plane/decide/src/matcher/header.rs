//! `envoy.config.route.v3.HeaderMatcher` and `QueryParameterMatcher`.

use std::borrow::Cow;
use std::ops::Range;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::StringMatcher;
use crate::head::{HeaderKey, RequestHead, is_kept_as_one, joined};

/// A header matcher.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatcher {
    /// Whose value is looked at.
    pub name: HeaderKey,
    /// What it must be.
    pub rule: HeaderMatch,
    /// Whether the result is turned round.
    pub invert: bool,
    /// Whether an absent header counts as an empty one.
    pub treat_missing_as_empty: bool,
}

/// What a header's value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderMatch {
    /// There (`true`), or absent.
    Present(bool),
    /// A string match.
    String(StringMatcher),
    /// An integer in a half-open range.
    Range(Range<i64>),
}

impl HeaderMatcher {
    /// Whether the request's head matches.
    pub fn is_match(&self, head: &RequestHead<'_>) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.is_match_lines(head.headers, name),
            _ => self.is_match_value(head.get(&self.name)),
        }
    }

    /// Whether headers of a response match; pseudo-headers are absent.
    pub fn is_match_headers(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.is_match_lines(headers, name),
            _ => self.is_match_value(None),
        }
    }

    /// Each line of a header is looked at by itself, as Envoy does it: who may not send a value cannot hide it beside
    /// another. One that matches is enough, or with `invert`, none must.
    fn is_match_lines(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next().map(|line| line.as_bytes());
        if lines.next().is_none() || matches!(self.rule, HeaderMatch::Present(_)) {
            return self.is_match_value(first.map(Cow::Borrowed));
        }
        if is_kept_as_one(name) {
            return self.is_match_value(joined(headers, name));
        }
        headers.get_all(name).iter().any(|line| self.holds(line.as_bytes())) != self.invert
    }

    /// The header's name, if it is not a pseudo-header.
    pub fn plain_name(&self) -> Option<&HeaderName> {
        match &self.name {
            HeaderKey::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the value matches.
    pub fn is_match_value(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        if let HeaderMatch::Present(wanted) = self.rule {
            let present = value.is_some() || self.treat_missing_as_empty;
            return (present == wanted) != self.invert;
        }
        let value = match value {
            Some(value) => value,
            None if self.treat_missing_as_empty => Cow::Borrowed(&[][..]),
            // An absent header never matches a value, not even an inverted one.
            None => return false,
        };
        self.holds(&value) != self.invert
    }

    fn holds(&self, value: &[u8]) -> bool {
        match &self.rule {
            HeaderMatch::Present(_) => true,
            HeaderMatch::String(matcher) => matcher.is_match(value),
            HeaderMatch::Range(range) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| range.contains(&number)),
        }
    }
}

/// A query parameter matcher.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatcher {
    /// The parameter's name.
    pub name: Box<str>,
    /// What its first value must be; `None`: it must only be there.
    pub value: Option<StringMatcher>,
    /// For `None` above: whether it must be there or must not.
    pub present: bool,
}

impl QueryMatcher {
    /// Whether the query (what follows the `?`) matches.
    pub fn is_match(&self, query: &str) -> bool {
        match (&self.value, query_text(query, &self.name)) {
            (None, found) => found.is_some() == self.present,
            (Some(matcher), Some(value)) => matcher.is_match(value.as_bytes()),
            (Some(_), None) => false,
        }
    }
}

/// The first value of a parameter as it stands: matchers of routes decode nothing.
fn query_text<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// The first value of a parameter, percent-decoded.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(key).decode_utf8_lossy() == name)
            .then(|| percent_decode_str(value).decode_utf8_lossy())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// As Envoy 1.40 matches.
    #[test]
    fn each_line_is_looked_at() {
        let check = |rule: &HeaderMatch, invert, name: &str, lines: &[&'static str], expected| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&name, HeaderValue::from_static(line));
            }
            let rule = rule.clone();
            let matcher =
                HeaderMatcher { name: HeaderKey::Name(name), rule, invert, treat_missing_as_empty: false };
            assert_eq!(matcher.is_match_headers(&headers), expected, "{matcher:?} {lines:?}");
        };
        let one = HeaderMatch::String(StringMatcher::exact("1"));
        check(&one, false, "x", &["1", "2"], true);
        check(&one, false, "x", &["2", "1"], true);
        check(&one, false, "x", &["1,2"], false);
        check(&one, true, "x", &["2", "1"], false);
        check(&one, true, "x", &["2", "3"], true);
        check(&one, true, "x", &[], false);
        let both = HeaderMatch::String(StringMatcher::exact("1,2"));
        check(&both, false, "x", &["1", "2"], false);
        check(&both, false, "accept", &["1", "2"], true);
        check(&HeaderMatch::Range(2..3), false, "x", &["9", "2"], true);
        check(&HeaderMatch::Present(true), false, "x", &["9", "2"], true);
    }

    #[test]
    fn parameters_are_matched_as_they_stand() {
        let matcher =
            QueryMatcher { name: "q".into(), value: Some(StringMatcher::exact("a b")), present: true };
        assert!(!matcher.is_match("q=a%20b"));
        assert!(matcher.is_match("r=1&q=a b&q=c"));
    }
}
