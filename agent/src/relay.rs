//! The xDS relay: a proxy's stream on the Unix socket becomes one stream to the control plane, untouched but for the
//! name table, which the agent subscribes to for its own DNS, and for wasm plugins, whose modules the agent fetches.
//! While the control plane is away, the proxy's stream is held open; when it breaks, the proxy's stream is closed, and
//! the proxy subscribes anew and says what it has.

mod batch;
mod extensions;
mod ledger;
mod modules;
mod names;
mod plugin;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::backoff::Backoff;
use base::task::Supervised;
use bytes::Bytes;
use futures_util::Stream;
use http::uri::PathAndQuery;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::body::Body;
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::dns::NameTables;
use crate::frames::{RawCodec, text_field};
use crate::stats::AgentStats;
use crate::upstream::Upstream;
use extensions::Extensions;
use ledger::Ledger;
pub use modules::Modules;
use names::Wire;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Relays streams.
#[derive(Debug)]
pub struct Relay {
    /// The control plane.
    pub upstream: Upstream,
    /// Where the name table goes; `None` where the agent answers no DNS.
    pub names: Option<Arc<NameTables>>,
    /// Where modules of wasm plugins are kept.
    pub modules: Modules,
    /// What is counted.
    pub stats: Arc<AgentStats>,
}

/// Serves until it is dropped.
pub async fn serve(listener: UnixListener, relay: Relay) -> Result<(), tonic::transport::Error> {
    let service = RelayService(Arc::new(relay));
    Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

#[derive(Clone)]
struct RelayService(Arc<Relay>);

impl NamedService for RelayService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower::Service<http::Request<Body>> for RelayService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let relay = Arc::clone(&self.0);
        Box::pin(async move {
            let Some(wire) = Wire::of_path(request.uri().path()) else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let mut grpc = tonic::server::Grpc::new(RawCodec).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(Call { relay, wire }, request).await)
        })
    }
}

struct Call {
    relay: Arc<Relay>,
    wire: Wire,
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Downstream;
    type Future = std::future::Ready<Result<Response<Downstream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (send, receive) = mpsc::channel(4);
        let (relay, wire) = (Arc::clone(&self.relay), self.wire);
        let task = Supervised::spawn(async move {
            let status = run(&relay, wire, request.into_inner(), &send).await;
            // Where the proxy is gone, nobody needs to be told.
            let _ = send.send(Err(status)).await;
        });
        let stream = Downstream { responses: ReceiverStream::new(receive), _task: task };
        std::future::ready(Ok(Response::new(stream)))
    }
}

/// What the proxy reads; dropping it ends the stream to the control plane.
struct Downstream {
    responses: ReceiverStream<Result<Bytes, Status>>,
    _task: Supervised<()>,
}

impl Stream for Downstream {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.responses).poll_next(cx)
    }
}

type ToProxy = mpsc::Sender<Result<Bytes, Status>>;

/// Runs one stream to its end; returns what the proxy is told.
async fn run(relay: &Relay, wire: Wire, mut requests: Streaming<Bytes>, to_proxy: &ToProxy) -> Status {
    // The first request says who the proxy is; without it there is nothing to open a stream for.
    let first = match requests.message().await {
        Ok(Some(first)) => first,
        Ok(None) => return Status::ok(""),
        Err(status) => return status,
    };
    let channel = connect(relay).await;
    let (send, receive) = mpsc::channel(16);
    let mut call = Request::new(ReceiverStream::new(receive));
    if let Err(error) = relay.upstream.authenticate(call.metadata_mut()).await {
        return lost(relay, &anyhow::Error::from(error));
    }
    let ledger = Ledger::default();
    // The channel is empty: these cannot block.
    let _ = send.send(ledger.request(wire, first)).await;
    if relay.names.is_some() {
        let _ = send.send(wire.subscribe_to_names()).await;
    }
    relay.stats.xds_streams.inc();
    tokio::select! {
        status = pump_requests(&mut requests, (wire, &ledger), send.clone()) => status,
        status = pump_responses(relay, (wire, &ledger), channel, call, (send, to_proxy)) => status,
    }
}

/// Tries until the control plane is there.
async fn connect(relay: &Relay) -> Channel {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match relay.upstream.connect().await {
            Ok(channel) => return channel,
            Err(error) => {
                lost(relay, &anyhow::Error::from(error));
                let delay = backoff.next_delay(&mut rand::rng());
                tokio::time::sleep(delay).await;
            }
        }
    }
}

fn lost(relay: &Relay, error: &anyhow::Error) -> Status {
    relay.stats.xds_failures.inc();
    let address = &relay.upstream.address;
    tracing::warn!(
        address,
        error = format!("{error:#}"),
        "no configuration from the control plane; trying again"
    );
    Status::unavailable(format!("{error:#}"))
}

async fn pump_requests(
    requests: &mut Streaming<Bytes>,
    (wire, ledger): (Wire, &Ledger),
    send: mpsc::Sender<Bytes>,
) -> Status {
    loop {
        match requests.message().await {
            Ok(Some(request)) => {
                if send.send(ledger.request(wire, request)).await.is_err() {
                    // The other pump knows why the stream to the control plane ended.
                    std::future::pending::<()>().await;
                }
            }
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

async fn pump_responses(
    relay: &Relay,
    (wire, ledger): (Wire, &Ledger),
    channel: Channel,
    call: Request<ReceiverStream<Bytes>>,
    (to_control_plane, to_proxy): (mpsc::Sender<Bytes>, &ToProxy),
) -> Status {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
    if let Err(error) = client.ready().await {
        return lost(relay, &anyhow::Error::from(error));
    }
    let path = PathAndQuery::from_static(wire.path());
    let mut responses: Streaming<Bytes> = match client.streaming(call, path, RawCodec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refused(relay, status),
    };
    let mut extensions = Extensions::new(wire, &relay.modules, ledger);
    loop {
        let response = tokio::select! {
            response = responses.message() => match response {
                Ok(Some(response)) => response,
                Ok(None) => return Status::unavailable("the control plane closed the stream"),
                Err(status) => return refused(relay, status),
            },
            // Modules that are being fetched hold nothing else up.
            news = extensions.next() => {
                if let Some(answer) = news.for_control_plane
                    && to_control_plane.send(answer).await.is_err()
                {
                    return Status::unavailable("the control plane closed the stream");
                }
                if let Some(response) = news.for_proxy
                    && to_proxy.send(Ok(response)).await.is_err()
                {
                    return Status::cancelled("the proxy is gone");
                }
                continue;
            }
        };
        let type_url = text_field(&response, names::RESPONSE_TYPE_URL);
        if type_url == Some(xds_api::type_url::EXTENSION_CONFIG) {
            if let Some(response) = extensions.take(response).await
                && to_proxy.send(Ok(response)).await.is_err()
            {
                return Status::cancelled("the proxy is gone");
            }
        } else if let Some(tables) = &relay.names
            && type_url == Some(xds_api::type_url::NAME_TABLE)
        {
            let answer = wire.take_names(response, tables);
            if to_control_plane.send(answer).await.is_err() {
                return Status::unavailable("the control plane closed the stream");
            }
        } else if to_proxy.send(Ok(response)).await.is_err() {
            return Status::cancelled("the proxy is gone");
        }
    }
}

fn refused(relay: &Relay, status: Status) -> Status {
    relay.stats.xds_failures.inc();
    let (address, code) = (&relay.upstream.address, status.code());
    tracing::warn!(address, %code, message = status.message(), "the xDS stream ended");
    status
}
