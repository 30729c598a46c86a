//! Rewrites of paths and hosts on their way upstream.

use http::HeaderValue;

use super::{HostRewrite, PathMatch, PathRewrite};
use crate::format::{Attributes, Missing};
use crate::head::{RequestHead, path_only};

impl PathRewrite {
    /// The new `:path` for a request that a route with this path match took; `None`: it stays.
    pub fn apply<A: Attributes + ?Sized>(
        &self,
        path: &str,
        matched: &PathMatch,
        attributes: &A,
    ) -> Option<String> {
        let only = path_only(path);
        let tail = &path[only.len()..];
        let new = match self {
            Self::Prefix(prefix) => replace_prefix(only, matched, prefix),
            Self::Regex(rewrite) => rewrite.rewrite(only),
            Self::Template(rewrite) => match matched {
                PathMatch::Template(template) => rewrite.apply(template, only),
                _ => None,
            }?,
            Self::Format(format) => {
                let mut out = String::new();
                format.write(attributes, Missing::Empty, &mut out);
                out
            }
        };
        (!new.is_empty()).then(|| new + tail)
    }
}

/// The path with the part that matched replaced: the prefix of prefix matches, all of the others.
pub(super) fn replace_prefix(path: &str, matched: &PathMatch, with: &str) -> String {
    let length = match matched {
        PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix) => prefix.len(),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Template(_) => path.len(),
        PathMatch::Connect => 0,
    };
    format!("{with}{}", path.get(length..).unwrap_or_default())
}

/// The new host, or `None` if it stays. `upstream` is the name of the chosen upstream host; `Auto` needs it.
pub fn rewrite_host<A: Attributes + ?Sized>(
    rewrite: &HostRewrite,
    head: &RequestHead<'_>,
    upstream: Option<&str>,
    attributes: &A,
) -> Option<HeaderValue> {
    let text = match rewrite {
        HostRewrite::Literal(value) => return Some(value.clone()),
        HostRewrite::Auto => upstream.filter(|name| !name.is_empty())?.to_owned(),
        HostRewrite::Header(name) => {
            return head.headers.get(name).filter(|value| !value.is_empty()).cloned();
        }
        HostRewrite::PathRegex(regex) => regex.rewrite(head.path_only()),
        HostRewrite::Format(format) => {
            let mut out = String::new();
            format.write(attributes, Missing::Dash, &mut out);
            out
        }
    };
    HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())
}
