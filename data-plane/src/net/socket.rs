//! Opening sockets: listening ones, one per worker, and connections to upstream hosts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use sail_proxy_config::listener::{SocketOption, SocketOptionValue, SocketState};
use sail_proxy_decide::address::Address;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::Raw;

/// What a listening socket is asked to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenOptions {
    /// Several sockets on one address, between which the kernel balances.
    pub(crate) reuse_port: bool,
    /// Accept connections to foreign addresses.
    pub(crate) transparent: bool,
    /// Bind to addresses that are not there yet.
    pub(crate) freebind: bool,
    /// An IPv6 address takes IPv4 as well.
    pub(crate) dual_stack: bool,
    pub(crate) backlog: i32,
    /// How many connections may be half open with data (TCP Fast Open).
    pub(crate) fast_open: Option<i32>,
    /// Inherited by the connections.
    pub(crate) keepalive: Option<TcpKeepalive>,
    /// Options by number.
    pub(crate) options: Box<[SocketOption]>,
}

/// Binds, and listens: from here on the kernel completes handshakes.
pub(crate) fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    prepare(&socket, address, options)?;
    set_options(&socket, options, SocketState::Prebind)?;
    socket.bind(&address.into())?;
    set_options(&socket, options, SocketState::Bound)?;
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(keepalive)?;
    }
    socket.listen(options.backlog)?;
    if let Some(queue) = options.fast_open {
        set_raw(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &queue.to_ne_bytes())?;
    }
    set_options(&socket, options, SocketState::Listening)?;
    Ok(socket.into())
}

/// Binds without sharing the port, and lets go of it: fails where another process listens.
pub(crate) fn probe(address: SocketAddr, options: &ListenOptions) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    prepare(&socket, address, options)?;
    socket.bind(&address.into())
}

/// What decides whether an address can be bound.
fn prepare(socket: &Socket, address: SocketAddr, options: &ListenOptions) -> io::Result<()> {
    let v6 = address.is_ipv6();
    if v6 {
        socket.set_only_v6(!options.dual_stack)?;
    }
    match (options.transparent, v6) {
        (true, false) => socket.set_ip_transparent_v4(true)?,
        (true, true) => socket.set_ip_transparent_v6(true)?,
        (false, _) => {}
    }
    match (options.freebind, v6) {
        (true, false) => socket.set_freebind_v4(true)?,
        (true, true) => socket.set_freebind_v6(true)?,
        (false, _) => {}
    }
    Ok(())
}

fn set_options(socket: &Socket, options: &ListenOptions, state: SocketState) -> io::Result<()> {
    for option in options.options.iter().filter(|option| option.state == state) {
        let result = match &option.value {
            SocketOptionValue::Int(value) => set_raw(socket, option.level, option.name, &value.to_ne_bytes()),
            SocketOptionValue::Bytes(bytes) => set_raw(socket, option.level, option.name, bytes),
        };
        result.map_err(|error| {
            let place = format!("socket option {} of level {}", option.name, option.level);
            io::Error::new(error.kind(), format!("{place}: {error}"))
        })?;
    }
    Ok(())
}

/// Sets an option by its number, as configuration gives it.
#[expect(unsafe_code, reason = "options that only configuration knows have no safe wrapper")]
pub(crate) fn set_raw(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `length` bytes, which the slice has; the descriptor is borrowed, hence open.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's estimate of a TCP connection's round trip.
#[expect(unsafe_code, reason = "no safe wrapper returns TCP_INFO")]
pub(crate) fn round_trip(socket: BorrowedFd<'_>) -> Option<Duration> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which `info` has, into memory that is zero before; the
    // descriptor is borrowed, hence open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: every bit pattern is a `tcp_info`, and all of it was set to zero.
    Some(Duration::from_micros(unsafe { info.assume_init() }.tcpi_rtt.into()))
}

/// Makes the end of a connection a reset.
pub(crate) fn reset_at_close(socket: BorrowedFd<'_>) {
    // Where it cannot be, the end is an ordinary one.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// What an upstream connection is asked to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectOptions {
    /// The source address; port 0 leaves the port to the kernel.
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) keepalive: Option<TcpKeepalive>,
    /// `SO_MARK`, by which capture rules know the proxy's own traffic.
    pub(crate) mark: Option<u32>,
    /// The source address need not be one of this host.
    pub(crate) transparent: bool,
    /// The source address need not be there.
    pub(crate) freebind: bool,
    /// Options as numbers, set before and after the source address is bound.
    pub(crate) options: Box<[SocketOption]>,
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
    if options.transparent {
        match address {
            SocketAddr::V4(_) => SockRef::from(&socket).set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => SockRef::from(&socket).set_ip_transparent_v6(true)?,
        }
    }
    apply(&socket, &options.options, SocketState::Prebind)?;
    if options.freebind && address.is_ipv4() {
        SockRef::from(&socket).set_freebind_v4(true)?;
    } else if options.freebind {
        SockRef::from(&socket).set_freebind_v6(true)?;
    }
    if let Some(source) = options.bind.filter(|source| fits(source.ip(), address.ip())) {
        // Without this the kernel reserves the port for all destinations, and a busy proxy runs out of them.
        if source.port() == 0 {
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
        }
        socket.bind(source)?;
    }
    apply(&socket, &options.options, SocketState::Bound)?;
    let stream = socket.connect(address).await?;
    if let Some(keepalive) = &options.keepalive {
        SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
    }
    Ok(stream)
}

/// Sets the options of a state.
fn apply(socket: &TcpSocket, options: &[SocketOption], state: SocketState) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    for option in options.iter().filter(|option| option.state == state) {
        let number;
        let bytes: &[u8] = match &option.value {
            SocketOptionValue::Int(value) => {
                number = value.to_ne_bytes();
                &number
            }
            SocketOptionValue::Bytes(bytes) => bytes,
        };
        let length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open as long as the socket is borrowed, and the kernel reads `length` bytes of a
        // slice that is as long.
        #[expect(unsafe_code, reason = "no wrapper sets options by number")]
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), option.level, option.name, bytes.as_ptr().cast(), length)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn fits(source: IpAddr, destination: IpAddr) -> bool {
    source.is_ipv4() == destination.is_ipv4()
}
