//! gRPC over a worker's own connections: calls with one answer, and streams.

use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::task::Supervised;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use sail_proxy_config::callout::GrpcTarget;
use tokio::sync::mpsc;

use super::{ANSWER_LIMIT, CalloutError, send};
use crate::http::body::{Body, BodyError};
use crate::http::head::Head;
use crate::http::scan::Present;
use crate::worker::state::Worker;

/// Messages that may wait in each direction of a stream.
const QUEUE: usize = 16;

/// How a call ended that brought no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} (gRPC status {code})")]
pub(crate) struct Status {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Status {
    const DEADLINE_EXCEEDED: u32 = 4;
    const INTERNAL: u32 = 13;
    const UNAVAILABLE: u32 = 14;

    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Whether the time was up.
    pub(crate) fn is_timeout(&self) -> bool {
        self.code == Self::DEADLINE_EXCEEDED
    }
}

impl From<CalloutError> for Status {
    fn from(error: CalloutError) -> Self {
        let code = match error {
            CalloutError::Timeout(_) => Self::DEADLINE_EXCEEDED,
            _ => Self::UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<BodyError> for Status {
    fn from(error: BodyError) -> Self {
        CalloutError::from(error).into()
    }
}

/// Asks once, and waits for the answer as long as the target allows.
pub(crate) async fn unary<Q: Message, R: Message + Default>(
    worker: &Rc<Worker>,
    target: &GrpcTarget,
    path: &'static str,
    request: &Q,
) -> Result<R, Status> {
    let call = async {
        let head = head(target, path);
        let (response, lease) = send(worker, &target.cluster, head, Body::text(frame(request))).await?;
        let mut messages = Messages::new(response)?;
        let answer = messages.next().await?;
        let answer = answer.ok_or_else(|| Status::new(Status::INTERNAL, "the answer has no message"))?;
        // The trailers say whether it counts.
        messages.end().await?;
        lease.finish();
        Ok(answer)
    };
    match target.timeout {
        None => call.await,
        Some(limit) => tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_| Err(CalloutError::Timeout(limit).into())),
    }
}

/// Opens a stream of messages both ways; whether it stands shows with the first answer.
pub(crate) fn open<Q: Message, R: Message + Default + 'static>(
    worker: &Rc<Worker>,
    target: &GrpcTarget,
    path: &'static str,
) -> (Sending<Q>, Receiving<R>) {
    let (sender, messages) = mpsc::channel(QUEUE);
    let (give, answers) = mpsc::channel(QUEUE);
    let (worker, cluster, head) = (worker.clone(), target.cluster.clone(), head(target, path));
    let task = Supervised::spawn_local(async move {
        let run = async {
            let (response, lease) = send(&worker, &cluster, head, Body::boxed(Outgoing(messages))).await?;
            let mut messages = Messages::new(response)?;
            while let Some(message) = messages.next().await? {
                if give.send(Ok(message)).await.is_err() {
                    return Ok(());
                }
            }
            messages.end().await?;
            lease.finish();
            Ok(())
        };
        if let Err(status) = run.await {
            // Nobody may be there to hear it.
            let _ = give.send(Err(status)).await;
        }
    });
    (Sending { sender, request: PhantomData }, Receiving { answers, _task: task })
}

/// The way out of a stream; dropped, it tells the server that nothing more comes.
pub(crate) struct Sending<Q> {
    sender: mpsc::Sender<Bytes>,
    request: PhantomData<fn(Q)>,
}

impl<Q> Clone for Sending<Q> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), request: PhantomData }
    }
}

impl<Q: Message> Sending<Q> {
    /// Waits until there is room for a message; `None` if the stream has ended.
    pub(crate) async fn room(&self) -> Option<Room<'_, Q>> {
        let permit = self.sender.reserve().await.ok()?;
        Some(Room { permit, request: PhantomData })
    }
}

/// Room for a message.
pub(crate) struct Room<'a, Q> {
    permit: mpsc::Permit<'a, Bytes>,
    request: PhantomData<fn(Q)>,
}

impl<Q: Message> Room<'_, Q> {
    /// Sends it.
    pub(crate) fn send(self, message: &Q) {
        self.permit.send(frame(message));
    }
}

/// The way in. Dropped, the stream is reset.
pub(crate) struct Receiving<R> {
    answers: mpsc::Receiver<Result<R, Status>>,
    _task: Supervised<()>,
}

impl<R> Receiving<R> {
    /// The next message; `None` once the server ended the stream well.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, Status> {
        self.answers.recv().await.transpose()
    }
}

/// Messages on their way out.
struct Outgoing(mpsc::Receiver<Bytes>);

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

fn head(target: &GrpcTarget, path: &'static str) -> Head {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(limit) = target.timeout
        && let Ok(value) = HeaderValue::try_from(format!("{}m", limit.as_millis()))
    {
        headers.insert("grpc-timeout", value);
    }
    for (name, value) in &target.initial_metadata {
        // Names and values that are none would only make the call fail.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::try_from(&**value)) {
            headers.append(name, value);
        }
    }
    let authority = if target.authority.is_empty() { &target.cluster } else { &target.authority };
    // A cluster's name need not be a host's: `outbound|80||x` is none.
    let authority = HeaderValue::from_str(authority)
        .ok()
        .filter(|value| http::uri::Authority::try_from(value.as_bytes()).is_ok())
        .unwrap_or_else(|| HeaderValue::from_static("cluster"));
    Head {
        method: Method::POST,
        scheme: "http",
        authority,
        path: PathAndQuery::from_static(path),
        protocol: None,
        version: Version::HTTP_2,
        headers,
        present: Present::default(),
    }
}

/// A message with its flag and length before it.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A `BytesMut` takes as much as there is.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// Messages of a response.
struct Messages {
    body: Body,
    seen: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Messages {
    fn new(response: http::Response<Body>) -> Result<Self, Status> {
        if response.status() != StatusCode::OK {
            let code = crate::http::local_reply::grpc_status(response.status());
            return Err(Status::new(code, format!("HTTP status {}", response.status())));
        }
        let (parts, body) = response.into_parts();
        let trailers = parts.headers.contains_key("grpc-status").then_some(parts.headers);
        Ok(Self { body, seen: BytesMut::new(), ended: trailers.is_some(), trailers })
    }

    /// The next message; `None` at the end.
    async fn next<R: Message + Default>(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(message) = take_message(&mut self.seen)? {
                let message = R::decode(message).map_err(|error| {
                    Status::new(Status::INTERNAL, format!("the answer is no message: {error}"))
                })?;
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Reads on; `false` at the end.
    async fn read(&mut self) -> Result<bool, Status> {
        if self.ended {
            return Ok(false);
        }
        match self.body.frame().await {
            None => self.ended = true,
            Some(frame) => match frame?.into_data() {
                Ok(data) => self.seen.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
        }
        Ok(!self.ended)
    }

    /// What the trailers say.
    async fn end(mut self) -> Result<(), Status> {
        while self.read().await? {
            self.seen.clear();
        }
        let trailers = self.trailers.unwrap_or_default();
        let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        match text("grpc-status").and_then(|code| code.parse().ok()) {
            Some(0) => Ok(()),
            Some(code) => {
                let message = text("grpc-message").unwrap_or_default();
                let message = percent_encoding::percent_decode_str(message).decode_utf8_lossy();
                Err(Status::new(code, message))
            }
            None => Err(Status::new(Status::INTERNAL, "the answer ended without a gRPC status")),
        }
    }
}

/// Takes a whole message off the front.
pub(crate) fn take_message(seen: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let [flag, a, b, c, d, ..] = seen[..] else { return Ok(None) };
    if flag != 0 {
        return Err(Status::new(Status::INTERNAL, "the answer is compressed, which was not asked for"));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > ANSWER_LIMIT {
        return Err(CalloutError::TooLarge.into());
    }
    if seen.len() < length + 5 {
        return Ok(None);
    }
    seen.advance(5);
    Ok(Some(seen.split_to(length).freeze()))
}
