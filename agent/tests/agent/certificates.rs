//! Certificates: issued, served over SDS, renewed, kept when the authority is away, read from files.
use std::time::Duration;

use crate::support::agent::{Agent, Setup};
use crate::support::control_plane::ControlPlane;
use crate::support::until;
use agent_contract::{paths, sds};
use identity::{CertificateChain, San, Svid, TrustBundle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use xds_api::any::unpack;
use xds_api::envoy::config::core::v3::data_source::Specifier;
use xds_api::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds_api::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds_api::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use xds_api::google::protobuf::Any;

const SOCKET: &str = paths::WORKLOAD_SOCKET;
const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

struct Sotw {
    names: Vec<String>,
    send: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Sotw {
    async fn open(agent: &Agent, names: &[&str]) -> Self {
        let (send, receive) = mpsc::channel(4);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let request = DiscoveryRequest {
            resource_names: names.clone(),
            type_url: xds_api::type_url::SECRET.to_owned(),
            ..Default::default()
        };
        send.send(request).await.unwrap();
        let mut client = SecretDiscoveryServiceClient::new(agent.socket(SOCKET).await);
        let responses = client.stream_secrets(ReceiverStream::new(receive)).await.unwrap().into_inner();
        Self { names, send, responses }
    }

    async fn next(&mut self) -> DiscoveryResponse {
        let next = tokio::time::timeout(Duration::from_secs(30), self.responses.message());
        let response = next.await.expect("no response").unwrap().unwrap();
        let ack = DiscoveryRequest {
            resource_names: self.names.clone(),
            response_nonce: response.nonce.clone(),
            version_info: response.version_info.clone(),
            ..Default::default()
        };
        let _ = self.send.send(ack).await;
        response
    }
}

fn secret(any: &Any) -> Secret {
    unpack(any).unwrap()
}

fn text(source: Option<xds_api::envoy::config::core::v3::DataSource>) -> String {
    let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier else { panic!("not inline") };
    String::from_utf8(bytes).unwrap()
}

fn svid(any: &Any) -> Svid {
    let Some(Type::TlsCertificate(cert)) = secret(any).r#type else { panic!("no certificate") };
    Svid::from_pem(&text(cert.certificate_chain), &text(cert.private_key)).unwrap()
}

fn bundle(any: &Any) -> TrustBundle {
    let Some(Type::ValidationContext(context)) = secret(any).r#type else { panic!("no roots") };
    TrustBundle::from_pem(&text(context.trusted_ca)).unwrap()
}

#[tokio::test]
async fn a_certificate_is_got_with_the_token_and_renewed_before_it_ends() {
    let plane = ControlPlane::start().await;
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("SECRET_TTL", "4s").start();
    let mut stream = Sotw::open(&agent, &[sds::WORKLOAD]).await;
    let first = svid(&stream.next().await.resources[0]);
    assert_eq!(first.spiffe_id().unwrap().to_string(), REVIEWS);
    assert_eq!(first.chain().certs().len(), 1, "the root is not sent to peers");
    assert_eq!(plane.state.lock().unwrap().tokens[0], "Bearer first");

    agent.setup.write_token("second");
    let second = svid(&stream.next().await.resources[0]);
    assert_ne!(first.leaf().serial, second.leaf().serial);
    assert_ne!(first.leaf().public_key, second.leaf().public_key, "the key is new as well");
    assert!(second.leaf().not_before < first.leaf().not_after, "renewed after the end");
    assert_eq!(plane.state.lock().unwrap().tokens.last().unwrap(), "Bearer second");
}

#[tokio::test]
async fn what_is_in_use_stays_while_the_authority_is_away() {
    let mut plane = ControlPlane::start().await;
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("SECRET_TTL", "3s").start();
    let first = svid(&Sotw::open(&agent, &[sds::WORKLOAD]).await.next().await.resources[0]);
    plane.stop();
    until("renewals fail", async || {
        let (_, metrics) = agent.get(agent.setup.ports.status, "/metrics").await?;
        metrics
            .lines()
            .any(|l| l.starts_with("istio_agent_num_failed_csr_requests") && !l.ends_with(" 0"))
            .then_some(())
    })
    .await;
    let mut stream = Sotw::open(&agent, &[sds::WORKLOAD]).await;
    assert_eq!(svid(&stream.next().await.resources[0]).leaf(), first.leaf());
    plane.restart().await;
    assert_ne!(svid(&stream.next().await.resources[0]).leaf(), first.leaf());
}

#[tokio::test]
async fn roots_and_certificates_over_delta() {
    let plane = ControlPlane::start().await;
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("ECC_SIGNATURE_ALGORITHM", "").start();
    let (send, receive) = mpsc::channel(4);
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec![sds::WORKLOAD.to_owned(), sds::ROOT.to_owned()],
        type_url: xds_api::type_url::SECRET.to_owned(),
        ..Default::default()
    };
    send.send(request).await.unwrap();
    let mut client = SecretDiscoveryServiceClient::new(agent.socket(SOCKET).await);
    let mut responses = client.delta_secrets(ReceiverStream::new(receive)).await.unwrap().into_inner();
    let mut found = std::collections::BTreeMap::new();
    while found.len() < 2 {
        let response: DeltaDiscoveryResponse = responses.message().await.unwrap().unwrap();
        for resource in response.resources {
            found.insert(resource.name, resource.resource.unwrap());
        }
    }
    assert_eq!(bundle(&found[sds::ROOT]), TrustBundle::from_pem(plane.root_pem()).unwrap());
    svid(&found[sds::WORKLOAD]);
}

#[tokio::test]
async fn certificates_in_files_are_served_by_name_and_followed() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true");
    let (chain, key) = (setup.path("tls.crt"), setup.path("tls.key"));
    let put = |svid: &Svid| {
        std::fs::write(&chain, svid.chain().to_pem()).unwrap();
        std::fs::write(&key, svid.key().to_pem()).unwrap();
    };
    let first = plane.svid(&San::dns("bookinfo.example.com"));
    put(&first);
    let name = format!("file-cert:{}~{}", chain.display(), key.display());
    let root = format!("file-root:{}", setup.path(paths::ISTIOD_ROOT_CERT).display());
    let agent = setup.start();
    let mut stream = Sotw::open(&agent, &[&name, &root]).await;
    let response = stream.next().await;
    let of = |name: &str| response.resources.iter().find(|any| secret(any).name == name).unwrap();
    assert_eq!(svid(of(&name)).leaf(), first.leaf());
    assert_eq!(bundle(of(&root)), TrustBundle::from_pem(plane.root_pem()).unwrap());

    let mut stream = Sotw::open(&agent, &[&name]).await;
    stream.next().await;
    std::fs::write(&chain, "half").unwrap();
    let second = plane.svid(&San::dns("bookinfo.example.com"));
    put(&second);
    assert_eq!(svid(&stream.next().await.resources[0]).leaf(), second.leaf());
}

#[tokio::test]
async fn a_socket_that_is_there_already_is_used() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true");
    let socket = setup.path(SOCKET);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _theirs = tokio::net::UnixListener::bind(&socket).unwrap();
    let agent = setup.start();
    until("the agent is up", async || agent.get(agent.setup.ports.status, "/healthz/ready").await).await;
    assert_eq!(plane.state.lock().unwrap().issued, 0);
}

#[tokio::test]
async fn a_socket_that_a_dead_agent_left_is_replaced() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true");
    let socket = setup.path(SOCKET);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let agent = setup.start();
    svid(&Sotw::open(&agent, &[sds::WORKLOAD]).await.next().await.resources[0]);
}

#[tokio::test]
async fn provided_files_take_the_place_of_the_authority() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("OUTPUT_CERTS", "unused");
    let theirs = plane.svid(&San::uri(REVIEWS));
    let dir = setup.path(paths::WORKLOAD_CREDENTIALS);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(paths::CERT_CHAIN), theirs.chain().to_pem()).unwrap();
    std::fs::write(dir.join(paths::KEY), theirs.key().to_pem()).unwrap();
    std::fs::write(dir.join(paths::ROOT_CERT), plane.root_pem()).unwrap();
    let agent = setup.start();
    let response = Sotw::open(&agent, &[sds::WORKLOAD]).await.next().await;
    assert_eq!(svid(&response.resources[0]).leaf(), theirs.leaf());
    assert_eq!(plane.state.lock().unwrap().issued, 0);
}

#[tokio::test]
async fn certificates_are_written_where_that_is_asked_for() {
    let plane = ControlPlane::start().await;
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("OUTPUT_CERTS", "out").start();
    let read = |name: &str| std::fs::read_to_string(agent.setup.path("out").join(name)).ok();
    let root = until("the root is written", async || read(paths::ROOT_CERT)).await;
    assert_eq!(root, TrustBundle::from_pem(plane.root_pem()).unwrap().to_pem());
    CertificateChain::from_pem(&read(paths::CERT_CHAIN).unwrap()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(agent.setup.path("out").join(paths::KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the key is readable by others");
}
