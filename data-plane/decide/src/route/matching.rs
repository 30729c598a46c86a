//! Which requests a route takes.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::address::CidrSet;
use crate::fraction::{NoRuntime, Runtime, RuntimeFraction};
use crate::head::RequestHead;
use crate::matcher::{FullRegex, HeaderMatcher, MetadataMatcher, QueryMatcher, StringMatcher};

/// `RouteMatch`
#[derive(Debug)]
pub struct RouteMatch {
    /// The path, without its query.
    pub path: PathMatch,
    /// Whether the path's case counts (not for regular expressions, where it always does).
    pub case_sensitive: bool,
    /// Headers, all of which must match.
    pub headers: Box<[HeaderMatcher]>,
    /// Query parameters, all of which must match.
    pub query_parameters: Box<[QueryMatcher]>,
    /// Cookies, all of which must match.
    pub cookies: Box<[CookieMatcher]>,
    /// Dynamic metadata, all of which must match.
    pub dynamic_metadata: Box<[MetadataMatcher]>,
    /// Objects of the filter state, all of which must match.
    pub filter_state: Box<[FilterStateMatcher]>,
    /// gRPC requests alone.
    pub grpc: bool,
    /// Whether the client must (not) have presented a certificate.
    pub tls_presented: Option<bool>,
    /// Whether the client's certificate must (not) have been validated.
    pub tls_validated: Option<bool>,
    /// Only a share of the requests.
    pub fraction: Option<RuntimeFraction>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// It begins so.
    Prefix(Box<str>),
    /// It is this.
    Exact(Box<str>),
    /// It is this, or goes on behind it with a `/`.
    PathSeparatedPrefix(Box<str>),
    /// The whole of it matches.
    Regex(FullRegex),
    /// A URI template.
    Template(crate::path_template::PathTemplate),
    /// The request is a CONNECT.
    Connect,
}

/// `CookieMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct CookieMatcher {
    /// The cookie's name.
    pub name: Box<str>,
    /// What its value must be.
    pub value: StringMatcher,
    /// Whether the result is turned round.
    pub invert: bool,
}

/// `FilterStateMatcher`
#[derive(Clone, Debug)]
pub struct FilterStateMatcher {
    /// The object's key.
    pub key: Box<str>,
    /// What its text must be.
    pub value: FilterStateMatch,
}

/// What the text of a filter state object must be.
#[derive(Clone, Debug)]
pub enum FilterStateMatch {
    /// Like this.
    String(StringMatcher),
    /// An address in these ranges; the flag turns the result round.
    Address(CidrSet, bool),
}

impl FilterStateMatcher {
    /// Whether the object matches; an absent one never does.
    pub fn is_match(&self, state: &[(Box<str>, Box<str>)]) -> bool {
        let Some((_, text)) = state.iter().rev().find(|(key, _)| *key == self.key) else { return false };
        match &self.value {
            FilterStateMatch::String(matcher) => matcher.is_match(text.as_bytes()),
            FilterStateMatch::Address(ranges, invert) => {
                let socket = text.parse::<std::net::SocketAddr>().map(|address| address.ip());
                let ip = socket.or_else(|_| text.parse());
                ip.is_ok_and(|ip: std::net::IpAddr| ranges.contains(ip.to_canonical()) != *invert)
            }
        }
    }
}

/// What matching needs besides the request's head.
#[derive(Clone, Copy, Debug)]
pub struct RouteContext<'a> {
    /// The stream's random number.
    pub random: u64,
    /// Whether the client presented a certificate.
    pub peer_presented: bool,
    /// Whether that certificate was validated.
    pub peer_validated: bool,
    /// Dynamic metadata, by namespace.
    pub dynamic_metadata: Option<&'a Map<String, Value>>,
    /// The filter state, by key; the last of a key holds.
    pub filter_state: &'a [(Box<str>, Box<str>)],
    /// The runtime's values.
    pub runtime: &'a dyn Runtime,
}

impl Default for RouteContext<'_> {
    fn default() -> Self {
        Self {
            random: 0,
            peer_presented: false,
            peer_validated: false,
            dynamic_metadata: None,
            filter_state: &[],
            runtime: &NoRuntime,
        }
    }
}

impl RouteMatch {
    /// A match on a path prefix alone.
    pub fn prefix(prefix: &str) -> Self {
        Self {
            path: PathMatch::Prefix(prefix.into()),
            case_sensitive: true,
            headers: Box::default(),
            query_parameters: Box::default(),
            cookies: Box::default(),
            dynamic_metadata: Box::default(),
            filter_state: Box::default(),
            grpc: false,
            tls_presented: None,
            tls_validated: None,
            fraction: None,
        }
    }

    /// Whether the route takes the request. `path` is the one to match: without its query.
    pub fn is_match(&self, head: &RequestHead<'_>, path: &str, context: &RouteContext<'_>) -> bool {
        self.path_matches(head, path)
            && (!self.grpc || head.is_grpc())
            && self.headers.iter().all(|matcher| matcher.is_match(head))
            && (self.query_parameters.is_empty()
                || self.query_parameters.iter().all(|matcher| matcher.is_match(head.query())))
            && self.cookies.iter().all(|matcher| matcher.is_match(head))
            && self.tls_presented.is_none_or(|wanted| wanted == context.peer_presented)
            && self.tls_validated.is_none_or(|wanted| wanted == context.peer_validated)
            && self.dynamic_metadata.iter().all(|matcher| {
                matcher.is_match(context.dynamic_metadata.and_then(|all| all.get(&*matcher.filter)))
            })
            && self.filter_state.iter().all(|matcher| matcher.is_match(context.filter_state))
            && self.fraction.as_ref().is_none_or(|fraction| fraction.hit(context.random, context.runtime))
    }

    fn path_matches(&self, head: &RequestHead<'_>, path: &str) -> bool {
        match &self.path {
            PathMatch::Prefix(prefix) => self.starts_with(path, prefix),
            PathMatch::Exact(exact) => path.len() == exact.len() && self.starts_with(path, exact),
            PathMatch::PathSeparatedPrefix(prefix) => {
                self.starts_with(path, prefix)
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Regex(regex) => regex.is_match(path.as_bytes()),
            PathMatch::Template(template) => template.is_match(path),
            PathMatch::Connect => head.method == "CONNECT",
        }
    }

    fn starts_with(&self, path: &str, prefix: &str) -> bool {
        path.as_bytes().get(..prefix.len()).is_some_and(|head| {
            if self.case_sensitive {
                head == prefix.as_bytes()
            } else {
                head.eq_ignore_ascii_case(prefix.as_bytes())
            }
        })
    }
}

impl CookieMatcher {
    /// Whether the request's cookie matches. An absent one matches nothing, which `invert` turns round as well.
    pub fn is_match(&self, head: &RequestHead<'_>) -> bool {
        cookie(head, &self.name).is_some_and(|value| self.value.is_match(value.as_bytes())) != self.invert
    }
}

/// The first cookie of a name; quotes around its value are left out.
pub fn cookie<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a str> {
    let lines = head.headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (key, value) = pair.trim_start().split_once('=')?;
        let value = value.trim_end();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (key == name).then_some(bare)
    })
}

/// A path whose `;`-parameters are cut from every segment.
pub(super) fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return path.into();
    }
    let segments: Vec<_> =
        path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    segments.join("/").into()
}
