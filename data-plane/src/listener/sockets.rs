//! Listening sockets of the process, opened by the main thread, so that a port in use is known before anything changes.

use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use sail_proxy_config::Snapshot;
use sail_proxy_config::listener::{Listener as Config, SocketSettings};
use sail_proxy_decide::address::Address;

use crate::net::socket::{self, ListenOptions};

/// A socket for one worker.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket, and whose it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listener: Arc<str>,
    /// As configured.
    pub(crate) address: Address,
    pub(crate) socket: Socket,
}

/// A listener's socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Where it should listen.
    pub address: Address,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it or change the listener's port"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 and transparent sockets need a capability (CAP_NET_BIND_SERVICE, CAP_NET_ADMIN)"
        }
        std::io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
        _ => "",
    }
}

/// Which sockets are open.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: usize,
    /// By listener: the address that was asked for, and the one that was got.
    bound: HashMap<Arc<str>, Vec<(Address, Address)>>,
}

impl Sockets {
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers, bound: HashMap::new() }
    }

    /// Opens what a configuration needs and is not open yet: a list for each worker.
    pub(crate) fn open(&mut self, snapshot: &Snapshot) -> Result<Vec<Vec<Opened>>, Vec<BindError>> {
        let mut opened: Vec<Vec<Opened>> = (0..self.workers).map(|_| Vec::new()).collect();
        let mut bound = HashMap::new();
        let mut errors = Vec::new();
        for listener in snapshot.listeners.iter().filter(|listener| listener.bind_to_port) {
            match self.open_listener(listener, &mut opened) {
                Ok(addresses) => {
                    bound.insert(listener.name.clone(), addresses);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.bound = bound;
        Ok(opened)
    }

    /// Listeners and where they really listen.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&Arc<str>, &Address)> {
        self.bound
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |(_, address)| (name, address)))
    }

    /// Whether a listener could listen now: to be known before it waits for what it needs. Nothing is kept open.
    pub(crate) fn probe(&self, listener: &Config) -> Result<(), BindError> {
        let bound = listener.addresses.iter().zip(&listener.sockets).filter(|_| listener.bind_to_port);
        for (address, settings) in bound {
            let Address::Ip(ip) = address else { continue };
            if ip.port() == 0 || self.is_ours(*ip) {
                continue;
            }
            socket::probe(*ip, &options(listener, settings)).map_err(|source| BindError {
                listener: listener.name.clone(),
                address: address.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Whether a listener in force has the address.
    fn is_ours(&self, address: SocketAddr) -> bool {
        self.bound.values().flatten().any(|(_, open)| open.socket_addr() == Some(address))
    }

    fn open_listener(
        &self,
        listener: &Config,
        opened: &mut [Vec<Opened>],
    ) -> Result<Vec<(Address, Address)>, BindError> {
        let fail = |address: &Address, source| BindError {
            listener: listener.name.clone(),
            address: address.clone(),
            source,
        };
        let before = self.bound.get(&listener.name);
        let mut addresses = Vec::new();
        let mut seen = HashSet::new();
        for (address, settings) in listener.addresses.iter().zip(&listener.sockets) {
            if !seen.insert(address) {
                continue;
            }
            if let Some(open) = before.and_then(|before| before.iter().find(|(asked, _)| asked == address)) {
                addresses.push(open.clone());
                continue;
            }
            let sockets =
                self.open_address(listener, address, settings).map_err(|source| fail(address, source))?;
            let actual = match &sockets[..] {
                [Socket::Tcp(socket), ..] => {
                    socket.local_addr().map_or_else(|_| address.clone(), Address::Ip)
                }
                _ => address.clone(),
            };
            addresses.push((address.clone(), actual));
            for (worker, socket) in opened.iter_mut().zip(sockets) {
                worker.push(Opened { listener: listener.name.clone(), address: address.clone(), socket });
            }
        }
        Ok(addresses)
    }

    fn open_address(
        &self,
        listener: &Config,
        address: &Address,
        settings: &SocketSettings,
    ) -> std::io::Result<Vec<Socket>> {
        match address {
            Address::Ip(address) => self.open_tcp(*address, &options(listener, settings)),
            Address::Pipe(path) => self.open_unix(path, settings),
            Address::Internal { .. } => Ok(Vec::new()),
        }
    }

    fn open_tcp(&self, address: SocketAddr, options: &ListenOptions) -> std::io::Result<Vec<Socket>> {
        // With SO_REUSEPORT a second process would share the port unnoticed; a plain socket notices.
        // Sockets of our own, of a listener that goes, are no obstacle.
        if address.port() != 0 && options.reuse_port && !self.is_ours(address) {
            socket::probe(address, options)?;
        }
        let first = socket::listen(address, options)?;
        // Port 0: the others share the port that the first was given.
        let address = first.local_addr()?;
        let mut sockets = vec![Socket::Tcp(first)];
        while sockets.len() < self.workers {
            let next = match (&sockets[0], options.reuse_port) {
                (Socket::Tcp(first), false) => first.try_clone()?,
                _ => socket::listen(address, options)?,
            };
            sockets.push(Socket::Tcp(next));
        }
        Ok(sockets)
    }

    fn open_unix(&self, path: &Path, settings: &SocketSettings) -> std::io::Result<Vec<Socket>> {
        // A socket file that a process before us left behind.
        if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(path).is_err()
        {
            std::fs::remove_file(path)?;
        }
        let first = bind_unix(path)?;
        if let Some(mode) = settings.mode.filter(|_| abstract_name(path).is_none()) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        first.set_nonblocking(true)?;
        let mut sockets = Vec::with_capacity(self.workers);
        for _ in 1..self.workers {
            sockets.push(Socket::Unix(first.try_clone()?));
        }
        sockets.push(Socket::Unix(first));
        Ok(sockets)
    }
}

/// What a listener asks of the sockets of an address.
fn options(listener: &Config, settings: &SocketSettings) -> ListenOptions {
    let number = |value: u32| i32::try_from(value).ok();
    ListenOptions {
        reuse_port: listener.reuse_port,
        transparent: listener.transparent,
        freebind: listener.freebind,
        dual_stack: settings.ipv4_compat,
        backlog: listener.tcp_backlog_size.and_then(number).unwrap_or(4096),
        fast_open: listener.tcp_fast_open_queue_length.and_then(number),
        keepalive: settings.tcp_keepalive.map(keepalive),
        options: settings.options.clone(),
    }
}

/// `TcpKeepalive` as sockets take it.
fn keepalive(wanted: sail_proxy_config::listener::TcpKeepalive) -> socket2::TcpKeepalive {
    let mut keepalive = socket2::TcpKeepalive::new();
    if let Some(time) = wanted.time.filter(|time| !time.is_zero()) {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = wanted.interval.filter(|interval| !interval.is_zero()) {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = wanted.probes.filter(|probes| *probes > 0) {
        keepalive = keepalive.with_retries(probes);
    }
    keepalive
}

/// The name in Linux's abstract namespace, which configuration writes with a leading `@`.
fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    match abstract_name(path) {
        Some(name) => UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?),
        None => UnixListener::bind(path),
    }
}
