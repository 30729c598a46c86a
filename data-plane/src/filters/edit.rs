//! Changes of heads that services and scripts ask for by name.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use sail_proxy_decide::headers::{AppendAction, put};

use crate::http::head::Head;

/// A name or value that no header can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Writes a header of a request; pseudo-headers are set, whatever the action says.
pub(crate) fn set_request(
    head: &mut Head,
    name: &str,
    value: &[u8],
    action: AppendAction,
) -> Result<(), Invalid> {
    match name {
        ":method" => head.method = Method::from_bytes(value).map_err(|_| Invalid)?,
        ":path" => head.path = value.try_into().map_err(|_| Invalid)?,
        ":scheme" => {
            head.scheme = match value {
                b"https" => "https",
                b"http" => "http",
                _ => return Err(Invalid),
            }
        }
        ":authority" | "host" => {
            let value = HeaderValue::from_bytes(value).map_err(|_| Invalid)?;
            value.to_str().map_err(|_| Invalid)?;
            head.authority = value;
        }
        _ => {
            set(&mut head.headers, name, value, action)?;
            // What is decided by the headers that there are looks at them again.
            head.present = crate::http::scan::Present::of(&head.headers);
        }
    }
    Ok(())
}

/// Writes a header of a response, where `:status` is the status.
pub(crate) fn set_response<B>(
    response: &mut http::Response<B>,
    name: &str,
    value: &[u8],
    action: AppendAction,
) -> Result<(), Invalid> {
    if name == ":status" {
        *response.status_mut() = StatusCode::from_bytes(value).map_err(|_| Invalid)?;
        return Ok(());
    }
    set(response.headers_mut(), name, value, action)
}

/// Writes a header.
pub(crate) fn set(
    headers: &mut HeaderMap,
    name: &str,
    value: &[u8],
    action: AppendAction,
) -> Result<(), Invalid> {
    let (name, value) = header(name, value)?;
    put(headers, &name, value, action);
    Ok(())
}

/// A header, if there can be such a one.
pub(crate) fn header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Invalid> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Invalid)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Invalid)?;
    Ok((name, value))
}

/// Removes a header; pseudo-headers and `host` stay.
pub(crate) fn remove(headers: &mut HeaderMap, name: &str) {
    if name != "host" {
        headers.remove(name);
    }
}

/// Every header of a request by name, the pseudo-headers first.
pub(crate) fn request_headers(head: &Head) -> impl Iterator<Item = (&str, &[u8])> {
    let pseudo = [
        (":authority", head.authority.as_bytes()),
        (":path", head.path.as_str().as_bytes()),
        (":method", head.method.as_str().as_bytes()),
        (":scheme", head.scheme.as_bytes()),
    ];
    let rest = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    pseudo.into_iter().filter(|(_, value)| !value.is_empty()).chain(rest)
}
