//! The machine's own network, from inside the mesh: one thread that stays in the machine's network namespace opens
//! connections and asks name servers for those who left it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};

const DNS_LIMIT: Duration = Duration::from_secs(4);

enum Wish {
    Connect(SocketAddr, oneshot::Sender<io::Result<std::net::TcpStream>>),
    Query(Vec<u8>, oneshot::Sender<io::Result<Vec<u8>>>),
}

/// Handle on the thread.
#[derive(Clone)]
pub(crate) struct HostNet(mpsc::Sender<Wish>);

impl HostNet {
    /// Starts the thread. Call it before this thread's network namespace is left.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (sender, mut wishes) = mpsc::channel(256);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let servers = name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        std::thread::Builder::new()
            .name("host-network".into())
            .spawn(move || {
                runtime.block_on(async move {
                    while let Some(wish) = wishes.recv().await {
                        let servers = servers.clone();
                        tokio::spawn(fulfil(wish, servers));
                    }
                });
            })
            .context("cannot start a thread")?;
        Ok(Self(sender))
    }

    /// A connection from the machine itself.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Wish::Connect(to, reply)).await.map_err(io::Error::other)?;
        TcpStream::from_std(answer.await.map_err(io::Error::other)??)
    }

    /// A DNS query to the machine's name servers.
    pub(crate) async fn query(&self, query: Vec<u8>) -> io::Result<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Wish::Query(query, reply)).await.map_err(io::Error::other)?;
        answer.await.map_err(io::Error::other)?
    }
}

// A wish whose asker went away needs no answer.
async fn fulfil(wish: Wish, servers: Vec<SocketAddr>) {
    match wish {
        Wish::Connect(to, reply) => {
            let result = match tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(to)).await {
                Ok(result) => result.and_then(TcpStream::into_std),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let _ = reply.send(result);
        }
        Wish::Query(query, reply) => {
            let _ = reply.send(ask(&query, &servers).await);
        }
    }
}

async fn ask(query: &[u8], servers: &[SocketAddr]) -> io::Result<Vec<u8>> {
    let mut last = io::Error::other("no name server");
    for server in servers {
        let attempt = async {
            let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
            socket.connect(server).await?;
            socket.send(query).await?;
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            Ok(buffer)
        };
        match tokio::time::timeout(DNS_LIMIT, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let addresses =
        resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    let mut servers: Vec<SocketAddr> =
        addresses.map(|ip: std::net::IpAddr| SocketAddr::new(ip, 53)).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    servers
}
