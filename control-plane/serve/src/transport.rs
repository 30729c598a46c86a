//! Listening sockets, and connections that know who is at their other end.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::task::Supervised;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::debug;

/// A client that opens a connection and says nothing is not waited for longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and that wait to be served.
const BACKLOG: usize = 64;
/// Handshakes under way at the same time.
const MAX_HANDSHAKES: usize = 1024;

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of a flag is none.
    #[error("{flag} {value:?} is not an address: write HOST:PORT or :PORT")]
    Address {
        /// Which flag.
        flag: &'static str,
        /// As given.
        value: String,
    },
    /// Listening failed.
    #[error("cannot listen on {address} ({source}): free the port, or choose another with {flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads an address as Istio's flags have it: `:15010` listens everywhere.
pub fn parse_address(flag: &'static str, value: &str) -> Result<SocketAddr, Error> {
    let bad = || Error::Address { flag, value: value.to_owned() };
    if let Some(port) = value.strip_prefix(':') {
        let port = port.parse().map_err(|_| bad())?;
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    let localhost = value.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    localhost.as_deref().unwrap_or(value).parse().map_err(|_| bad())
}

/// Listens. Everywhere means both families, or the older one where there is no other.
pub async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |address, source| Error::Listen { address, flag, source };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_family(&error) => {
            let address = SocketAddr::from(([0, 0, 0, 0], address.port()));
            TcpListener::bind(address).await.map_err(|source| failed(address, source))
        }
        Err(source) => Err(failed(address, source)),
    }
}

fn no_family(error: &io::Error) -> bool {
    // EAFNOSUPPORT and EADDRNOTAVAIL: IPv6 is compiled out or switched off.
    matches!(error.raw_os_error(), Some(97 | 99))
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// The certificate that it showed, verified.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Peer {
    /// Whether it runs on this machine.
    pub fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback() || self.address.ip() == self.local.ip()
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn plain(stream: TcpStream) -> io::Result<Self> {
        let (address, local) = (canonical(stream.peer_addr()?), canonical(stream.local_addr()?));
        // An error here only makes it slower.
        let _ = stream.set_nodelay(true);
        let peer = Peer { address, local, encrypted: false, certificate: None };
        Ok(Self { stream: Stream::Plain(stream), peer })
    }

    async fn tls(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Self> {
        let (address, local) = (canonical(stream.peer_addr()?), canonical(stream.local_addr()?));
        let _ = stream.set_nodelay(true);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))??;
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
        let peer = Peer { address, local, encrypted: true, certificate };
        Ok(Self { stream: Stream::Tls(Box::new(stream)), peer })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// IPv4 as such, on sockets of both families too.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Accepted connections, their handshakes done beside each other. Accepting ends when this is dropped.
#[derive(Debug)]
pub struct Incoming {
    connections: ReceiverStream<io::Result<Connection>>,
    _accepting: Supervised<()>,
}

impl Incoming {
    /// Accepts on a socket; with TLS if a configuration is given.
    pub fn new(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let (send, receive) = mpsc::channel(BACKLOG);
        let accepting = Supervised::spawn(accept(listener, tls.map(TlsAcceptor::from), send));
        Self { connections: ReceiverStream::new(receive), _accepting: accepting }
    }
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.connections).poll_next(cx)
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, send: mpsc::Sender<io::Result<Connection>>) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= MAX_HANDSHAKES {
            handshakes.join_next().await;
        }
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: accepting again at once would only spin.
                debug!("accept failed: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, send) = (tls.clone(), send.clone());
        handshakes.spawn(async move {
            let connection = match tls {
                Some(acceptor) => Connection::tls(stream, acceptor).await,
                None => Connection::plain(stream),
            };
            match connection {
                // The server is gone if nobody takes it.
                Ok(connection) => drop(send.send(Ok(connection)).await),
                Err(error) => debug!("a connection was not accepted: {error}"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_as_istio_writes_them() {
        assert_eq!(parse_address("--grpcAddr", ":15010").unwrap().to_string(), "[::]:15010");
        assert_eq!(parse_address("--grpcAddr", "localhost:9876").unwrap().to_string(), "127.0.0.1:9876");
        assert_eq!(parse_address("--grpcAddr", "127.0.0.1:0").unwrap().to_string(), "127.0.0.1:0");
        let error = parse_address("--grpcAddr", "15010").unwrap_err().to_string();
        assert!(error.contains("--grpcAddr"), "{error}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_line() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = listen("--grpcAddr", taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("free the port") && error.contains("--grpcAddr"), "{error}");
    }
}
