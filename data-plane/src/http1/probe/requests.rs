//! Reads a client's requests without a connection.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};

use super::RULES;
use crate::http1::decode::{Decoder, Part};
use crate::http1::error::Refusal;
use crate::http1::request::{Head, Reader};

/// A request that came whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) method: http::Method,
    pub(crate) uri: http::Uri,
    pub(crate) body: Bytes,
}

/// What became of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) whole: Vec<Whole>,
    /// The connection ended: the last of them said so, or what came next is no request.
    pub(crate) ended: bool,
}

/// Any bytes: no panic, no memory without bound, and the same requests however they are cut into pieces.
pub(crate) fn check(bytes: &[u8], size: usize) {
    let whole = read([bytes]);
    assert_eq!(read(bytes.chunks(size.max(1))), whole, "in pieces of {size}");
}

/// The first head of these bytes, as a codec tells of it.
pub(crate) fn first(bytes: &[u8]) -> Option<Request<()>> {
    let mut map = HeaderMap::new();
    let head = Reader::default().next(&mut BytesMut::from(bytes), RULES, &mut map).ok()??;
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    Some(request)
}

/// Reads the pieces as they come.
pub(crate) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut client =
        Client { input: BytesMut::new(), heads: Reader::default(), current: None, whole: Vec::new() };
    for piece in pieces {
        client.input.extend_from_slice(piece);
        if client.advance().is_err() {
            return Outcome { whole: client.whole, ended: true };
        }
        let most = RULES.limits.bytes + piece.len();
        assert!(client.input.len() <= most, "{} bytes are kept", client.input.len());
    }
    Outcome { whole: client.whole, ended: false }
}

struct Client {
    input: BytesMut,
    heads: Reader,
    current: Option<(Head, Decoder, BytesMut)>,
    whole: Vec<Whole>,
}

/// What ends a connection, whatever it is.
struct Ends;

impl From<Refusal> for Ends {
    fn from(_: Refusal) -> Self {
        Self
    }
}

impl Client {
    fn advance(&mut self) -> Result<(), Ends> {
        loop {
            let Some((_, decoder, body)) = &mut self.current else {
                let Some(head) = self.heads.next(&mut self.input, RULES, &mut HeaderMap::new())? else {
                    return Ok(());
                };
                let decoder = Decoder::new(head.framing, RULES.limits);
                self.current = Some((head, decoder, BytesMut::new()));
                self.finish()?;
                continue;
            };
            // To be asked once more after the last part: what is wrong with what was passed is told then.
            match decoder.next(&mut self.input).map_err(|_| Ends)? {
                Some(Part::Data(data)) => body.extend_from_slice(&data),
                Some(Part::Trailers(_)) => {}
                None if !decoder.is_ended() => return Ok(()),
                None => {}
            }
            self.finish()?;
        }
    }

    /// Notes a request that has ended. The last of a connection ends it.
    fn finish(&mut self) -> Result<(), Ends> {
        let Some((head, _, body)) = self.current.take_if(|(_, decoder, _)| decoder.is_ended()) else {
            return Ok(());
        };
        self.whole.push(Whole { method: head.method, uri: head.uri, body: body.freeze() });
        if head.keeps_alive { Ok(()) } else { Err(Ends) }
    }
}
