//! Services that logs go to. Workers put entries into a bounded queue; the main thread gathers and sends them. A service
//! that is away costs a bounded number of entries, which are counted, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use sail_proxy_config::access_log::{GrpcLogKind, GrpcTarget};
use sail_proxy_config::tracing::OtelExporter;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic_prost::ProstCodec;
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use xds_api::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
    stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
};

use super::otlp;
use crate::dial::{self, Target, Targets};
use crate::stats::sets::single_counter as stat;

/// How many entries wait at most.
const QUEUE: usize = 16 * 1024;
/// How long a service may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a service that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where entries go, and how they are gathered.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) to: Destination,
    pub(super) interval: Duration,
    pub(super) size: usize,
}

/// A service and its protocol.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// Envoy's access log service.
    Als { log_name: Arc<str>, kind: GrpcLogKind, target: GrpcTarget },
    /// An OpenTelemetry collector.
    Otlp { exporter: OtelExporter, resource: Vec<(String, Value)> },
}

impl Config {
    /// Logs of which this is equal share a service.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
    }

    fn cluster(&self) -> &str {
        match &self.to {
            Destination::Als { target, .. }
            | Destination::Otlp { exporter: OtelExporter::Grpc(target), .. } => &target.cluster,
            Destination::Otlp { exporter: OtelExporter::Http { cluster, .. }, .. } => cluster,
        }
    }
}

/// One entry.
#[derive(Debug)]
pub(super) enum Entry {
    Http(Box<HttpAccessLogEntry>),
    Tcp(Box<TcpAccessLogEntry>),
    Record(Box<otlp::LogRecord>),
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::Http(entry) => entry.encoded_len(),
            Self::Tcp(entry) => entry.encoded_len(),
            Self::Record(record) => record.encoded_len(),
        }
    }
}

/// What is counted of a service.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) written: stat::Scope,
    pub(super) dropped: stat::Scope,
}

/// The workers' end.
#[derive(Debug)]
pub(super) struct Service {
    queue: mpsc::Sender<Entry>,
    counters: Counters,
}

impl Service {
    /// Hands an entry over, or drops it where there is no room.
    pub(super) fn send(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.counters.dropped.inc(stat::value);
        }
    }
}

/// The main thread's end. It ends when the service is held no longer.
#[derive(Debug)]
pub struct Running {
    config: Config,
    entries: mpsc::Receiver<Entry>,
    counters: Counters,
}

/// Both ends of a new service.
pub(super) fn open(config: Config, counters: Counters) -> (Service, Running) {
    let (queue, entries) = mpsc::channel(QUEUE);
    let service = Service { queue, counters: counters.clone() };
    (service, Running { config, entries, counters })
}

/// Runs services as they are made. To be run on the main thread's local task set.
pub(crate) async fn run_all(mut started: mpsc::UnboundedReceiver<Running>, node: Node, target: Targets) {
    let mut tasks = Vec::new();
    while let Some(running) = started.recv().await {
        tasks.push(base::task::Supervised::spawn_local(run(running, node.clone(), target.clone())));
    }
}

/// What gathered entries are sent over.
type Stream = mpsc::Sender<StreamAccessLogsMessage>;

async fn run(running: Running, node: Node, target: Targets) {
    let Running { config, mut entries, counters } = running;
    let mut stream: Option<Stream> = None;
    while let Some(batch) = gather(&mut entries, &config).await {
        let count = batch.len() as u64;
        match send(&config, &node, &target, &mut stream, batch).await {
            Ok(()) => counters.written.add(stat::value, count),
            Err(error) => {
                stream = None;
                counters.dropped.add(stat::value, count);
                tracing::debug!(cluster = config.cluster(), %error, "cannot send access logs");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Entries of an interval, or of a buffer's size.
async fn gather(entries: &mut mpsc::Receiver<Entry>, config: &Config) -> Option<Vec<Entry>> {
    let first = entries.recv().await?;
    let mut size = first.size();
    let mut batch = vec![first];
    let end = tokio::time::sleep(config.interval);
    tokio::pin!(end);
    while size < config.size {
        tokio::select! {
            entry = entries.recv() => match entry {
                Some(entry) => {
                    size += entry.size();
                    batch.push(entry);
                }
                None => break,
            },
            () = &mut end => break,
        }
    }
    Some(batch)
}

type Failure = Box<dyn std::error::Error>;

async fn send(
    config: &Config,
    node: &Node,
    targets: &Targets,
    stream: &mut Option<Stream>,
    batch: Vec<Entry>,
) -> Result<(), Failure> {
    let target = || targets(config.cluster()).ok_or("the cluster is not there");
    match &config.to {
        Destination::Als { log_name, kind, target: service } => {
            let mut message = message(*kind, batch);
            if stream.as_ref().is_none_or(mpsc::Sender::is_closed) {
                let node = Some(node.clone());
                message.identifier = Some(Identifier { node, log_name: log_name.to_string() });
                *stream = Some(tokio::time::timeout(TIMEOUT, connect(&target()?, service)).await??);
            }
            let Some(stream) = stream else { return Ok(()) };
            tokio::time::timeout(TIMEOUT, stream.send(message)).await?.map_err(|_| "the stream ended")?;
            Ok(())
        }
        Destination::Otlp { exporter, resource } => {
            let records = batch.into_iter().filter_map(|entry| match entry {
                Entry::Record(record) => Some(*record),
                Entry::Http(_) | Entry::Tcp(_) => None,
            });
            let request = otlp::export(resource, records.collect());
            let limit = match exporter {
                OtelExporter::Http { timeout: Some(limit), .. } => *limit,
                _ => TIMEOUT,
            };
            tokio::time::timeout(limit, export(exporter, &target()?, request)).await?
        }
    }
}

fn message(kind: GrpcLogKind, batch: Vec<Entry>) -> StreamAccessLogsMessage {
    let entries = match kind {
        GrpcLogKind::Http => LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: batch
                .into_iter()
                .filter_map(|entry| if let Entry::Http(entry) = entry { Some(*entry) } else { None })
                .collect(),
        }),
        GrpcLogKind::Tcp => LogEntries::TcpLogs(TcpAccessLogEntries {
            log_entry: batch
                .into_iter()
                .filter_map(|entry| if let Entry::Tcp(entry) = entry { Some(*entry) } else { None })
                .collect(),
        }),
    };
    StreamAccessLogsMessage { identifier: None, log_entries: Some(entries) }
}

fn authority(target: &GrpcTarget) -> Option<&str> {
    Some(&*target.authority).filter(|authority| !authority.is_empty())
}

/// Adds the configured metadata; what cannot be metadata was refused by no one, and is left out.
fn with_metadata<T>(body: T, target: &GrpcTarget) -> tonic::Request<T> {
    let mut request = tonic::Request::new(body);
    for (name, value) in &target.initial_metadata {
        let name = tonic::metadata::AsciiMetadataKey::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            request.metadata_mut().append(name, value);
        }
    }
    request
}

/// Opens a stream. It ends when its sender is dropped, or by the service.
async fn connect(target: &Target, service: &GrpcTarget) -> Result<Stream, Failure> {
    let mut grpc = dial::grpc(target, authority(service)).await?;
    grpc.ready().await?;
    let (sender, receiver) = mpsc::channel(1);
    let request = with_metadata(ReceiverStream::new(receiver), service);
    let path = PathAndQuery::from_static("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs");
    tokio::task::spawn_local(async move {
        let codec = ProstCodec::<StreamAccessLogsMessage, StreamAccessLogsResponse>::default();
        // The answer comes at the end, and says nothing; that it came shows in the closed channel.
        if let Err(error) = grpc.client_streaming(request, path, codec).await {
            tracing::debug!(%error, "an access log stream ended");
        }
    });
    Ok(sender)
}

async fn export(
    exporter: &OtelExporter,
    target: &Target,
    request: otlp::ExportRequest,
) -> Result<(), Failure> {
    match exporter {
        OtelExporter::Grpc(service) => {
            let mut grpc = dial::grpc(target, authority(service)).await?;
            grpc.ready().await?;
            let path = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
            let codec = ProstCodec::<otlp::ExportRequest, otlp::ExportResponse>::default();
            grpc.unary(with_metadata(request, service), path, codec).await?;
            Ok(())
        }
        OtelExporter::Http { cluster, uri, headers, .. } => {
            let headers = headers.iter().map(|(name, value)| (&**name, &**value));
            crate::trace::post(target, (cluster, uri, "/v1/logs"), headers, request.encode_to_vec()).await
        }
    }
}
