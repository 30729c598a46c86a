//! A request's head as decisions read it: a view over what the HTTP codec parsed, with Envoy's pseudo-headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

/// The name of a header, pseudo-headers included. Built once when configuration is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`, which is also `host`.
    Authority,
    /// `:scheme`
    Scheme,
    /// `:protocol` of an extended CONNECT.
    Protocol,
    /// `:status` of a response.
    Status,
    /// Any other.
    Name(HeaderName),
}

impl HeaderKey {
    /// The key for a name as configuration writes it.
    pub fn parse(name: &str) -> Result<Self, http::header::InvalidHeaderName> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":protocol" => Self::Protocol,
            ":status" => Self::Status,
            other => Self::Name(HeaderName::from_bytes(other.as_bytes())?),
        })
    }

    /// The name as Envoy writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
            Self::Name(name) => name.as_str(),
        }
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:scheme`
    pub scheme: &'a str,
    /// `:authority`; empty if the request has none.
    pub authority: &'a str,
    /// `:path`, with the query.
    pub path: &'a str,
    /// `:protocol` of an extended CONNECT, or the `upgrade` header of an HTTP/1.1 upgrade: `websocket`.
    pub protocol: Option<&'a str>,
    /// The other headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The header's value: several lines are joined by commas, as Envoy joins them.
    pub fn get(&self, key: &HeaderKey) -> Option<Cow<'a, [u8]>> {
        let pseudo = match key {
            HeaderKey::Method => self.method,
            HeaderKey::Path => self.path,
            HeaderKey::Authority => self.authority,
            HeaderKey::Scheme => self.scheme,
            HeaderKey::Protocol => self.protocol?,
            HeaderKey::Status => return None,
            HeaderKey::Name(name) => return joined(self.headers, name),
        };
        (!pseudo.is_empty()).then_some(Cow::Borrowed(pseudo.as_bytes()))
    }

    /// The header's first line; a pseudo-header has but one.
    pub fn first(&self, key: &HeaderKey) -> Option<Cow<'a, [u8]>> {
        match key {
            HeaderKey::Name(name) => self.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            _ => self.get(key),
        }
    }

    /// `:path` without its query and fragment.
    pub fn path_only(&self) -> &'a str {
        path_only(self.path)
    }

    /// What stands behind the `?`; empty if nothing does.
    pub fn query(&self) -> &'a str {
        let path = self.path.split('#').next().unwrap_or_default();
        path.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether it is a gRPC request, by its content type.
    pub fn is_grpc(&self) -> bool {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| is_grpc_content_type(value.as_bytes()))
    }
}

/// A path without its query and fragment.
pub fn path_only(path: &str) -> &str {
    path.find(['?', '#']).map_or(path, |end| &path[..end])
}

/// `application/grpc`, alone or followed by `+` or `;`.
pub fn is_grpc_content_type(value: &[u8]) -> bool {
    let Some(rest) = value.strip_prefix(b"application/grpc".as_slice()) else { return false };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// All values of a header, joined by commas; borrowed where there is one.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first.as_bytes())) };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// What operators read of a header: its first line, or all of those that Envoy joins.
pub fn told<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    match is_kept_as_one(name) {
        true => joined(headers, name),
        false => headers.get(name).map(|line| Cow::Borrowed(line.as_bytes())),
    }
}

/// The headers whose lines Envoy joins as they come in.
pub fn is_kept_as_one(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-encoding"
            | "access-control-request-headers"
            | "access-control-request-method"
            | "access-control-request-private-network"
            | "authorization"
            | "cache-control"
            | "connection"
            | "content-encoding"
            | "content-type"
            | "expect"
            | "grpc-accept-encoding"
            | "grpc-timeout"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "origin"
            | "pragma"
            | "proxy-status"
            | "referer"
            | "te"
            | "user-agent"
            | "via"
            | "x-client-trace-id"
            | "x-envoy-attempt-count"
            | "x-envoy-decorator-operation"
            | "x-envoy-downstream-service-cluster"
            | "x-envoy-external-address"
            | "x-envoy-original-host"
            | "x-envoy-original-path"
            | "x-forwarded-client-cert"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-request-id"
    )
}
