//! Where in a request tokens are.

use smallvec::SmallVec;

use super::config::{Provider, ProviderId, TokenHeader};
use crate::head::RequestHead;
use crate::matcher::query_value;
use crate::route::cookie;

/// A token as it was found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) text: String,
    pub(super) place: Place<'a>,
    /// The providers that keep their tokens in this place.
    pub(super) providers: SmallVec<[ProviderId; 2]>,
}

/// Where a token was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Header(&'a TokenHeader),
    Param(&'a str),
    Cookie(&'a str),
}

/// The tokens in the places of these providers: headers, then parameters, then cookies.
pub(super) fn tokens<'a>(
    head: &RequestHead<'_>,
    all: &'a [Provider],
    wanted: &[ProviderId],
) -> Vec<Found<'a>> {
    let mut found: Vec<Found<'a>> = Vec::new();
    let known = || wanted.iter().filter_map(|id| Some((*id, all.get(*id)?)));
    let mut look = |id, place, read: &dyn Fn() -> Option<String>| {
        if let Some(same) = found.iter_mut().find(|found| found.place == place) {
            if !same.providers.contains(&id) {
                same.providers.push(id);
            }
        } else if let Some(text) = read() {
            found.push(Found { text, place, providers: SmallVec::from_slice(&[id]) });
        }
    };
    for (id, provider) in known() {
        for header in &provider.from_headers {
            look(id, Place::Header(header), &|| in_header(head, header));
        }
    }
    for (id, provider) in known() {
        for name in &provider.from_params {
            let read = || query_value(head.query(), name).map(|value| value.into_owned());
            look(id, Place::Param(name), &read);
        }
    }
    for (id, provider) in known() {
        for name in &provider.from_cookies {
            look(id, Place::Cookie(name), &|| cookie(head, name).map(str::to_owned));
        }
    }
    found
}

fn in_header(head: &RequestHead<'_>, header: &TokenHeader) -> Option<String> {
    let value = head.get(&header.name)?;
    let value = std::str::from_utf8(&value).ok()?;
    if header.prefix.is_empty() {
        return Some(value.to_owned());
    }
    // As in Envoy, the prefix may stand anywhere, and the token ends where its alphabet does.
    let at = value.find(&*header.prefix)? + header.prefix.len();
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let rest = &value[at..];
    let Some(start) = rest.find(is_token) else { return Some(value.to_owned()) };
    let rest = &rest[start..];
    let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
