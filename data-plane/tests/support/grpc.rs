//! gRPC servers that answer message by message.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "what fails here fails the test")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::sync::mpsc;

/// Starts a server; `make` is called for each stream, and what it gives for each of its messages. It ends with the
/// test's process.
pub fn serve<Q, R, F>(make: impl Fn() -> F + Send + Sync + 'static) -> SocketAddr
where
    Q: Message + Default + 'static,
    R: Message + 'static,
    F: FnMut(Q) -> Vec<R> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let make = Arc::new(make);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let make = make.clone();
                let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                    let mut answer = make();
                    let (send, replies) = mpsc::unbounded_channel();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut seen = BytesMut::new();
                        while let Some(Ok(frame)) = body.frame().await {
                            let Ok(data) = frame.into_data() else { continue };
                            seen.extend_from_slice(&data);
                            while let Some(message) = take(&mut seen) {
                                for reply in answer(Q::decode(message).unwrap()) {
                                    let _ = send.send(Frame::data(framed(&reply)));
                                }
                            }
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        let _ = send.send(Frame::trailers(trailers));
                    });
                    let mut response = Response::new(Replies(replies));
                    let kind = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert("content-type", kind);
                    async move { Ok::<_, Infallible>(response) }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}

struct Replies(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl http_body::Body for Replies {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// A message with its flag and length.
pub fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// Takes a whole message off the front.
pub fn take(seen: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(seen.get(1..5)?.try_into().unwrap()) as usize;
    if seen.len() < length + 5 {
        return None;
    }
    seen.advance(5);
    Some(seen.split_to(length).freeze())
}
