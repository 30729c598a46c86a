//! A certificate authority and an xDS server over TLS, small enough to be understood at a glance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use identity::tls::{ClientAuth, ServerSide, Watched};
use identity::{Csr, KeyAlgorithm, KeyPair, San, Svid};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use xds_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds_api::google::protobuf::Any;
use xds_api::istio::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use xds_api::istio::auth::{IstioCertificateRequest, IstioCertificateResponse};

/// Resources by type URL, each with its name.
pub(crate) type World = BTreeMap<String, Vec<(String, Any)>>;

/// What the control plane saw and what it answers.
#[derive(Default)]
pub(crate) struct State {
    /// Sent to whoever subscribes.
    pub(crate) world: World,
    /// Certificate requests refused.
    pub(crate) refuse_certificates: bool,
    /// Certificates issued.
    pub(crate) issued: usize,
    /// `authorization` headers of certificate requests and streams.
    pub(crate) tokens: Vec<String>,
    /// `clusterid` headers.
    pub(crate) clusters: Vec<String>,
    /// Ids of nodes that opened streams.
    pub(crate) nodes: Vec<String>,
    /// Type URLs asked for.
    pub(crate) subscribed: Vec<String>,
    /// Type URLs acknowledged.
    pub(crate) acknowledged: Vec<String>,
    /// Refusals.
    pub(crate) refused: Vec<String>,
}

/// A control plane whose root and address survive a restart.
pub(crate) struct ControlPlane {
    /// What it saw and answers.
    pub(crate) state: Arc<Mutex<State>>,
    root: Arc<Root>,
    address: SocketAddr,
    server: Option<Runtime>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Root {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl ControlPlane {
    /// Starts on a port of the kernel's choice.
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap().into_rcgen();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let root = Arc::new(Root { issuer: rcgen::Issuer::new(params, key), pem });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut plane = Self { state: Arc::default(), root, address, server: None };
        plane.serve(listener);
        plane
    }

    /// Ends at once, and with it all connections: they are tasks of a runtime of their own.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// Starts again at the same address.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let listener =
            super::until("the port is free again", async || TcpListener::bind(self.address).await.ok());
        let listener = listener.await;
        self.serve(listener);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root that agents must trust.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root.pem
    }

    pub(crate) fn write_root(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.root_pem()).unwrap();
    }

    /// A certificate of this root.
    pub(crate) fn svid(&self, san: &San) -> Svid {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let public = rcgen::SubjectPublicKeyInfo::from_der(&key.public_key_der()).unwrap();
        let chain = self.root.sign(&public, san, Duration::from_secs(3600));
        Svid::from_pem(&chain.concat(), &key.to_pem()).unwrap()
    }

    fn serve(&mut self, listener: TcpListener) {
        let server = ServerSide {
            svid: Watched::new(self.svid(&San::dns("istiod.istio-system.svc"))),
            client_auth: ClientAuth::None,
            alpn: vec![b"h2".to_vec()],
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server.config().unwrap()));
        let (send, connections) = mpsc::channel(8);
        let services = Services { state: Arc::clone(&self.state), root: Arc::clone(&self.root) };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let accept = async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = send.send(Ok::<_, std::io::Error>(stream)).await;
                    }
                }
            };
            let serve = Server::builder()
                .add_service(IstioCertificateServiceServer::new(services.clone()))
                .add_service(AggregatedDiscoveryServiceServer::new(services))
                .serve_with_incoming(ReceiverStream::new(connections));
            let _ = tokio::join!(accept, serve);
        });
        self.server = Some(runtime);
    }
}

impl Root {
    fn sign(&self, key: &impl rcgen::PublicKeyData, san: &San, ttl: Duration) -> Vec<String> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = san.value.as_str().try_into().unwrap();
        params.subject_alt_names = vec![match san.kind {
            identity::SanKind::Dns => rcgen::SanType::DnsName(name),
            _ => rcgen::SanType::URI(name),
        }];
        params.not_before = std::time::SystemTime::now().into();
        params.not_after = (std::time::SystemTime::now() + ttl).into();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        vec![params.signed_by(key, &self.issuer).unwrap().pem(), self.pem.clone()]
    }
}

#[derive(Clone)]
struct Services {
    state: Arc<Mutex<State>>,
    root: Arc<Root>,
}

impl Services {
    fn note_headers(&self, metadata: &MetadataMap) {
        let get = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut state = self.state.lock().unwrap();
        state.tokens.extend(get("authorization"));
        state.clusters.extend(get("clusterid"));
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Services {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.note_headers(request.metadata());
        if self.state.lock().unwrap().refuse_certificates {
            return Err(Status::unavailable("the authority is on holiday"));
        }
        let request = request.into_inner();
        let csr = Csr::from_pem(&request.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let ttl = Duration::from_secs(u64::try_from(request.validity_duration).unwrap());
        let cert_chain = self.root.sign(&csr.to_rcgen_public_key().unwrap(), &csr.sans[0], ttl);
        self.state.lock().unwrap().issued += 1;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Services {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.note_headers(request.metadata());
        let (send, receive) = mpsc::channel(16);
        let (state, mut requests) = (Arc::clone(&self.state), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answered = note(
                    &state,
                    request.node.map(|node| node.id),
                    &request.type_url,
                    &request.response_nonce,
                    request.error_detail.map(|error| error.message),
                );
                let Some(resources) = answered else { continue };
                let response = DiscoveryResponse {
                    version_info: "1".into(),
                    resources: resources.into_iter().map(|(_, any)| any).collect(),
                    type_url: request.type_url,
                    nonce: "n".into(),
                    ..Default::default()
                };
                if send.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.note_headers(request.metadata());
        let (send, receive) = mpsc::channel(16);
        let (state, mut requests) = (Arc::clone(&self.state), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answered = note(
                    &state,
                    request.node.map(|node| node.id),
                    &request.type_url,
                    &request.response_nonce,
                    request.error_detail.map(|error| error.message),
                );
                let Some(resources) = answered else { continue };
                let resource = |(name, any)| Resource {
                    name,
                    version: "1".into(),
                    resource: Some(any),
                    ..Default::default()
                };
                let response = DeltaDiscoveryResponse {
                    system_version_info: "1".into(),
                    resources: resources.into_iter().map(resource).collect(),
                    type_url: request.type_url,
                    nonce: "n".into(),
                    ..Default::default()
                };
                if send.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

/// Notes a request; what it is answered with, if it asks for something.
fn note(
    state: &Mutex<State>,
    node: Option<String>,
    type_url: &str,
    nonce: &str,
    error: Option<String>,
) -> Option<Vec<(String, Any)>> {
    let mut state = state.lock().unwrap();
    state.nodes.extend(node);
    if let Some(error) = error {
        state.refused.push(format!("{type_url}: {error}"));
        return None;
    }
    if !nonce.is_empty() {
        state.acknowledged.push(type_url.to_owned());
        return None;
    }
    state.subscribed.push(type_url.to_owned());
    state.world.get(type_url).cloned()
}
