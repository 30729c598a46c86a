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
    play(move |_| {
        let mut answer = make();
        move |message: Option<Q>| match message {
            Some(message) => answer(message).into_iter().map(Say::Message).collect(),
            None => vec![Say::End(0, "")],
        }
    })
}

/// What a server does.
pub enum Say<R> {
    Message(R),
    /// It ends the stream with this status.
    End(u32, &'static str),
}

/// Starts a server; `make` is called with each stream's head, and what it gives for each of its messages, and once more
/// when there are no more.
pub fn play<Q, R, F>(make: impl Fn(&HeaderMap) -> F + Send + Sync + 'static) -> SocketAddr
where
    Q: Message + Default + 'static,
    R: Message + 'static,
    F: FnMut(Option<Q>) -> Vec<Say<R>> + Send + 'static,
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
                    let (send, replies) = mpsc::unbounded_channel();
                    tokio::spawn(stream_of(make(request.headers()), request.into_body(), send));
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

async fn stream_of<Q: Message + Default, R: Message>(
    mut answer: impl FnMut(Option<Q>) -> Vec<Say<R>>,
    mut body: Incoming,
    send: mpsc::UnboundedSender<Frame<Bytes>>,
) {
    let say = |said: Vec<Say<R>>| {
        for said in said {
            match said {
                Say::Message(message) => {
                    let _ = send.send(Frame::data(framed(&message)));
                }
                Say::End(status, text) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", status.into());
                    if !text.is_empty() {
                        trailers.insert("grpc-message", HeaderValue::from_static(text));
                    }
                    let _ = send.send(Frame::trailers(trailers));
                    return true;
                }
            }
        }
        false
    };
    let mut seen = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        seen.extend_from_slice(&data);
        while let Some(message) = take(&mut seen) {
            if say(answer(Some(Q::decode(message).unwrap()))) {
                return;
            }
        }
    }
    say(answer(None));
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
