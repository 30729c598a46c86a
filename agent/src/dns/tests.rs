//! Questions and answers, over real sockets on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use xds_api::istio::nds::NameTable;
use xds_api::istio::nds::name_table::NameInfo;

use super::{Forwarder, NameTables, PodDomain, ResolvConf, Server};
use crate::stats::AgentStats;

fn info(ips: &[&str], service: Option<(&str, &str)>) -> NameInfo {
    let (shortname, namespace) = service.unwrap_or_default();
    NameInfo {
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        registry: if service.is_some() { "Kubernetes" } else { "External" }.to_owned(),
        shortname: shortname.to_owned(),
        namespace: namespace.to_owned(),
        ..Default::default()
    }
}

fn tables() -> Arc<NameTables> {
    let domain = PodDomain::parse("default.svc.cluster.local", "default");
    let search = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned);
    let tables = NameTables::new(domain, search.to_vec());
    let table = [
        ("reviews.default.svc.cluster.local", info(&["10.0.0.1"], Some(("reviews", "default")))),
        ("db.other.svc.cluster.local", info(&["10.0.0.2", "10.0.0.3"], Some(("db", "other")))),
        ("example.com", info(&["240.240.0.1", "2001:2::1"], None)),
        ("*.wild.example.com", info(&["240.240.0.2"], None)),
    ];
    let table = table.into_iter().map(|(host, info)| (host.to_owned(), info)).collect();
    tables.replace(NameTable { table });
    Arc::new(tables)
}

async fn start(upstream: Vec<SocketAddr>) -> (Server, Arc<AgentStats>) {
    let stats = Arc::new(AgentStats::default());
    // The port that the kernel gives for UDP may be somebody's for TCP.
    loop {
        let forwarder = Forwarder::new(upstream.clone(), false);
        match Server::start("127.0.0.1:0", tables(), forwarder, Arc::clone(&stats)).await {
            Err(error) if is_taken(&error) => {}
            started => return (started.unwrap(), stats),
        }
    }
}

fn is_taken(error: &dyn std::error::Error) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new();
    message.set_id(4711).add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask_udp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query(name, kind), server).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    let length = received.await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> =
        message.answers().iter().filter_map(|record| record.data().ip_addr()).collect();
    ips.sort();
    ips
}

#[tokio::test]
async fn names_of_the_mesh() {
    let (server, _) = start(Vec::new()).await;
    let server = server.addresses()[0];
    let check = async |name: &str, kind, expect: &[&str]| {
        let answer = ask_udp(server, name, kind).await;
        assert_eq!(answer.response_code(), ResponseCode::NoError, "{name}");
        assert_eq!(answer.id(), 4711);
        let expect: Vec<IpAddr> = expect.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(addresses(&answer), expect, "{name}");
        assert!(answer.answers().iter().all(|record| record.ttl() == 30));
    };
    check("reviews.default.svc.cluster.local.", RecordType::A, &["10.0.0.1"]).await;
    check("Reviews.default.svc.cluster.local.", RecordType::A, &["10.0.0.1"]).await;
    check("reviews.", RecordType::A, &["10.0.0.1"]).await;
    check("reviews.default.svc.", RecordType::A, &["10.0.0.1"]).await;
    check("db.other.", RecordType::A, &["10.0.0.2", "10.0.0.3"]).await;
    check("db.other.svc.cluster.local.", RecordType::AAAA, &[]).await;
    check("example.com.", RecordType::AAAA, &["2001:2::1"]).await;
    check("a.b.wild.example.com.", RecordType::A, &["240.240.0.2"]).await;
}

#[tokio::test]
async fn a_search_domain_leads_to_the_name_that_was_meant() {
    let (server, _) = start(Vec::new()).await;
    let answer = ask_udp(server.addresses()[0], "example.com.svc.cluster.local.", RecordType::A).await;
    let [alias, address] = answer.answers() else { panic!("{answer:?}") };
    assert!(matches!(alias.data(), RData::CNAME(name) if name.0.to_ascii() == "example.com."));
    assert_eq!(address.data().ip_addr(), Some(IpAddr::V4(Ipv4Addr::new(240, 240, 0, 1))));
    assert_eq!(address.name().to_ascii(), "example.com.");
}

#[tokio::test]
async fn other_names_are_asked_of_the_pods_servers_and_may_fail() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = upstream.recv_from(&mut buffer).await.unwrap();
        // The answer of another conversation is not taken.
        upstream.send_to(&[0; 12], client).await.unwrap();
        buffer[2] |= 0x80;
        upstream.send_to(&buffer[..length], client).await.unwrap();
    });
    let (server, stats) = start(vec![address]).await;
    let answer = ask_udp(server.addresses()[0], "elsewhere.test.", RecordType::A).await;
    assert_eq!((answer.id(), answer.response_code()), (4711, ResponseCode::NoError));
    answering.await.unwrap();
    assert_eq!(stats.dns_upstream_requests.get(), 1);

    let (server, stats) = start(Vec::new()).await;
    let answer = ask_udp(server.addresses()[0], "elsewhere.test.", RecordType::A).await;
    assert_eq!(answer.response_code(), ResponseCode::ServFail);
    assert_eq!(stats.dns_upstream_failures.get(), 1);
}

#[tokio::test]
async fn tcp_answers_several_questions_on_one_connection() {
    let (server, _) = start(Vec::new()).await;
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    for _ in 0..2 {
        let query = query("reviews.default.", RecordType::A);
        stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(addresses(&Message::from_vec(&answer).unwrap()).len(), 1);
    }
}

#[tokio::test]
async fn a_long_answer_is_cut_and_marked() {
    let (server, _) = start(Vec::new()).await;
    let many: Vec<String> = (0..100).map(|i| format!("10.1.0.{i}")).collect();
    let tables = tables();
    let ips: Vec<&str> = many.iter().map(String::as_str).collect();
    tables.replace(NameTable { table: [("many.test".to_owned(), info(&ips, None))].into() });
    let stats = Arc::new(AgentStats::default());
    drop(server);
    let server = Server::start("127.0.0.1:0", tables, Forwarder::new(vec![], false), stats).await.unwrap();
    let answer = ask_udp(server.addresses()[0], "many.test.", RecordType::A).await;
    assert!(answer.truncated() && !answer.answers().is_empty() && answer.answers().len() < 100);
}

#[tokio::test]
async fn garbage_does_no_harm() {
    let (server, _) = start(Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in [&[][..], &[1, 2, 3], &[0xff; 300]] {
        socket.send_to(garbage, server.addresses()[0]).await.unwrap();
    }
    let answer = ask_udp(server.addresses()[0], "reviews.", RecordType::A).await;
    assert_eq!(answer.answers().len(), 1);
}

#[test]
fn resolv_conf_is_read_as_resolvers_do() {
    let text = "# comment\nnameserver 10.96.0.10\nnameserver 127.0.0.53 # local\nnameserver fe80::1%eth0\n\
                search default.svc.cluster.local. Svc.cluster.local\noptions ndots:5\n";
    let own = ["127.0.0.53:53".parse().unwrap()];
    let conf = ResolvConf::parse(text).without(&own);
    assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap()]);
    assert_eq!(conf.search, ["default.svc.cluster.local", "svc.cluster.local"]);
}
