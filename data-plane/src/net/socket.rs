//! Opening sockets: listening ones, one per worker, and connections to upstream hosts.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use sail_proxy_decide::address::Address;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::Raw;

/// What a listening socket is asked to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenOptions {
    /// Several sockets on one address, between which the kernel balances.
    pub(crate) reuse_port: bool,
    /// Accept connections to foreign addresses.
    pub(crate) transparent: bool,
    /// An IPv6 wildcard takes IPv4 as well.
    pub(crate) dual_stack: bool,
    pub(crate) backlog: i32,
}

/// Binds, and listens: from here on the kernel completes handshakes.
pub(crate) fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let SocketAddr::V6(_) = address {
        socket.set_only_v6(!options.dual_stack)?;
    }
    if options.transparent {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Binds without sharing the port, and lets go of it: fails where another process listens.
pub(crate) fn probe(address: SocketAddr, options: ListenOptions) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(_) = address {
        socket.set_only_v6(!options.dual_stack)?;
    }
    socket.bind(&address.into())
}

/// What an upstream connection is asked to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectOptions {
    /// The source address; port 0 leaves the port to the kernel.
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) keepalive: Option<TcpKeepalive>,
    /// `SO_MARK`, by which capture rules know the proxy's own traffic.
    pub(crate) mark: Option<u32>,
}

/// Connects; the caller bounds the time.
pub(crate) async fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Raw> {
    match address {
        Address::Ip(address) => connect_tcp(*address, options).await.map(Raw::Tcp),
        Address::Pipe(path) => UnixStream::connect(path).await.map(Raw::Unix),
        Address::Internal { .. } => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "internal listeners are not dialled"))
        }
    }
}

async fn connect_tcp(address: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A request written in two parts must not wait for the peer's delayed acknowledgement.
    socket.set_nodelay(true)?;
    if let Some(mark) = options.mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some(source) = options.bind.filter(|source| fits(source.ip(), address.ip())) {
        // Without this the kernel reserves the port for all destinations, and a busy proxy runs out of them.
        if source.port() == 0 {
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
        }
        socket.bind(source)?;
    }
    let stream = socket.connect(address).await?;
    if let Some(keepalive) = &options.keepalive {
        SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
    }
    Ok(stream)
}

fn fits(source: IpAddr, destination: IpAddr) -> bool {
    source.is_ipv4() == destination.is_ipv4()
}
