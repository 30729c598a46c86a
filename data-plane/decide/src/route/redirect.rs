//! Redirects: where a client is sent.

use http::StatusCode;

use crate::format::{Attributes, Format, Missing};
use crate::head::{RequestHead, path_only};
use crate::matcher::RegexRewrite;

use super::{PathMatch, without_port};

/// `RedirectAction`
#[derive(Debug)]
pub struct Redirect {
    /// The new scheme.
    pub scheme: Option<Scheme>,
    /// The new host; `None`: the request's.
    pub host: Option<Box<str>>,
    /// The new port.
    pub port: Option<u16>,
    /// The new path; `None`: the request's.
    pub path: Option<RedirectPath>,
    /// The status.
    pub status: StatusCode,
    /// Whether the query is left out.
    pub strip_query: bool,
    /// Whether the host's port stays even where it was the old scheme's, as where a virtual host requires TLS.
    pub keep_port: bool,
}

/// A scheme to redirect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `https`; a port 80 in the host goes away.
    Https,
    /// This one.
    Named(Box<str>),
}

/// How a redirect changes the path.
#[derive(Debug)]
pub enum RedirectPath {
    /// To this; a query in it replaces the request's.
    Full(Box<str>),
    /// The part that the route matched becomes this.
    Prefix(Box<str>),
    /// Matches of a regular expression become something else.
    Regex(RegexRewrite),
    /// To what a format gives; nothing of it: the request's.
    Format(Format),
}

impl Redirect {
    /// The `location` for a request that a route with this path match took.
    pub fn location<A: Attributes + ?Sized>(
        &self,
        head: &RequestHead<'_>,
        matched: &PathMatch,
        attributes: &A,
    ) -> String {
        let scheme = match &self.scheme {
            Some(Scheme::Https) => "https",
            Some(Scheme::Named(name)) => name,
            None => head.scheme,
        };
        let host = self.host.as_deref().unwrap_or(head.authority);
        let host = match self.port {
            Some(port) => format!("{}:{port}", without_port(host)),
            None => self.without_old_port(host, head.scheme, scheme).into(),
        };
        format!("{scheme}://{host}{}", self.path(head, matched, attributes))
    }

    /// The request's path as the redirect rewrites it, with the query: access logs have that one, as Envoy's.
    pub fn rewritten(&self, head: &RequestHead<'_>, matched: &PathMatch) -> Option<String> {
        let old = head.path_only();
        let new = match self.path.as_ref()? {
            RedirectPath::Prefix(prefix) => super::rewrite::replace_prefix(old, matched, prefix),
            RedirectPath::Regex(rewrite) => rewrite.rewrite(old),
            RedirectPath::Full(_) | RedirectPath::Format(_) => return None,
        };
        Some(new + head.path.get(old.len()..).unwrap_or_default())
    }

    /// A redirect to another scheme drops the port that was the old scheme's default.
    fn without_old_port<'a>(&self, host: &'a str, from: &str, to: &str) -> &'a str {
        if self.scheme.is_none() || from == to || self.keep_port {
            return host;
        }
        let default = match from {
            "http" => ":80",
            "https" => ":443",
            _ => return host,
        };
        host.strip_suffix(default).unwrap_or(host)
    }

    fn path<A: Attributes + ?Sized>(
        &self,
        head: &RequestHead<'_>,
        matched: &PathMatch,
        attributes: &A,
    ) -> String {
        let old = path_only(head.path);
        let formatted = match &self.path {
            Some(RedirectPath::Format(format)) => {
                let mut out = String::new();
                format.write(attributes, Missing::Empty, &mut out);
                Some(out).filter(|path| !path.is_empty())
            }
            _ => None,
        };
        let (path, own_query) = match &self.path {
            None => (old.to_owned(), false),
            Some(RedirectPath::Format(_)) => match &formatted {
                Some(path) => (path.clone(), path.contains('?')),
                None => (old.to_owned(), false),
            },
            Some(RedirectPath::Full(path)) => (path.to_string(), path.contains('?')),
            Some(RedirectPath::Prefix(prefix)) => {
                (super::rewrite::replace_prefix(old, matched, prefix), false)
            }
            Some(RedirectPath::Regex(rewrite)) => (rewrite.rewrite(old), false),
        };
        let query = head.query();
        if self.strip_query {
            // What is written in the configuration stays.
            match &self.path {
                Some(RedirectPath::Full(_)) => path,
                Some(RedirectPath::Format(_)) if formatted.is_some() => path,
                _ => path_only(&path).to_owned(),
            }
        } else if own_query || query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Attributes for Nothing {
        fn text(&self, _: &crate::format::Operator) -> Option<std::borrow::Cow<'_, str>> {
            None
        }
    }

    #[test]
    fn locations() {
        let headers = http::HeaderMap::new();
        let base = || Redirect {
            scheme: None,
            host: None,
            port: None,
            path: None,
            status: StatusCode::MOVED_PERMANENTLY,
            strip_query: false,
            keep_port: false,
        };
        let check = |redirect: Redirect, expected: &str| {
            let head = RequestHead {
                method: "GET",
                scheme: "http",
                authority: "a.com:80",
                path: "/foo/bar?q=1",
                protocol: None,
                headers: &headers,
            };
            assert_eq!(redirect.location(&head, &PathMatch::Prefix("/foo".into()), &Nothing), expected);
        };
        check(Redirect { scheme: Some(Scheme::Https), ..base() }, "https://a.com/foo/bar?q=1");
        check(
            Redirect { host: Some("b.com".into()), port: Some(8443), ..base() },
            "http://b.com:8443/foo/bar?q=1",
        );
        check(
            Redirect { path: Some(RedirectPath::Full("/new?x=2".into())), ..base() },
            "http://a.com:80/new?x=2",
        );
        check(
            Redirect { path: Some(RedirectPath::Full("/new".into())), ..base() },
            "http://a.com:80/new?q=1",
        );
        check(
            Redirect { path: Some(RedirectPath::Full("/new?x=2".into())), strip_query: true, ..base() },
            "http://a.com:80/new?x=2",
        );
        check(
            Redirect { path: Some(RedirectPath::Prefix("/v2".into())), strip_query: true, ..base() },
            "http://a.com:80/v2/bar",
        );
    }
}
