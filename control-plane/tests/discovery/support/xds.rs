//! A delta client, as sail-proxy and Envoy are.

use std::collections::BTreeMap;

use identity::Svid;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use xds_api::google::protobuf::value::Kind;
use xds_api::google::protobuf::{Struct, Value};
use xds_api::type_url;
use xds_stream::client::{Client, Names, Protocol, Received, Request as Message};
use xds_stream::wire;

use super::{Saild, TIMEOUT, local};

pub(crate) async fn plain_channel(saild: &Saild) -> Channel {
    let uri = format!("http://{}", local(saild.addresses["grpc"]));
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub(crate) async fn tls_channel(saild: &Saild, svid: Option<&Svid>) -> Channel {
    let uri = format!("https://{}", local(saild.addresses["secureGrpc"]));
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(saild.root()))
        .domain_name("istiod.istio-system.svc");
    if let Some(svid) = svid {
        tls = tls.identity(Identity::from_pem(svid.chain().to_pem(), svid.key().to_pem()));
    }
    Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
}

pub(crate) fn sidecar(pod: &str, address: &str) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let metadata = [("NAMESPACE", "default"), ("CLUSTER_ID", "Kubernetes"), ("ISTIO_VERSION", "1.30.0")];
    let fields = metadata.map(|(key, value)| (key.to_owned(), text(value)));
    Node {
        id: format!("sidecar~{address}~{pod}.default~default.svc.cluster.local"),
        metadata: Some(Struct { fields: fields.into() }),
        ..Node::default()
    }
}

pub(crate) struct Xds {
    client: Client,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<wire::DeltaResponse>,
    /// What the server has sent: type, name, version.
    pub(crate) held: BTreeMap<(String, String), String>,
}

impl Xds {
    /// Opens a stream and asks for clusters and listeners.
    pub(crate) async fn open(channel: Channel, node: Node, token: Option<&str>) -> Result<Self, Status> {
        let mut client = Client::new(Protocol::Delta, node);
        client.watch(type_url::CLUSTER, Names::All);
        client.watch(type_url::LISTENER, Names::All);
        let (requests, receive) = mpsc::channel(16);
        while let Some(Message::Delta(request)) = client.next_request() {
            requests.send(request).await.unwrap();
        }
        let mut request = Request::new(ReceiverStream::new(receive));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<DeltaDiscoveryRequest, wire::DeltaResponse>::default();
        let path = http::uri::PathAndQuery::from_static(wire::DELTA_PATH);
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Self { client, requests, responses, held: BTreeMap::new() })
    }

    pub(crate) async fn watch(&mut self, type_url: &str, names: &[&str]) {
        self.client.watch(type_url, Names::Only(names.iter().map(|&name| name.to_owned()).collect()));
        self.say().await;
    }

    async fn say(&mut self) {
        while let Some(Message::Delta(request)) = self.client.next_request() {
            self.requests.send(request).await.unwrap();
        }
    }

    /// The next response, accepted.
    pub(crate) async fn next(&mut self) -> Result<Received, Status> {
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.responses.message()).await;
            let response =
                message.expect("a response in time")?.ok_or_else(|| Status::cancelled("the end"))?;
            if let Some(received) = self.client.on_delta(response) {
                self.client.accept(&received);
                self.say().await;
                for resource in &received.resources {
                    let key = (received.type_url.clone(), resource.name.to_string());
                    self.held.insert(key, resource.version.to_string());
                }
                return Ok(received);
            }
        }
    }

    /// Receives until a type's answer is among what came.
    pub(crate) async fn until(&mut self, type_url: &str) -> Received {
        loop {
            let received = self.next().await.unwrap();
            if received.type_url == type_url {
                return received;
            }
        }
    }
}

/// `+name` for what came, `-name` for what went.
pub(crate) fn describe(received: &Received) -> Vec<String> {
    let came = received.resources.iter().map(|resource| format!("+{}", resource.name));
    came.chain(received.removed.iter().map(|name| format!("-{name}"))).collect()
}
