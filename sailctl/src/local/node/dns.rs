//! kube-dns: names of services, for pods whose sidecar does not answer for them; everything else from the machine.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Node, kube_proxy, network};
use crate::local::kind::{Key, Kind};

const TTL: u32 = 5;
const ZONE: &str = ".cluster.local";

/// Answers over UDP and TCP.
pub(crate) async fn run(node: Arc<Node>) -> anyhow::Result<()> {
    let socket = Arc::new(UdpSocket::bind((network::DNS, 53)).await?);
    let listener = TcpListener::bind((network::DNS, 53)).await?;
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error here is an earlier answer that nobody took.
                let Ok((length, from)) = received else { continue };
                let (node, socket, query) = (node.clone(), socket.clone(), buffer[..length].to_vec());
                tokio::spawn(async move {
                    if let Some(answer) = answer(&node, query).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
            }
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(serve_stream(node.clone(), stream));
            }
        }
    }
}

async fn serve_stream(node: Arc<Node>, mut stream: TcpStream) {
    let idle = Duration::from_secs(10);
    while let Ok(Ok(length)) = tokio::time::timeout(idle, stream.read_u16()).await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = answer(&node, query).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn answer(node: &Node, raw: Vec<u8>) -> Option<Vec<u8>> {
    let query = Message::from_vec(&raw).ok()?;
    let question = query.queries().first()?;
    let name = question.name().to_lowercase();
    let text = name.to_utf8();
    let text = text.trim_end_matches('.');
    let mut reply = Message::new();
    reply.set_id(query.id()).set_message_type(MessageType::Response).set_op_code(query.op_code());
    reply.set_recursion_desired(query.recursion_desired()).set_recursion_available(true);
    reply.add_query(question.clone());
    match find(node, text) {
        Found::Elsewhere => {
            if let Ok(answer) = node.host.query(raw).await {
                return Some(answer);
            }
            reply.set_response_code(ResponseCode::ServFail);
        }
        Found::Nothing => {
            reply.set_response_code(ResponseCode::NXDomain);
        }
        Found::Addresses(addresses) => {
            if matches!(question.query_type(), RecordType::A | RecordType::ANY) {
                for address in addresses {
                    reply.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(address))));
                }
            }
        }
        Found::Alias(target) => {
            let target = Name::from_utf8(&target).ok()?;
            reply.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::CNAME(CNAME(target))));
        }
    }
    reply.set_authoritative(true);
    reply.to_vec().ok()
}

enum Found {
    /// Not a name of the mesh.
    Elsewhere,
    /// A name of the mesh that nobody has.
    Nothing,
    Addresses(Vec<Ipv4Addr>),
    Alias(String),
}

fn find(node: &Node, name: &str) -> Found {
    let Some(inner) = name.strip_suffix(ZONE) else { return Found::Elsewhere };
    let labels: Vec<&str> = inner.split('.').collect();
    let (pod, service, namespace) = match labels.as_slice() {
        [service, namespace, "svc"] => (None, service, namespace),
        [pod, service, namespace, "svc"] => (Some(*pod), service, namespace),
        _ => return Found::Nothing,
    };
    let Some(service) = node.store.typed::<Service>(&Key::core("Service", namespace, service)) else {
        return Found::Nothing;
    };
    let Some(spec) = &service.spec else { return Found::Nothing };
    if let Some(target) =
        spec.external_name.as_ref().filter(|_| spec.type_.as_deref() == Some("ExternalName"))
    {
        return Found::Alias(format!("{}.", target.trim_end_matches('.')));
    }
    match spec.cluster_ip.as_deref().map(str::parse) {
        Some(Ok(address)) if pod.is_none() => Found::Addresses(vec![address]),
        _ => {
            let pods: Vec<Pod> = node.store.list_typed(&Kind::core("Pod"));
            let named = |candidate: &Pod| {
                let hostname = candidate.spec.as_ref().and_then(|spec| spec.hostname.as_deref());
                pod.is_none() || pod == hostname || pod == candidate.metadata.name.as_deref()
            };
            let endpoints = kube_proxy::endpoints(&service, &pods);
            let addresses: Vec<Ipv4Addr> =
                endpoints.into_iter().filter(|(pod, _)| named(pod)).map(|(_, address)| address).collect();
            if addresses.is_empty() { Found::Nothing } else { Found::Addresses(addresses) }
        }
    }
}
