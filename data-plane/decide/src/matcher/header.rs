//! `envoy.config.route.v3.HeaderMatcher` and `QueryParameterMatcher`.

use std::borrow::Cow;
use std::ops::Range;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::StringMatcher;
use crate::head::{HeaderKey, RequestHead, joined};

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
        self.is_match_value(head.get(&self.name))
    }

    /// Whether headers of a response match; pseudo-headers are absent.
    pub fn is_match_headers(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.is_match_value(joined(headers, name)),
            _ => self.is_match_value(None),
        }
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
        let found = match &self.rule {
            HeaderMatch::Present(_) => true,
            HeaderMatch::String(matcher) => matcher.is_match(&value),
            HeaderMatch::Range(range) => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| range.contains(&number)),
        };
        found != self.invert
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
        match (&self.value, query_value(query, &self.name)) {
            (None, found) => found.is_some() == self.present,
            (Some(matcher), Some(value)) => matcher.is_match(value.as_bytes()),
            (Some(_), None) => false,
        }
    }
}

/// The first value of a parameter, percent-decoded.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(key).decode_utf8_lossy() == name)
            .then(|| percent_decode_str(value).decode_utf8_lossy())
    })
}
