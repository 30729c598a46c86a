//! `envoy.filters.http.grpc_web`: gRPC for browsers, whose trailers stand in the body.

use std::cell::Cell;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
use crate::http::handler::Reply;
use crate::http::local_reply::{self, LocalReply};
use crate::http::transform::{self, Transform};
use crate::stream_info::ResponseFlags;

/// What is said of a request that is no base64.
const BAD_BASE64: &str = "grpc_base_64_decode_failed";

/// As much of an answer that is none of gRPC as becomes a message.
const MESSAGE: usize = 16 * 1024;

/// The filter has no configuration.
pub(crate) struct Filter;

/// How the client wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    /// In base64.
    Text,
}

/// What is kept until the response.
struct Asked {
    wanted: Form,
    bad: Rc<Cell<bool>>,
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
        let wanted = self::form(head.headers.get(http::header::ACCEPT)).unwrap_or(Form::Binary);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        head.headers.remove(CONTENT_LENGTH);
        head.present = crate::http::scan::Present::of(&head.headers);
        let bad = Rc::new(Cell::new(false));
        if form == Form::Text {
            transform::wrap(body, Decode { rest: BytesMut::new(), bad: bad.clone() });
        }
        exchange.state().put(name, Asked { wanted, bad });
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Asked { wanted: form, bad } = exchange.state().take(name)?;
        if bad.get() {
            let text = "Bad gRPC-web request, invalid base64 data.";
            let mut local = LocalReply::new(StatusCode::BAD_REQUEST, text, BAD_BASE64);
            local.grpc_status = Some(13);
            exchange.info.borrow_mut().flags = ResponseFlags::default();
            *reply = Reply::local(local_reply::respond(exchange, local));
        }
        exchange.grpc.set(true);
        let status = reply.response.status();
        let headers = reply.response.headers_mut();
        let grpc = status == StatusCode::OK
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(match form {
                Form::Binary => "application/grpc-web+proto",
                Form::Text => "application/grpc-web-text+proto",
            }),
        );
        if !grpc {
            let says_more = !http_body::Body::is_end_stream(reply.response.body());
            return says_more.then(|| Box::pin(told(reply)) as Work<'a, ()>);
        }
        headers.remove(CONTENT_LENGTH);
        transform::wrap(reply.response.body_mut(), Encode { form, rest: BytesMut::new() });
        None
    }
}

/// What no gRPC server said becomes the message of a status.
async fn told(reply: &mut Reply) {
    let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    let bytes = match http_body_util::Limited::new(body, MESSAGE).collect().await {
        Ok(all) => all.to_bytes(),
        Err(_) => Bytes::new(),
    };
    if let Some(lease) = reply.lease.take() {
        lease.finish();
    }
    let status = local_reply::grpc_status(reply.response.status());
    let headers = reply.response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    headers.entry("grpc-status").or_insert(HeaderValue::from(status));
    let text = String::from_utf8_lossy(&bytes);
    if let Ok(message) = HeaderValue::from_str(&local_reply::encode_message(&text)) {
        headers.insert("grpc-message", message);
    }
}

/// Reads base64, which may be padded in the middle: every chunk of a stream is encoded for itself.
struct Decode {
    rest: BytesMut,
    /// It is none.
    bad: Rc<Cell<bool>>,
}

impl Decode {
    fn refuse(&self) -> BodyError {
        self.bad.set(true);
        BodyError::Reset(BAD_BASE64)
    }
}

impl Transform for Decode {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.rest.extend(data.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let whole = self.rest.len() / 4 * 4;
        let mut out = BytesMut::with_capacity(whole / 4 * 3);
        for quad in self.rest.split_to(whole).chunks(4) {
            let decoded = STANDARD.decode(quad).map_err(|_| self.refuse())?;
            out.extend_from_slice(&decoded);
        }
        Ok(out.freeze())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        if self.rest.is_empty() {
            return Ok((Bytes::new(), trailers));
        }
        Err(self.refuse())
    }
}

/// Puts the trailers into the body, and writes base64 where that is wanted.
struct Encode {
    form: Form,
    /// What does not fill three bytes yet.
    rest: BytesMut,
}

impl Encode {
    /// What can be written of it: whole messages, each lot with a padding of its own.
    fn write(&mut self, data: &[u8], end: bool) -> Bytes {
        if self.form == Form::Binary {
            return Bytes::copy_from_slice(data);
        }
        self.rest.extend_from_slice(data);
        let mut whole = 0;
        while let Some([_, a, b, c, d]) = self.rest.get(whole..).and_then(|rest| rest.first_chunk()) {
            let next = whole + 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if next > self.rest.len() {
                break;
            }
            whole = next;
        }
        let whole = if end { self.rest.len() } else { whole };
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
            let mut decode = Decode { rest: BytesMut::new(), bad: Rc::default() };
            let mut back = Vec::new();
            for chunk in text.chunks(size) {
                back.extend(decode.data(Bytes::copy_from_slice(chunk)).unwrap());
            }
            decode.end(None).unwrap();
            assert_eq!(back, b"hello, gRPC\x80\0\0\0\x0fgrpc-status:0\r\n");
        }
    }
}
