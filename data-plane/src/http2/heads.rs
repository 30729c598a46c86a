//! Heads between header blocks and the types that the proxy works with (RFC 9113, 8.2 and 8.3).

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request, response};
use sail_proxy_http2::hpack::{Encoder, Field, Pseudo};

use super::error::Error;
use crate::http1::Limits;
use crate::http1::request::Fragment;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a field counts in HPACK beside its name and value.
const OVERHEAD: usize = 32;

/// What extended CONNECT asks for (RFC 8441).
#[derive(Clone, Debug)]
pub(crate) struct Protocol(pub(crate) Box<str>);

/// A head that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// A field breaks the rules.
    Field(&'static str),
    /// All of them together do.
    Message(&'static str),
    /// It is larger than is allowed.
    TooLarge,
    /// It has more fields than is allowed.
    TooMany,
}

impl Bad {
    /// What who waits for the message learns.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Field(words) => Error::Field(words),
            Self::Message(words) => Error::Message(words),
            Self::TooLarge => Error::TooLarge,
            Self::TooMany => Error::TooMany,
        }
    }
}

/// A head as its fields come.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<Bytes>,
    headers: HeaderMap,
    /// Their sizes.
    size: usize,
    count: usize,
    /// How large one may be.
    max_field: usize,
    /// Pseudo-headers may not follow.
    regular: bool,
    bad: Option<Bad>,
}

/// What of a message's head concerns the codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// `content-length`
    pub(super) length: Option<u64>,
}

impl Fields {
    pub(super) fn new(headers: HeaderMap, max_field: usize) -> Self {
        Self { headers, max_field, ..Self::default() }
    }

    pub(super) fn add(&mut self, field: Field, size: usize, limits: Limits) {
        // Names and values alone, as Envoy counts them.
        let size = size.saturating_sub(OVERHEAD);
        self.size += size;
        self.count += 1;
        if self.size > limits.bytes || size > self.max_field {
            self.bad.get_or_insert(Bad::TooLarge);
        } else if self.count > limits.headers {
            self.bad.get_or_insert(Bad::TooMany);
        }
        if self.bad.is_some() {
            return;
        }
        let added = match field {
            Field::Pseudo(pseudo, value) => self.add_pseudo(pseudo, value),
            Field::Header(name, value) => self.add_header(name, value),
            Field::Invalid => Err("a malformed header"),
        };
        if let Err(words) = added {
            self.bad = Some(Bad::Field(words));
        }
    }

    fn add_pseudo(&mut self, pseudo: Pseudo, value: Bytes) -> Result<(), &'static str> {
        if self.regular {
            return Err("a pseudo-header behind headers");
        }
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol => &mut self.protocol,
            Pseudo::Status => &mut self.status,
        };
        if place.replace(value).is_some() {
            return Err("a pseudo-header twice");
        }
        Ok(())
    }

    fn add_header(&mut self, name: HeaderName, mut value: HeaderValue) -> Result<(), &'static str> {
        self.regular = true;
        let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last()) {
            // RFC 9113 would refuse it; Envoy does not.
            let trimmed = value.as_bytes().trim_ascii();
            value = HeaderValue::from_bytes(trimmed).map_err(|_| "a malformed header")?;
        }
        if name == HOST && self.headers.contains_key(HOST) {
            return Err("two hosts");
        }
        if is_of_connection(&name) || (name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
            return Err("a header of a connection");
        }
        self.headers.try_append(name, value).map_err(|_| "too many headers")?;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Bad> {
        self.bad.take().map_or(Ok(()), Err)
    }

    fn noted(&self) -> Result<Noted, Bad> {
        Ok(Noted { length: length(&self.headers)? })
    }

    /// A request's head. `connect`: it may ask for another protocol.
    pub(super) fn request(mut self, connect: bool) -> Result<(Request<()>, Noted), Bad> {
        self.check()?;
        let noted = self.noted()?;
        let (field, malformed) = (Bad::Field, Bad::Message);
        if self.status.is_some() {
            return Err(field("a status in a request"));
        }
        let method = self.method.as_deref().ok_or(malformed("a request without a method"))?;
        let method = Method::from_bytes(method).map_err(|_| field("a method that is none"))?;
        let mut request = Request::new(());
        if let Some(protocol) = self.protocol.take() {
            if !connect {
                return Err(field(":protocol, which was not offered"));
            }
            let protocol = std::str::from_utf8(&protocol).map_err(|_| field("a malformed :protocol"))?;
            if method != Method::CONNECT {
                return Err(malformed(":protocol without CONNECT"));
            }
            request.extensions_mut().insert(Protocol(protocol.into()));
        } else if method == Method::CONNECT && (self.scheme.is_some() || self.path.is_some()) {
            return Err(malformed("CONNECT with a scheme or a path"));
        }
        if let Some(fragment) =
            self.path.as_ref().and_then(|path| Some(path.slice(memchr::memchr(b'#', path)?..)))
        {
            request.extensions_mut().insert(Fragment(fragment));
        }
        *request.uri_mut() = self.uri(&method, request.extensions().get::<Protocol>().is_some())?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok((request, noted))
    }

    fn uri(&mut self, method: &Method, extended: bool) -> Result<Uri, Bad> {
        let (field, malformed) = (Bad::Field, Bad::Message);
        let mut uri = http::uri::Parts::default();
        if let Some(authority) = self.authority.take() {
            let authority =
                Authority::from_maybe_shared(authority).ok().filter(|authority| !has_user(authority));
            uri.authority = Some(authority.ok_or(field("a malformed :authority"))?);
        } else if let Some(host) = self.headers.get(HOST) {
            // As a request without it means (RFC 9113, 8.3.1).
            let authority = Authority::try_from(host.as_bytes());
            uri.authority = Some(authority.map_err(|_| field("a malformed host"))?);
        }
        if uri.authority.is_none() {
            return Err(malformed("a request without an authority"));
        }
        if *method != Method::CONNECT || extended {
            let scheme = self.scheme.take().ok_or(malformed("a request without a scheme"))?;
            uri.scheme = Some(scheme_of(&scheme).ok_or(field("a malformed :scheme"))?);
            let path = self.path.take().ok_or(malformed("a request without a path"))?;
            if path.is_empty() {
                return Err(field("an empty :path"));
            }
            if path.first() != Some(&b'/') && !(path == b"*"[..] && *method == Method::OPTIONS) {
                return Err(malformed("a :path that is none"));
            }
            let path = PathAndQuery::from_maybe_shared(path);
            uri.path_and_query = Some(path.map_err(|_| field("a malformed :path"))?);
        }
        Uri::from_parts(uri).map_err(|_| malformed("a malformed target"))
    }

    /// A response's head.
    pub(super) fn response(mut self) -> Result<(Response<()>, Noted), Bad> {
        self.check()?;
        let noted = self.noted()?;
        let asks = [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol];
        if asks.into_iter().any(Option::is_some) {
            return Err(Bad::Field("a request's pseudo-header in a response"));
        }
        let status = self.status.as_deref().and_then(|status| StatusCode::from_bytes(status).ok());
        let mut response = Response::new(());
        *response.status_mut() = status.ok_or(Bad::Message("a response without a status"))?;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.headers;
        Ok((response, noted))
    }

    /// Trailers.
    pub(super) fn trailers(mut self) -> Result<HeaderMap, Bad> {
        self.check()?;
        let pseudo = [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol, &self.status];
        if pseudo.into_iter().any(Option::is_some) {
            return Err(Bad::Field("a pseudo-header in trailers"));
        }
        Ok(self.headers)
    }
}

fn has_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

fn scheme_of(text: &[u8]) -> Option<Scheme> {
    match text {
        b"http" => Some(Scheme::HTTP),
        b"https" => Some(Scheme::HTTPS),
        b"" => None,
        other => Scheme::try_from(other).ok(),
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Bad> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Bad::Field("two lengths"));
    }
    let digits = first.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let length: Option<u64> = first.to_str().ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Bad::Field("a length that is none"))
}

/// Whether a header speaks of a connection, which HTTP/2 says in other ways.
fn is_of_connection(name: &HeaderName) -> bool {
    // Most names are told by their length.
    match name.as_str().len() {
        7 => name == UPGRADE,
        10 => name == CONNECTION || name == KEEP_ALIVE,
        16 => name == PROXY_CONNECTION,
        17 => name == TRANSFER_ENCODING,
        _ => false,
    }
}

/// Writes a request's block.
pub(super) fn write_request(encoder: &mut Encoder, out: &mut Vec<u8>, parts: &request::Parts) {
    encoder.begin(out);
    let protocol = parts.extensions.get::<Protocol>();
    encoder.encode_pseudo(out, Pseudo::Method, parts.method.as_str().as_bytes());
    let uri = &parts.uri;
    if parts.method != Method::CONNECT || protocol.is_some() {
        encoder.encode_pseudo(out, Pseudo::Scheme, uri.scheme_str().unwrap_or("http").as_bytes());
    }
    if let Some(authority) = uri.authority() {
        encoder.encode_pseudo(out, Pseudo::Authority, authority.as_str().as_bytes());
    }
    if let Some(path) = uri.path_and_query()
        && (parts.method != Method::CONNECT || protocol.is_some())
    {
        encoder.encode_pseudo(out, Pseudo::Path, path.as_str().as_bytes());
    }
    if let Some(Protocol(protocol)) = protocol {
        encoder.encode_pseudo(out, Pseudo::Protocol, protocol.as_bytes());
    }
    write_headers(encoder, out, &parts.headers);
}

/// Writes a response's block.
pub(super) fn write_response(encoder: &mut Encoder, out: &mut Vec<u8>, parts: &response::Parts) {
    encoder.begin(out);
    encoder.encode_pseudo(out, Pseudo::Status, parts.status.as_str().as_bytes());
    write_headers(encoder, out, &parts.headers);
}

/// Writes the block of trailers.
pub(super) fn write_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &HeaderMap) {
    encoder.begin(out);
    write_headers(encoder, out, trailers);
}

fn write_headers(encoder: &mut Encoder, out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        let is_other_te = || name == TE && value != "trailers";
        if !is_of_connection(name) && !is_other_te() {
            encoder.encode(out, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { headers: 100, bytes: 60 * 1024 };

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(HeaderMap::new(), 64 * 1024);
        for (name, value) in list {
            let pseudo = match *name {
                ":method" => Some(Pseudo::Method),
                ":scheme" => Some(Pseudo::Scheme),
                ":authority" => Some(Pseudo::Authority),
                ":path" => Some(Pseudo::Path),
                ":protocol" => Some(Pseudo::Protocol),
                ":status" => Some(Pseudo::Status),
                _ => None,
            };
            let field = match pseudo {
                Some(pseudo) => Field::Pseudo(pseudo, Bytes::copy_from_slice(value.as_bytes())),
                None => Field::Header(name.parse().unwrap(), value.parse().unwrap()),
            };
            fields.add(field, name.len() + value.len() + 32, LIMITS);
        }
        fields
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a:1"), (":path", "/x?y")];

    #[test]
    fn requests_have_their_parts() {
        let (request, noted) = fields(&GET).request(true).unwrap();
        assert_eq!(request.uri().to_string(), "https://a:1/x?y");
        assert_eq!(noted, Noted::default());
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        assert_eq!(fields(&connect).request(true).unwrap().0.uri().to_string(), "a:1");
        let body = [&GET[..], &[("content-length", "3")]].concat();
        assert_eq!(fields(&body).request(true).unwrap().1, Noted { length: Some(3) });
        let host = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b")];
        assert_eq!(fields(&host).request(true).unwrap().0.uri().authority().unwrap(), "b");
    }

    #[test]
    fn what_breaks_the_rules_is_no_request() {
        let without = |name: &str| -> Vec<_> { GET.into_iter().filter(|field| field.0 != name).collect() };
        let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
        for list in [
            without(":method"),
            without(":scheme"),
            without(":path"),
            with(&[(":path", "/twice")]),
            with(&[(":status", "200")]),
            with(&[("a", "b"), (":protocol", "late")]),
            with(&[("connection", "close")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("te", "gzip")]),
            with(&[("content-length", "-1")]),
            with(&[("content-length", "1"), ("content-length", "2")]),
            with(&[(":protocol", "websocket")]),
            vec![(":method", "CONNECT"), (":authority", "a"), (":path", "/")],
            vec![(":method", "CONNECT")],
        ] {
            assert!(matches!(fields(&list).request(true), Err(Bad::Field(_) | Bad::Message(_))), "{list:?}");
        }
        let large = "x".repeat(LIMITS.bytes);
        assert_eq!(fields(&with(&[])).trailers().unwrap_err(), Bad::Field("a pseudo-header in trailers"));
        let list = [("a", &*large)];
        assert_eq!(fields(&list).trailers().unwrap_err(), Bad::TooLarge);
    }
}
