//! gRPC calls and streams of modules, message by message as bytes.

use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use base::task::Supervised;
use bytes::{BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message as _;
use sail_proxy_wasm::{GrpcCall, GrpcEvent, Status};
use tokio::sync::mpsc;
use xds_api::envoy::config::core::v3::GrpcService;
use xds_api::envoy::config::core::v3::grpc_service::TargetSpecifier;

use super::call::{headers, pairs};
use super::host::Tasks;
use crate::callout;
use crate::callout::grpc::take_message;
use crate::http::body::{Body, BodyError};
use crate::http::head::Head;
use crate::http::scan::Present;
use crate::worker::state::Worker;

/// Messages that may wait to be sent.
const QUEUE: usize = 1024;

const DEADLINE_EXCEEDED: u32 = 4;
const UNAVAILABLE: u32 = 14;

/// A call or stream that is open.
pub(super) struct Handle {
    sender: std::cell::RefCell<Option<mpsc::Sender<Bytes>>>,
}

impl Handle {
    pub(super) fn send(&self, message: Bytes, end: bool) -> Result<(), Status> {
        let mut sender = self.sender.borrow_mut();
        let open = sender.as_ref().ok_or(Status::BadArgument)?;
        open.try_send(framed(&message)).map_err(|_| Status::InternalFailure)?;
        if end {
            *sender = None;
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        self.sender.take();
    }
}

fn framed(message: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// Begins a call or stream.
pub(super) fn open(
    worker: &Rc<Worker>,
    tasks: &Rc<Tasks>,
    (root, token): (u32, u32),
    call: GrpcCall,
) -> Result<(), Status> {
    let (cluster, authority) = target(worker, &call.service)?;
    let path = format!("/{}/{}", call.service_name, call.method);
    let path = PathAndQuery::try_from(path).map_err(|_| Status::BadArgument)?;
    let mut all = headers(&call.metadata).unwrap_or_default();
    all.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    all.insert(header::TE, HeaderValue::from_static("trailers"));
    if !call.timeout.is_zero()
        && let Ok(value) = HeaderValue::try_from(format!("{}m", call.timeout.as_millis()))
    {
        all.insert("grpc-timeout", value);
    }
    let head = Head {
        method: Method::POST,
        scheme: "http",
        authority,
        path,
        protocol: None,
        version: Version::HTTP_2,
        headers: all,
        present: Present::default(),
    };
    let (sender, messages) = mpsc::channel(QUEUE);
    let unary = call.message.is_some();
    if let Some(message) = &call.message {
        // The channel is empty.
        let _ = sender.try_send(framed(message));
    }
    let sender = std::cell::RefCell::new((!unary).then_some(sender));
    tasks.streams.borrow_mut().insert(token, Handle { sender });
    let tell = Tell { tasks: Rc::downgrade(tasks), root, token, unary };
    let (worker, limit) = (worker.clone(), call.timeout);
    let task = Supervised::spawn_local(async move {
        let exchange = exchange(&worker, &cluster, head, Body::boxed(Outgoing(messages)), &tell);
        let (status, message) = if limit.is_zero() || !unary {
            exchange.await
        } else {
            let late = || (DEADLINE_EXCEEDED, "the time is up".to_owned());
            tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| late())
        };
        tell.end(status, message);
    });
    tasks.calls.borrow_mut().insert(token, task);
    Ok(())
}

/// The cluster, and what stands for its authority.
fn target(worker: &Rc<Worker>, service: &[u8]) -> Result<(Arc<str>, HeaderValue), Status> {
    let given = GrpcService::decode(service).ok().and_then(|service| match service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => Some((envoy.cluster_name, envoy.authority)),
        _ => None,
    });
    let given = given.or_else(|| Some((std::str::from_utf8(service).ok()?.to_owned(), String::new())));
    let (cluster, authority) = given.ok_or(Status::ParseFailure)?;
    let known = worker.active().cluster(&cluster).ok_or(Status::ParseFailure)?;
    let authority = if authority.is_empty() { &cluster } else { &authority };
    let authority = HeaderValue::from_str(authority)
        .ok()
        .filter(|value| http::uri::Authority::try_from(value.as_bytes()).is_ok())
        .unwrap_or_else(|| HeaderValue::from_static("cluster"));
    Ok((known.config.name.clone(), authority))
}

/// Where events go.
struct Tell {
    tasks: Weak<Tasks>,
    root: u32,
    token: u32,
    /// One message is the answer; nothing else is told of a call that went well.
    unary: bool,
}

impl Tell {
    fn event(&self, event: GrpcEvent) {
        let running = self.tasks.upgrade().and_then(|tasks| tasks.running.borrow().upgrade());
        if let Some(running) = running {
            running.call(|vm| vm.on_grpc_event(self.root, self.token, event));
        }
    }

    fn end(&self, status: u32, message: String) {
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.streams.borrow_mut().remove(&self.token);
            tasks.forget(self.token);
        }
        if !self.unary || status != 0 {
            self.event(GrpcEvent::Close(status, message));
        }
    }
}

async fn exchange(
    worker: &Rc<Worker>,
    cluster: &Arc<str>,
    head: Head,
    body: Body,
    tell: &Tell,
) -> (u32, String) {
    let (response, lease) = match callout::send(worker, cluster, head, body).await {
        Ok(answer) => answer,
        Err(error) => return (UNAVAILABLE, error.to_string()),
    };
    if response.status() != StatusCode::OK {
        let status = crate::http::local_reply::grpc_status(response.status());
        return (status, format!("HTTP status {}", response.status()));
    }
    let (parts, mut body) = response.into_parts();
    if let Some(end) = status_of(&parts.headers) {
        return end;
    }
    if !tell.unary {
        tell.event(GrpcEvent::InitialMetadata(pairs(&parts.headers).collect()));
    }
    let mut seen = BytesMut::new();
    let mut last = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return (UNAVAILABLE, error.to_string()),
        };
        match frame.into_data() {
            Ok(data) => seen.extend_from_slice(&data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let end = status_of(&trailers).unwrap_or((2, String::new()));
                if !tell.unary {
                    tell.event(GrpcEvent::TrailingMetadata(pairs(&trailers).collect()));
                } else if let Some(message) = last.take().filter(|_| end.0 == 0) {
                    tell.event(GrpcEvent::Message(message));
                }
                lease.finish();
                return end;
            }
        }
        loop {
            match take_message(&mut seen) {
                Ok(Some(message)) if tell.unary => last = Some(message),
                Ok(Some(message)) => tell.event(GrpcEvent::Message(message)),
                Ok(None) => break,
                Err(status) => return (status.code, status.message),
            }
        }
    }
    (UNAVAILABLE, "the answer ended without a gRPC status".to_owned())
}

fn status_of(headers: &HeaderMap) -> Option<(u32, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?.parse().unwrap_or(2);
    let message = text("grpc-message").unwrap_or_default();
    Some((code, percent_encoding::percent_decode_str(message).decode_utf8_lossy().into_owned()))
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
