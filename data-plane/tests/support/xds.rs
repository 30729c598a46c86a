//! A delta xDS server that a test drives message by message.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use prost::{Message, Name};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use xds_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds_api::google::protobuf::Any;

use super::wait;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Default)]
struct State {
    requests: Vec<DeltaDiscoveryRequest>,
    types: BTreeSet<String>,
    send: Option<mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>>,
    streams: usize,
    silent: bool,
}

/// The server. Dropped, it is gone with all its streams.
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    nonce: u64,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Service(Arc<Mutex<State>>);

impl Server {
    /// On a port of the kernel's choosing, or on this one.
    pub fn start(address: Option<SocketAddr>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let service = AggregatedDiscoveryServiceServer::new(Service(state.clone()));
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { address, state, nonce: 0, runtime: Some(runtime) }
    }

    /// From now on streams are taken and never answered, not even with headers.
    pub fn fall_silent(&self) {
        self.state.lock().unwrap().silent = true;
    }

    /// Ends the stream.
    pub fn hang_up(&self) {
        self.state.lock().unwrap().send = None;
    }

    /// Waits for the next request of this type that is no answer, and takes it.
    pub fn subscription(&self, type_url: &str) -> DeltaDiscoveryRequest {
        self.take(&format!("a subscription to {type_url}"), |request| {
            request.type_url == type_url && request.response_nonce.is_empty()
        })
    }

    /// Sends resources and waits for the answer.
    pub fn send<M: Message + Name>(
        &mut self,
        resources: &[(&str, M)],
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        let resource = |(name, message): &(&str, M)| Resource {
            name: (*name).to_owned(),
            version: format!("n{}", self.nonce + 1),
            resource: Some(Any { type_url: M::type_url(), value: message.encode_to_vec() }),
            ..Default::default()
        };
        let resources = resources.iter().map(resource).collect();
        self.send_as_is(&M::type_url(), resources, removed)
    }

    /// As [`Self::send`], with resources that may be odd.
    pub fn send_as_is(
        &mut self,
        type_url: &str,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        self.nonce += 1;
        let nonce = format!("n{}", self.nonce);
        let response = DeltaDiscoveryResponse {
            system_version_info: nonce.clone(),
            resources,
            type_url: type_url.to_owned(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: nonce.clone(),
            ..Default::default()
        };
        let sender = wait("a stream", || self.state.lock().unwrap().send.clone());
        sender.send(Ok(response)).unwrap();
        self.take(&format!("an answer to {nonce}"), |request| request.response_nonce == nonce)
    }

    /// All types that were asked for.
    pub fn types(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().types.clone()
    }

    /// How many streams there were.
    pub fn streams(&self) -> usize {
        self.state.lock().unwrap().streams
    }

    fn take(&self, what: &str, wanted: impl Fn(&DeltaDiscoveryRequest) -> bool) -> DeltaDiscoveryRequest {
        wait(what, || {
            let mut state = self.state.lock().unwrap();
            let place = state.requests.iter().position(&wanted)?;
            Some(state.requests.remove(place))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Out<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Out<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (send, out) = mpsc::unbounded_channel();
        {
            let mut state = self.0.lock().unwrap();
            state.send = Some(send);
            state.streams += 1;
        }
        let (state, mut requests) = (self.0.clone(), request.into_inner());
        let silent = state.lock().unwrap().silent;
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let mut state = state.lock().unwrap();
                state.types.insert(request.type_url.clone());
                state.requests.push(request);
            }
        });
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(out))))
    }
}
