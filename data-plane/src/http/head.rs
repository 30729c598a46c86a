//! A request's head between the codecs: HTTP/1's target and `host`, or HTTP/2's pseudo-headers, taken apart.

use bytes::Bytes;
use http::header::{COOKIE, Entry, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri, Version, request};
use sail_proxy_decide::head::RequestHead;

use super::scan::Present;
use crate::http2::Protocol;
use crate::stream_info::StreamInfo;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    /// Empty if the request has none.
    pub(crate) authority: HeaderValue,
    pub(crate) path: PathAndQuery,
    /// What an upgrade or extended CONNECT asks for.
    pub(crate) protocol: Option<String>,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// Which headers there were when the request came.
    pub(crate) present: Present,
}

/// Why a request has no usable head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    MissingHost(Method, Option<PathAndQuery>),
    MissingPath,
    /// Two `host` headers, or one that is no host.
    BadHost,
}

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

fn take_host(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, HeadError> {
    let Entry::Occupied(entry) = headers.entry(HOST) else { return Ok(None) };
    let (_, mut values) = entry.remove_entry_mult();
    let host = values.next();
    if values.next().is_some() { Err(HeadError::BadHost) } else { Ok(host) }
}

/// Clients may cut cookies into lines over HTTP/2, and nobody else knows of it (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(mut entry) = headers.entry(COOKIE) else { return };
    let lines: Vec<&[u8]> = entry.iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        entry.insert(whole);
    }
}

/// Whether a byte may stand in an authority, by RFC 3986.
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(&byte)
}

impl Head {
    /// Takes a codec's request apart.
    pub(crate) fn new(parts: request::Parts, tls: bool) -> Result<(Self, http::Extensions), HeadError> {
        let request::Parts { method, uri, version, mut headers, extensions, .. } = parts;
        let uri = uri.into_parts();
        let host = take_host(&mut headers)?;
        let authority = match (uri.authority, host) {
            // The target's authority wins over the header.
            (Some(authority), _) => value_of(authority),
            (None, Some(host)) => host,
            (None, None) if version == Version::HTTP_10 => HeaderValue::from_static(""),
            (None, None) => return Err(HeadError::MissingHost(method, uri.path_and_query)),
        };
        if !authority.as_bytes().iter().all(|&byte| is_of_authority(byte)) {
            return Err(HeadError::BadHost);
        }
        let scheme = match uri.scheme {
            Some(scheme) if scheme == Scheme::HTTPS => "https",
            Some(_) => "http",
            None if tls => "https",
            None => "http",
        };
        let path = match uri.path_and_query {
            Some(path) => path,
            None if method == Method::CONNECT => PathAndQuery::from_static("/"),
            None => return Err(HeadError::MissingPath),
        };
        let present = Present::of(&headers);
        if present.cookie && version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        let hop = present.hop() && version != Version::HTTP_2;
        let protocol = extensions
            .get::<Protocol>()
            .map(|Protocol(protocol)| protocol.clone().into_string())
            .or_else(|| if hop && present.upgrade { super::hop::upgrade_of(&headers) } else { None })
            // Nobody is asked to change to HTTP/2 on the way; the client goes on as it began.
            .filter(|protocol| !(hop && protocol.eq_ignore_ascii_case("h2c")));
        if hop && present.upgrade {
            headers.remove(HTTP2_SETTINGS);
        }
        // As over HTTP/1: an upgrade is a GET that asks for more.
        let method = if protocol.is_some() && method == Method::CONNECT { Method::GET } else { method };
        Ok((Self { method, scheme, authority, path, protocol, version, headers, present }, extensions))
    }

    /// A head that says nothing.
    #[cfg(any(feature = "lua", feature = "wasm"))]
    pub(crate) fn empty() -> Self {
        Self {
            method: Method::GET,
            scheme: "http",
            authority: HeaderValue::from_static(""),
            path: PathAndQuery::from_static("/"),
            protocol: None,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            present: Present::default(),
        }
    }

    /// What is left of a head once it went upstream.
    pub(crate) fn noted(info: &StreamInfo) -> Self {
        let request = &info.request;
        Self {
            method: request.method.clone().unwrap_or_default(),
            scheme: request.scheme.unwrap_or("http"),
            authority: HeaderValue::from_str(request.authority())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            path: request.path().try_into().unwrap_or_else(|_| PathAndQuery::from_static("/")),
            protocol: None,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            present: Present::default(),
        }
    }

    /// As decisions read it.
    pub(crate) fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.authority(),
            path: self.path.as_str(),
            protocol: self.protocol.as_deref(),
            headers: &self.headers,
        }
    }

    pub(crate) fn authority(&self) -> &str {
        // Checked when the head was made; whoever sets it sets text.
        self.authority.to_str().unwrap_or_default()
    }

    /// Whether it asks for a tunnel to its authority.
    pub(crate) fn is_connect(&self) -> bool {
        self.method == Method::CONNECT
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.view().is_grpc()
    }

    /// Bytes, near enough: names, values and four bytes a line.
    pub(crate) fn wire_size(&self) -> u64 {
        let line = self.method.as_str().len() + self.path.as_str().len() + self.authority.len() + 24;
        line as u64 + headers_size(&self.headers)
    }

    /// The head of the request that goes out over HTTP/1. The headers are moved out if this is the last try.
    pub(crate) fn http1_parts(&mut self, keep: Keep) -> request::Parts {
        let authority = self.authority.clone();
        let target = if self.is_connect() { Authority::try_from(authority.as_bytes()).ok() } else { None };
        let target = target.map_or_else(|| Uri::from(self.path.clone()), Uri::from);
        let mut parts = self.parts(target, Version::HTTP_11, keep);
        if !authority.is_empty() {
            parts.headers.insert(HOST, authority);
        }
        parts
    }

    /// The target as a whole URL, as a proxy is asked; `None` if the authority cannot be one.
    pub(crate) fn whole_url(&self) -> Option<Uri> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if self.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(Authority::try_from(self.authority.as_bytes()).ok()?);
        uri.path_and_query = Some(self.path.clone());
        Uri::from_parts(uri).ok()
    }

    /// The head of the request that goes out over HTTP/2; `None` if its authority cannot be one.
    pub(crate) fn http2_parts(&mut self, keep: Keep) -> Option<request::Parts> {
        let uri = self.whole_url()?;
        Some(self.parts(uri, Version::HTTP_2, keep))
    }

    fn parts(&mut self, uri: Uri, version: Version, keep: Keep) -> request::Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = uri;
        parts.version = version;
        parts.headers = match keep {
            Keep::Headers => self.headers.clone(),
            Keep::Nothing => std::mem::take(&mut self.headers),
        };
        parts
    }
}

/// Whether a request of this method says so when it has no body, as Envoy has it: without a length, servers may refuse one
/// that could have a body.
pub(crate) fn may_have_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE)
}

/// Whether a head is needed after its request went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Headers,
    Nothing,
}

/// Header bytes, near enough.
pub(crate) fn headers_size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64
}

fn value_of(authority: Authority) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}
