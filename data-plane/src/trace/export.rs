//! Exports spans from the main thread: workers put them into a bounded queue, and what does not fit is dropped and
//! counted. A collector that is away costs a bounded number of spans and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;
use tonic_prost::ProstCodec;

use super::span::Span;
use super::{otlp, zipkin};
use crate::dial::{self, Connect, Target, Targets};
use crate::stats::Store;
use crate::stats::sets::tracing_exporter as stat;

/// How many spans wait at most.
const QUEUE: usize = 4096;
/// How many spans a request carries at most.
const BATCH: usize = 512;
/// How long spans wait for company.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a collector may take, where nothing else is said.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// A collector's protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Zipkin's JSON over HTTP.
    Zipkin {
        /// The path: `/api/v2/spans`.
        path: String,
        /// The `host` header.
        host: String,
    },
    /// OpenTelemetry over gRPC.
    OtlpGrpc,
    /// OpenTelemetry over HTTP.
    OtlpHttp {
        /// The collector's URI.
        uri: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
}

/// A collector, as configured: tracers with equal ones share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exporter {
    /// The collector's cluster.
    pub cluster: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Our name.
    pub service: String,
    /// How long it may take.
    pub timeout: Duration,
}

/// The workers' end of an exporter.
#[derive(Clone, Debug)]
pub struct ExporterHandle {
    queue: mpsc::Sender<Span>,
    stats: stat::Scope,
}

impl ExporterHandle {
    /// Hands over a span, or drops it where there is no room.
    pub fn send(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.stats.inc(stat::spans_dropped);
        }
    }
}

/// The main thread's end of an exporter. It ends when all handles are gone.
#[derive(Debug)]
pub struct Running {
    exporter: Exporter,
    spans: mpsc::Receiver<Span>,
    stats: stat::Scope,
    address: Option<std::net::IpAddr>,
}

/// All exporters of the process. Tracers find theirs here, on any thread; the main thread runs what is new.
#[derive(Debug)]
pub struct Exporters {
    handles: Mutex<HashMap<Exporter, ExporterHandle>>,
    new: mpsc::UnboundedSender<Running>,
    stats: Arc<Store>,
    address: Option<std::net::IpAddr>,
}

impl Exporters {
    /// None yet; the other end is the main thread's. `address` is ours, as spans tell it.
    pub fn new(
        stats: Arc<Store>,
        address: Option<std::net::IpAddr>,
    ) -> (Self, mpsc::UnboundedReceiver<Running>) {
        let (new, started) = mpsc::unbounded_channel();
        (Self { handles: Mutex::default(), new, stats, address }, started)
    }

    /// The exporter to this collector.
    pub fn get(&self, exporter: Exporter) -> ExporterHandle {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.get(&exporter) {
            return handle.clone();
        }
        let name = match exporter.protocol {
            Protocol::Zipkin { .. } => "zipkin",
            Protocol::OtlpGrpc | Protocol::OtlpHttp { .. } => "opentelemetry",
        };
        let stats: stat::Scope = self.stats.pinned(name);
        let (queue, spans) = mpsc::channel(QUEUE);
        let handle = ExporterHandle { queue, stats: stats.clone() };
        // Without a main thread there is nobody to export; spans are dropped then.
        let _ = self.new.send(Running { exporter: exporter.clone(), spans, stats, address: self.address });
        handles.insert(exporter, handle.clone());
        handle
    }
}

/// Runs exporters as they are made. To be run on the main thread's local task set.
pub(crate) async fn run_all(mut started: mpsc::UnboundedReceiver<Running>, target: Targets) {
    let mut tasks = Vec::new();
    while let Some(running) = started.recv().await {
        tasks.push(base::task::Supervised::spawn_local(run(running, target.clone())));
    }
}

impl Exporter {
    async fn post(
        &self,
        target: &Target,
        spans: &[Span],
        address: Option<std::net::IpAddr>,
    ) -> Result<(), Failure> {
        match &self.protocol {
            Protocol::Zipkin { path, host } => {
                let body = zipkin::encode(spans, &self.service, address);
                let request = Request::post(path.as_str())
                    .header(header::HOST, host)
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Full::new(Bytes::from(body)))?;
                send(target, request).await
            }
            Protocol::OtlpHttp { uri, headers } => {
                let body = otlp::encode(spans, &self.service).encode_to_vec();
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                post(target, (&self.cluster, uri, "/v1/traces"), headers, body).await
            }
            Protocol::OtlpGrpc => {
                let mut grpc = dial::grpc(target, None).await?;
                grpc.ready().await?;
                let path = http::uri::PathAndQuery::from_static(
                    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                );
                let codec = ProstCodec::<otlp::ExportRequest, otlp::ExportResponse>::default();
                grpc.unary(tonic::Request::new(otlp::encode(spans, &self.service)), path, codec).await?;
                Ok(())
            }
        }
    }
}

type Failure = Box<dyn std::error::Error>;

async fn run(running: Running, target: Targets) {
    let Running { exporter, mut spans, stats, address } = running;
    let mut batch = Vec::new();
    loop {
        if spans.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // Spans of one request end within moments of each other.
        tokio::time::sleep(INTERVAL).await;
        while batch.len() < BATCH {
            let Ok(span) = spans.try_recv() else { break };
            batch.push(span);
        }
        let Some(target) = target(&exporter.cluster) else {
            stats.inc(stat::reports_skipped_no_cluster);
            stats.add(stat::spans_dropped, batch.len() as u64);
            batch.clear();
            continue;
        };
        let posted = tokio::time::timeout(exporter.timeout, exporter.post(&target, &batch, address)).await;
        match posted.unwrap_or_else(|_| Err("the collector takes too long".into())) {
            Ok(()) => {
                stats.inc(stat::reports_sent);
                stats.add(stat::spans_sent, batch.len() as u64);
            }
            Err(error) => {
                stats.inc(stat::reports_dropped);
                stats.add(stat::spans_dropped, batch.len() as u64);
                tracing::debug!(cluster = exporter.cluster, %error, "cannot export spans");
            }
        }
        batch.clear();
    }
}

/// Posts protobuf to a collector: by its cluster's name, its URI, and the path where the URI has none.
pub(crate) async fn post<'a>(
    target: &Target,
    (cluster, uri, path): (&str, &str, &str),
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    body: Vec<u8>,
) -> Result<(), Failure> {
    let uri: Uri = uri.parse()?;
    let path = uri.path_and_query().map(|path| path.as_str()).filter(|found| *found != "/").unwrap_or(path);
    let host = uri.authority().map_or(cluster, |authority| authority.as_str());
    let mut request =
        Request::post(path).header(header::HOST, host).header(header::CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    send(target, request.body(Full::new(Bytes::from(body)))?).await
}

/// Sends a request in the protocol that the target's cluster speaks.
async fn send(target: &Target, request: Request<Full<Bytes>>) -> Result<(), Failure> {
    let stream = target.connect().await?;
    if target.http2 { http2(stream, request).await } else { http1(stream, request).await }
}

async fn http2(stream: Box<dyn Connect>, mut request: Request<Full<Bytes>>) -> Result<(), Failure> {
    let host = request.headers_mut().remove(header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("cluster");
    *request.uri_mut() = format!("http://{host}{}", request.uri()).parse()?;
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = base::task::Supervised::spawn(async move {
        // Its end is seen by the request on it.
        let _ = connection.await;
    });
    let answered = finish(send.send_request(request).await?).await;
    drop(connection);
    answered
}

async fn http1(stream: Box<dyn Connect>, request: Request<Full<Bytes>>) -> Result<(), Failure> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = base::task::Supervised::spawn(async move {
        // Its end is seen by the request on it.
        let _ = connection.await;
    });
    let answered = finish(send.send_request(request).await?).await;
    drop(connection);
    answered
}

/// Reads an answer, so that the collector is not cut off in the middle of it.
async fn finish(response: http::Response<hyper::body::Incoming>) -> Result<(), Failure> {
    let status = response.status();
    let _ = Limited::new(response.into_body(), 64 * 1024).collect().await;
    if status.is_success() { Ok(()) } else { Err(format!("the collector answered {status}").into()) }
}
