//! Queries that are not about the mesh: sent on as they are, to the pod's own name servers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::select_ok;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest datagram that is read.
const MAX_DATAGRAM: usize = 65_535;
/// Header of a DNS message: identity and flags.
const HEADER: usize = 12;

/// By which transport the query came, and is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
}

/// Sends queries on.
#[derive(Clone, Debug)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    parallel: bool,
}

impl Forwarder {
    /// `parallel` asks all servers at once; else one after the other.
    pub fn new(servers: Vec<SocketAddr>, parallel: bool) -> Self {
        Self { servers, parallel }
    }

    /// The first answer, whatever it says.
    pub async fn ask(&self, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
        if self.servers.is_empty() {
            return Err(io::Error::other("no name server is configured"));
        }
        if self.parallel {
            let all = self.servers.iter().map(|server| Box::pin(ask_one(*server, query, transport)));
            return select_ok(all).await.map(|(answer, _)| answer);
        }
        let mut last = io::Error::other("no name server answered");
        for server in &self.servers {
            match ask_one(*server, query, transport).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn ask_one(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    let exchange = async {
        match transport {
            Transport::Udp => udp(server, query).await,
            Transport::Tcp => tcp(server, query).await,
        }
    };
    let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{server} did not answer"));
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(timeout)?
}

async fn udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // A connected socket takes datagrams of this server only.
    socket.connect(server).await?;
    // An identity of our own: the client's may be guessable by those who can spoof the server.
    let (id, sent) = with_fresh_id(query)?;
    socket.send(&sent).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= HEADER && buffer[..2] == id {
            buffer.truncate(length);
            buffer[..2].copy_from_slice(&query[..2]);
            return Ok(buffer);
        }
    }
}

async fn tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn with_fresh_id(query: &[u8]) -> io::Result<([u8; 2], Vec<u8>)> {
    if query.len() < HEADER {
        return Err(io::Error::other("the query is too short"));
    }
    let id = rand::random::<u16>().to_be_bytes();
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id);
    Ok((id, sent))
}
