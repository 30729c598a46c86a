//! The xDS relay and the DNS server that it feeds.
use std::time::Duration;

use crate::support::agent::{Agent, Setup};
use crate::support::control_plane::ControlPlane;
use crate::support::until;
use agent_contract::paths;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use xds_api::any::pack;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use xds_api::istio::nds::NameTable;
use xds_api::istio::nds::name_table::NameInfo;
use xds_api::type_url;

fn give(plane: &ControlPlane) {
    let mut state = plane.state.lock().unwrap();
    let cluster = Cluster { name: "outbound|9080||reviews".into(), ..Default::default() };
    state.world.insert(type_url::CLUSTER.into(), vec![(cluster.name.clone(), pack(&cluster))]);
    let info = NameInfo {
        ips: vec!["10.0.0.9".into()],
        registry: "Kubernetes".into(),
        shortname: "reviews".into(),
        namespace: "default".into(),
        ..Default::default()
    };
    let names = NameTable { table: [("reviews.default.svc.cluster.local".to_owned(), info)].into() };
    state.world.insert(type_url::NAME_TABLE.into(), vec![("table".into(), pack(&names))]);
}

struct Delta {
    _send: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    async fn open(agent: &Agent) -> Self {
        let (send, receive) = mpsc::channel(4);
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "sidecar~test".into(), ..Default::default() }),
            type_url: type_url::CLUSTER.to_owned(),
            resource_names_subscribe: vec!["*".into()],
            ..Default::default()
        };
        send.send(request).await.unwrap();
        let channel = agent.socket(&format!("{}/{}", paths::CONFIG, paths::XDS_SOCKET)).await;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receive)).await.unwrap();
        Self { _send: send, responses: responses.into_inner() }
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.responses.message());
        next.await.expect("nothing came").map(|response| response.expect("an end without a status"))
    }
}

#[tokio::test]
async fn a_stream_goes_through_with_the_token() {
    let plane = ControlPlane::start().await;
    give(&plane);
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").start();
    let response = Delta::open(&agent).await.next().await.unwrap();
    assert_eq!(response.type_url, type_url::CLUSTER);
    assert_eq!(response.resources[0].name, "outbound|9080||reviews");
    let state = plane.state.lock().unwrap();
    assert_eq!(state.nodes, ["sidecar~test"]);
    assert!(state.tokens.iter().all(|token| token == "Bearer first"));
    assert_eq!(state.clusters.last().unwrap(), "Kubernetes");
    assert!(!state.subscribed.contains(&type_url::NAME_TABLE.to_owned()), "DNS is not captured");
}

#[tokio::test]
async fn the_name_table_stays_with_the_agent_and_is_answered_from() {
    let plane = ControlPlane::start().await;
    give(&plane);
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("ISTIO_META_DNS_CAPTURE", "true");
    let agent = setup.start();
    let mut stream = Delta::open(&agent).await;
    assert_eq!(stream.next().await.unwrap().type_url, type_url::CLUSTER);
    until("the table is acknowledged", async || {
        plane.state.lock().unwrap().acknowledged.contains(&type_url::NAME_TABLE.to_owned()).then_some(())
    })
    .await;
    assert_eq!(plane.state.lock().unwrap().refused, [""; 0]);
    let (code, table) = agent.get(agent.setup.ports.status, "/debug/ndsz").await.unwrap();
    assert!(code == 200 && table.contains("reviews.default.svc.cluster.local"), "{table}");

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut query = Message::new();
    query.add_query(Query::query(Name::from_ascii("reviews.").unwrap(), RecordType::A));
    let server = ("127.0.0.1", agent.setup.ports.dns);
    socket.send_to(&query.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 512];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    let answer = Message::from_vec(&buffer[..length.unwrap().unwrap()]).unwrap();
    assert_eq!(answer.answers()[0].data().ip_addr(), Some("10.0.0.9".parse().unwrap()));
}

#[tokio::test]
async fn a_lost_control_plane_closes_the_stream_and_the_next_one_waits_for_it() {
    let mut plane = ControlPlane::start().await;
    give(&plane);
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").start();
    let mut stream = Delta::open(&agent).await;
    stream.next().await.unwrap();
    plane.stop();
    assert!(stream.next().await.is_err());

    // The proxy comes back while nobody is there, and gets its configuration when somebody is.
    let mut stream = Delta::open(&agent).await;
    until("the agent noticed", async || {
        let (_, metrics) = agent.get(agent.setup.ports.status, "/metrics").await?;
        metrics.lines().any(|line| line == "istio_agent_pilot_xds_failures 2").then_some(())
    })
    .await;
    plane.restart().await;
    assert_eq!(stream.next().await.unwrap().type_url, type_url::CLUSTER);
}

#[tokio::test]
async fn state_of_the_world_goes_through_as_well() {
    let plane = ControlPlane::start().await;
    give(&plane);
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("ISTIO_META_DNS_CAPTURE", "1").start();
    let (send, receive) = mpsc::channel(4);
    let request = DiscoveryRequest { type_url: type_url::CLUSTER.to_owned(), ..Default::default() };
    send.send(request).await.unwrap();
    let channel = agent.socket(&format!("{}/{}", paths::CONFIG, paths::XDS_SOCKET)).await;
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut responses =
        client.stream_aggregated_resources(ReceiverStream::new(receive)).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().type_url, type_url::CLUSTER);
    until("the table is acknowledged", async || {
        plane.state.lock().unwrap().acknowledged.contains(&type_url::NAME_TABLE.to_owned()).then_some(())
    })
    .await;
}
