//! HTTP/2 clients and servers with trailers.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "what fails here fails the test"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A body: its pieces, and trailers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub head: HeaderMap,
    pub status: u16,
    pub method: String,
    pub host: String,
    pub path: String,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> &str {
        self.head.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A trailer's value.
    pub fn trailer(&self, name: &str) -> &str {
        self.trailers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

pub fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    });
    pairs.collect()
}

fn frames(pieces: &[&[u8]], trailers: &[(&str, &str)]) -> Frames {
    let pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let mut all: std::collections::VecDeque<_> =
        pieces.map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect();
    if !trailers.is_empty() {
        all.push_back(Frame::trailers(map(trailers)));
    }
    Frames(all)
}

async fn read(mut body: Incoming) -> (Vec<u8>, HeaderMap) {
    let (mut all, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    (all, trailers)
}

/// One request on a connection of its own.
pub fn call(
    to: SocketAddr,
    method: &str,
    path: &str,
    head: &[(&str, &str)],
    pieces: &[&[u8]],
    trailers: &[(&str, &str)],
) -> Message {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://test{path}"))
            .body(frames(pieces, trailers))
            .unwrap();
        *request.headers_mut() = map(head);
        let limit = std::time::Duration::from_secs(20);
        let response =
            tokio::time::timeout(limit, sender.send_request(request)).await.expect("an answer").unwrap();
        let (parts, body) = response.into_parts();
        let (body, trailers) = tokio::time::timeout(limit, read(body)).await.expect("the answer's end");
        let status = parts.status.as_u16();
        Message { head: parts.headers, status, body, trailers, ..Message::default() }
    })
}

/// A server that answers with what it is told to make of a request; it ends with the test's process.
pub fn serve(answer: impl Fn(&Message) -> Message + Send + Sync + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                        let (body, trailers) = read(body).await;
                        let method = parts.method.to_string();
                        let host = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
                        let asked =
                            Message { head: parts.headers, status: 0, method, host, path, body, trailers };
                        let said = answer(&asked);
                        // Without a body, the head ends the stream.
                        let data = Some(Bytes::from(said.body)).filter(|body| !body.is_empty());
                        let mut all = Frames(data.into_iter().map(Frame::data).collect());
                        if !said.trailers.is_empty() {
                            all.0.push_back(Frame::trailers(said.trailers));
                        }
                        let mut response = Response::new(all);
                        *response.headers_mut() = said.head;
                        if said.status > 0 {
                            *response.status_mut() = said.status.try_into().unwrap();
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}
