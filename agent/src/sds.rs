//! The SDS server on the workload's Unix socket: `default`, `ROOTCA`, and certificates in files by name.

mod resources;
mod session;

use std::pin::Pin;

use base::task::Supervised;
use futures_util::Stream;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds_api::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};

use crate::files::FileWatch;
use crate::secrets::SecretsWatch;
use resources::Resources;
use session::{Delta, Protocol, Session, Sotw};

/// Serves until it is dropped.
pub async fn serve(listener: UnixListener, secrets: SecretsWatch) -> Result<(), tonic::transport::Error> {
    let service = SecretDiscoveryServiceServer::new(Sds { secrets });
    Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)).await
}

struct Sds {
    secrets: SecretsWatch,
}

/// A response stream that ends its session when the client is gone.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Sds {
    fn open<P: Protocol>(&self, requests: Streaming<P::Request>) -> Response<Responses<P::Response>> {
        let (send, receive) = mpsc::channel(4);
        let secrets = self.secrets.clone();
        let task = Supervised::spawn(run::<P>(requests, send, secrets));
        let responses = ReceiverStream::new(receive);
        // The stream owns its task.
        let stream = futures_util::StreamExt::map(responses, move |item| {
            let _running = task.is_finished();
            item
        });
        Response::new(Box::pin(stream))
    }
}

async fn run<P: Protocol>(
    mut requests: Streaming<P::Request>,
    send: mpsc::Sender<Result<P::Response, Status>>,
    secrets: SecretsWatch,
) {
    let mut session = Session::<P>::new();
    let mut resources = Resources::new(secrets);
    let mut files: Option<FileWatch> = None;
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                session.on_request(request);
                let paths = session.names().flat_map(resources::files).collect::<Vec<_>>();
                files = (!paths.is_empty()).then(|| FileWatch::new(paths.iter().map(|path| path.as_path())));
            }
            changed = resources.changed() => if changed.is_err() { return },
            () = changed(&mut files) => {}
        }
        if let Some(response) = session.response(|name| resources.get(name))
            && send.send(Ok(response)).await.is_err()
        {
            return;
        }
    }
}

async fn changed(files: &mut Option<FileWatch>) {
    match files {
        Some(files) => files.changed().await,
        None => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = Responses<DiscoveryResponse>;
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.open::<Sotw>(request.into_inner()))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.open::<Delta>(request.into_inner()))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::<Sotw>::new();
        session.on_request(request.into_inner());
        let mut resources = Resources::new(self.secrets.clone());
        let response = session.response(|name| resources.get(name));
        response.map(Response::new).ok_or_else(|| Status::unavailable("these secrets are not there yet"))
    }
}
