//! The gRPC service `AggregatedDiscoveryService` and the push queue behind it.
//!
//! The service is written out, not generated, so that responses go out as [`xds_stream::wire`] has them: with the
//! bytes of resources shared.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use base::drain;
use base::task::Supervised;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use saild_model::ChangeSet;
use tokio::sync::{Semaphore, mpsc};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use xds_api::envoy::config::core::v3::ControlPlane;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_stream::session::Protocol;
use xds_stream::wire;

use crate::admission::Admission;
use crate::connection::Connection;
use crate::debounce::{self, Delays};
use crate::debug::Page;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::stream::{self, Inbound, Outbound};

/// Changes that wait to be debounced. A registry that fills it waits.
const CHANGES: usize = 1024;
/// The largest request.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Debouncing of changes.
    pub delays: Delays,
    /// Pushes that are made at the same time (`PILOT_PUSH_THROTTLE`).
    pub concurrent_pushes: usize,
    /// A stream is ended after this time, with a tenth of jitter, so that proxies spread over replicas.
    pub max_stream_age: Option<Duration>,
    /// Streams that may be opened in a second (`PILOT_MAX_REQUESTS_PER_SECOND`); others wait.
    pub streams_per_second: f64,
    /// A client that reads nothing for this time is disconnected.
    pub send_timeout: Duration,
    /// What responses name as their maker.
    pub control_plane: ControlPlane,
    /// The namespace whose callers see every debug page (`istio-system`).
    pub system_namespace: String,
}

impl Options {
    /// As Istio's, for a machine with so many processors.
    pub fn for_cores(cores: usize) -> Self {
        Self {
            delays: Delays::default(),
            concurrent_pushes: (15 + 5 * cores).min(100),
            max_stream_age: Some(Duration::from_secs(30 * 60)),
            streams_per_second: (15 + 5 * cores).min(100) as f64,
            send_timeout: Duration::from_secs(60),
            control_plane: ControlPlane { identifier: "saild".to_owned() },
            system_namespace: "istio-system".to_owned(),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) options: Options,
    pub(crate) connections: DashMap<u64, Arc<Connection>>,
    pub(crate) permits: Semaphore,
    pub(crate) opened: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: drain::Watch,
    pub(crate) pages: OnceLock<Vec<Page>>,
    next_id: AtomicU64,
    nonce: AtomicU64,
}

impl Shared {
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn sorted(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<Arc<Connection>> =
            self.connections.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by_key(|connection| connection.id);
        all
    }

    /// The connection of a proxy, by `<pod>.<namespace>` or by its whole node id; the youngest if there are several.
    pub(crate) fn find(&self, proxy: &str) -> Option<Arc<Connection>> {
        let mut all = self.sorted();
        all.retain(|connection| connection.proxy() == proxy || connection.node.id == proxy);
        all.pop()
    }

    /// Pushes everything to everybody.
    pub(crate) fn push_all(&self) {
        for connection in &self.connections {
            connection.queue(&ChangeSet::all(), tokio::time::Instant::now());
        }
    }

    pub(crate) fn next_nonce(&self, version: &str) -> String {
        let random: u32 = rand::random();
        format!("{version}/{:x}-{random:08x}", self.nonce.fetch_add(1, Ordering::Relaxed))
    }
}

/// The server. Clones share it.
#[derive(Clone)]
pub struct Ads {
    shared: Arc<Shared>,
    _pushing: Arc<Supervised<()>>,
}

impl fmt::Debug for Ads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ads").field("connections", &self.shared.connections.len()).finish_non_exhaustive()
    }
}

/// Tells the server what changed.
#[derive(Clone, Debug)]
pub struct Pusher {
    changes: mpsc::Sender<ChangeSet>,
    metrics: Arc<Metrics>,
}

impl Pusher {
    /// Something changed; proxies that it concerns are sent it once changes pause.
    pub async fn changed(&self, change: ChangeSet) {
        if change.is_empty() {
            return;
        }
        self.metrics.inbound_updates.increment(if change.only_endpoints() { "eds" } else { "config" });
        // An error means that the server is gone: nobody is left to tell.
        let _ = self.changes.send(change).await;
    }
}

impl Ads {
    /// A server that serves what its host generates.
    pub fn new(
        host: Arc<dyn Host>,
        options: Options,
        metrics: Arc<Metrics>,
        drain: drain::Watch,
    ) -> (Self, Pusher) {
        let (send, receive) = mpsc::channel(CHANGES);
        let delays = options.delays;
        let shared = Arc::new(Shared {
            host,
            permits: Semaphore::new(options.concurrent_pushes.max(1)),
            opened: Admission::new(options.streams_per_second),
            options,
            connections: DashMap::new(),
            metrics: Arc::clone(&metrics),
            drain,
            pages: OnceLock::new(),
            next_id: AtomicU64::new(0),
            nonce: AtomicU64::new(0),
        });
        let pushing = Arc::clone(&shared);
        let pushing = Supervised::spawn(debounce::run(receive, delays, move |settled| {
            let metrics = &pushing.metrics;
            metrics.debounce_time.observe(settled.since.elapsed());
            metrics.triggers.increment(if settled.change.only_endpoints() { "endpoint" } else { "config" });
            for connection in &pushing.connections {
                connection.queue(&settled.change, settled.since);
            }
        }));
        (Self { shared, _pushing: Arc::new(pushing) }, Pusher { changes: send, metrics })
    }

    /// The pages that answer `istio.io/debug` requests. The first call counts.
    pub fn set_pages(&self, pages: Vec<Page>) {
        // A second list would be a mistake in the wiring, and the first one still answers.
        let _ = self.shared.pages.set(pages);
    }

    /// Everybody who is connected, in the order of their connecting.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.shared.sorted()
    }

    pub(crate) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}

impl NamedService for Ads {
    const NAME: &'static str = wire::SERVICE;
}

impl<B> tower_service::Service<::http::Request<B>> for Ads
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        match request.uri().path() {
            wire::DELTA_PATH => Box::pin(async move {
                let codec = ProstCodec::<wire::DeltaResponse, DeltaDiscoveryRequest>::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
                Ok(grpc.streaming(Delta(shared), request).await)
            }),
            wire::SOTW_PATH => Box::pin(async move {
                let codec = ProstCodec::<wire::Response, DiscoveryRequest>::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
                Ok(grpc.streaming(Sotw(shared), request).await)
            }),
            _ => Box::pin(std::future::ready(Ok(Status::unimplemented(
                "only StreamAggregatedResources and DeltaAggregatedResources are served",
            )
            .into_http()))),
        }
    }
}

struct Delta(Arc<Shared>);

impl StreamingService<DeltaDiscoveryRequest> for Delta {
    type Response = wire::DeltaResponse;
    type ResponseStream = Outbound<wire::DeltaResponse>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let (_, extensions, requests) = request.into_parts();
            let requests = requests.map(|request| request.map(Inbound::Delta)).boxed();
            stream::open(shared, Protocol::Delta, extensions, requests).await
        })
    }
}

struct Sotw(Arc<Shared>);

impl StreamingService<DiscoveryRequest> for Sotw {
    type Response = wire::Response;
    type ResponseStream = Outbound<wire::Response>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let (_, extensions, requests) = request.into_parts();
            let requests = requests.map(|request| request.map(Inbound::Sotw)).boxed();
            stream::open(shared, Protocol::Sotw, extensions, requests).await
        })
    }
}
