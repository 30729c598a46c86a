//! The sockets of the DNS server: UDP and TCP on every address that is given.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::task::Supervised;
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::{Decision, decide, failure, to_datagram};
use super::forward::{Forwarder, Transport};
use super::table::NameTables;
use crate::stats::AgentStats;

/// Queries in work at a time; more wait in the socket.
const MAX_CONCURRENT: usize = 1024;
/// A TCP client that says nothing for so long is left.
const IDLE: Duration = Duration::from_secs(10);
const MAX_DATAGRAM: usize = 65_535;

/// Why there is no DNS server.
#[derive(Debug, thiserror::Error)]
#[error("the DNS server cannot listen on {address}; DNS_PROXY_ADDR chooses another address")]
pub struct Error {
    address: String,
    #[source]
    source: io::Error,
}

/// What every query needs.
#[derive(Debug)]
struct Shared {
    tables: Arc<NameTables>,
    forwarder: Forwarder,
    stats: Arc<AgentStats>,
    slots: Arc<Semaphore>,
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _tasks: Vec<Supervised<()>>,
}

impl Server {
    /// Listens on every address that the name resolves to; the first must be free, the others may be missing (as ::1
    /// is in many containers).
    pub async fn start(
        address: &str,
        tables: Arc<NameTables>,
        forwarder: Forwarder,
        stats: Arc<AgentStats>,
    ) -> Result<Self, Error> {
        let refuse = |source| Error { address: address.to_owned(), source };
        let mut resolved: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(refuse)?.collect();
        resolved.sort_by_key(SocketAddr::is_ipv6);
        resolved.dedup();
        let shared =
            Arc::new(Shared { tables, forwarder, stats, slots: Arc::new(Semaphore::new(MAX_CONCURRENT)) });
        let mut server = Self { addresses: Vec::new(), _tasks: Vec::new() };
        for address in resolved {
            match server.listen(address, &shared).await {
                Ok(()) => {}
                Err(error) if server.addresses.is_empty() => return Err(refuse(error)),
                Err(error) => tracing::debug!(%address, %error, "no DNS on this address"),
            }
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    async fn listen(&mut self, address: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::bind(address).await?);
        // Port 0 was chosen for UDP: TCP takes the same.
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        self.addresses.push(address);
        self._tasks.push(Supervised::spawn(serve_udp(udp, Arc::clone(shared))));
        self._tasks.push(Supervised::spawn(serve_tcp(tcp, Arc::clone(shared))));
        Ok(())
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut queries = tokio::task::JoinSet::new();
    loop {
        while queries.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error for an earlier answer: the client is gone.
            Err(_) => continue,
        };
        let Ok(slot) = Arc::clone(&shared.slots).acquire_owned().await else { return };
        let (query, socket, shared) = (buffer[..length].to_vec(), Arc::clone(&socket), Arc::clone(&shared));
        queries.spawn(async move {
            let _slot = slot;
            if let Some(answer) = shared.handle(&query, Transport::Udp).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&shared.slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                clients.spawn(async move {
                    let _slot = slot;
                    // A broken client ends its connection only.
                    let _ = serve_stream(stream, &shared).await;
                });
            }
            // Out of file descriptors, mostly: a pause keeps this from becoming a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(answer) = shared.handle(&query, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}

impl Shared {
    async fn handle(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        self.stats.dns_requests.inc();
        let query = Message::from_vec(bytes).ok()?;
        let decision = decide(&self.tables, &query, &mut rand::rng());
        let response = match decision {
            Decision::Drop => return None,
            Decision::Answer(response) => response,
            Decision::Forward => {
                self.stats.dns_upstream_requests.inc();
                match self.forwarder.ask(bytes, transport).await {
                    Ok(answer) => return Some(answer),
                    Err(error) => {
                        self.stats.dns_upstream_failures.inc();
                        tracing::debug!(%error, "a DNS query was sent on in vain");
                        failure(&query, ResponseCode::ServFail)
                    }
                }
            }
        };
        match transport {
            Transport::Udp => to_datagram(&query, response),
            Transport::Tcp => response.to_vec().ok(),
        }
    }
}
