//! `envoy.filters.http.grpc_web`: gRPC for browsers, whose trailers stand in the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::BodyError;
use crate::http::transform::{self, Transform};

/// The filter has no configuration.
pub(crate) struct Filter;

/// How the client wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    /// In base64.
    Text,
}

fn form(value: Option<&HeaderValue>) -> Option<Form> {
    let media = value?.to_str().ok()?.split(';').next()?.trim();
    match media {
        "application/grpc-web" | "application/grpc-web+proto" => Some(Form::Binary),
        "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(Form::Text),
        _ => None,
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let Some(form) = form(head.headers.get(CONTENT_TYPE)) else { return Flow::Continue };
        // Browsers say in `accept` what they take.
        let wanted = self::form(head.headers.get(http::header::ACCEPT)).unwrap_or(form);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,deflate,gzip"));
        head.headers.remove(CONTENT_LENGTH);
        head.present = crate::http::scan::Present::of(&head.headers);
        exchange.grpc.set(true);
        exchange.state().put(name, wanted);
        if form == Form::Text {
            transform::wrap(body, Decode(BytesMut::new()));
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let form: Form = exchange.state().take(name)?;
        let headers = reply.response.headers_mut();
        let grpc =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if !grpc {
            return None;
        }
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(match form {
                Form::Binary => "application/grpc-web+proto",
                Form::Text => "application/grpc-web-text+proto",
            }),
        );
        headers.remove(CONTENT_LENGTH);
        transform::wrap(reply.response.body_mut(), Encode { form, rest: BytesMut::new() });
        None
    }
}

/// Reads base64, which may be padded in the middle: every chunk of a stream is encoded for itself.
struct Decode(BytesMut);

impl Transform for Decode {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.0.extend(data.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let whole = self.0.len() / 4 * 4;
        let mut out = BytesMut::with_capacity(whole / 4 * 3);
        for quad in self.0.split_to(whole).chunks(4) {
            let decoded =
                STANDARD.decode(quad).map_err(|_| BodyError::Reset("bad base64 in a gRPC-Web request"))?;
            out.extend_from_slice(&decoded);
        }
        Ok(out.freeze())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        if self.0.is_empty() {
            return Ok((Bytes::new(), trailers));
        }
        Err(BodyError::Reset("bad base64 in a gRPC-Web request"))
    }
}

/// Puts the trailers into the body, and writes base64 where that is wanted.
struct Encode {
    form: Form,
    /// What does not fill three bytes yet.
    rest: BytesMut,
}

impl Encode {
    fn write(&mut self, data: &[u8], end: bool) -> Bytes {
        if self.form == Form::Binary {
            return Bytes::copy_from_slice(data);
        }
        self.rest.extend_from_slice(data);
        let whole = if end { self.rest.len() } else { self.rest.len() / 3 * 3 };
        STANDARD.encode(self.rest.split_to(whole)).into()
    }
}

impl Transform for Encode {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        if self.form == Form::Binary {
            return Ok(data);
        }
        Ok(self.write(&data, false))
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let mut frame = BytesMut::new();
        if let Some(trailers) = trailers {
            let mut text = BytesMut::new();
            for (name, value) in &trailers {
                text.extend_from_slice(name.as_str().as_bytes());
                text.put_u8(b':');
                text.extend_from_slice(value.as_bytes());
                text.extend_from_slice(b"\r\n");
            }
            frame.put_u8(0x80);
            frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
            frame.extend_from_slice(&text);
        }
        Ok((self.write(&frame, true), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways_however_it_is_cut() {
        for size in 1..9 {
            let mut encode = Encode { form: Form::Text, rest: BytesMut::new() };
            let mut text = Vec::new();
            for chunk in b"hello, gRPC".chunks(size) {
                text.extend(encode.data(Bytes::copy_from_slice(chunk)).unwrap());
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(0));
            text.extend(encode.end(Some(trailers)).unwrap().0);
            let mut decode = Decode(BytesMut::new());
            let mut back = Vec::new();
            for chunk in text.chunks(size) {
                back.extend(decode.data(Bytes::copy_from_slice(chunk)).unwrap());
            }
            decode.end(None).unwrap();
            assert_eq!(back, b"hello, gRPC\x80\0\0\0\x0fgrpc-status:0\r\n");
        }
    }
}
