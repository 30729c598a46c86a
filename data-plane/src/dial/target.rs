//! Where a cluster is, and a byte stream to one of its endpoints.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::core::v3::{address, socket_address::PortSpecifier};
use xds_api::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
use xds_api::envoy::extensions::upstreams;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A byte stream of any kind.
pub trait Connect: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connect for T {}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address.
    Ip(SocketAddr),
    /// A name to resolve.
    Name(String, u16),
    /// A Unix socket.
    Pipe(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

/// TLS's client side, and the name that is asked for.
pub type ClientTls = (Arc<ClientConfig>, ServerName<'static>);

/// A cluster that the main thread can call.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster's name, which is the authority unless somebody says otherwise.
    pub cluster: Arc<str>,
    /// Its endpoints.
    pub addresses: Vec<Address>,
    /// TLS, if the cluster speaks it.
    pub tls: Option<ClientTls>,
    /// How long connecting may take.
    pub timeout: Duration,
    /// Whether the cluster speaks HTTP/2 without being asked.
    pub http2: bool,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The cluster has no endpoint.
    #[error("cluster {0} has no endpoint")]
    Empty(Arc<str>),
    /// Connecting took too long.
    #[error("cluster {cluster}: {address} does not answer within {timeout:?}")]
    Timeout {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: Address,
        /// The limit.
        timeout: Duration,
    },
    /// Connecting failed.
    #[error("cluster {cluster}: cannot connect to {address}")]
    Io {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What of `HttpProtocolOptions` says so, or the field before it.
fn speaks_http2(cluster: &Cluster) -> bool {
    use upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstreams::http::v3::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    #[expect(deprecated, reason = "it is still spoken")]
    if cluster.http2_protocol_options.is_some() {
        return true;
    }
    let options = cluster.typed_extension_protocol_options.get(HTTP_OPTIONS);
    let options = options.and_then(|any| upstreams::http::v3::HttpProtocolOptions::decode(&*any.value).ok());
    matches!(
        options.and_then(|options| options.upstream_protocol_options),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(_)),
        }))
    )
}

impl Target {
    /// From a cluster and, where it is discovered, its endpoints. TLS is the caller's to add.
    pub fn new(cluster: &Cluster, discovered: Option<&ClusterLoadAssignment>) -> Self {
        let assignment = discovered.or(cluster.load_assignment.as_ref());
        let endpoints = assignment.into_iter().flat_map(|a| &a.endpoints).flat_map(|l| &l.lb_endpoints);
        let addresses = endpoints.filter_map(|endpoint| match &endpoint.host_identifier {
            Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref()?.address.as_ref(),
            _ => None,
        });
        let timeout = cluster.connect_timeout.as_ref().and_then(duration).unwrap_or(Duration::from_secs(5));
        Self {
            cluster: cluster.name.as_str().into(),
            addresses: addresses.filter_map(parse_address).collect(),
            tls: None,
            timeout,
            http2: speaks_http2(cluster),
        }
    }

    /// Connects to one endpoint, drawn at random.
    pub async fn connect(&self) -> Result<Box<dyn Connect>, TargetError> {
        let address = self.addresses.choose(&mut rand::rng());
        let address = address.ok_or_else(|| TargetError::Empty(self.cluster.clone()))?;
        match tokio::time::timeout(self.timeout, self.open(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => {
                Err(TargetError::Io { cluster: self.cluster.clone(), address: address.clone(), source })
            }
            Err(_) => Err(TargetError::Timeout {
                cluster: self.cluster.clone(),
                address: address.clone(),
                timeout: self.timeout,
            }),
        }
    }

    async fn open(&self, address: &Address) -> io::Result<Box<dyn Connect>> {
        let plain: Box<dyn Connect> = match address {
            Address::Pipe(path) => match path.strip_prefix('@') {
                // Linux's abstract namespace: tokio takes a leading NUL for it.
                Some(name) => Box::new(UnixStream::connect(format!("\0{name}")).await?),
                None => Box::new(UnixStream::connect(path).await?),
            },
            Address::Ip(address) => Box::new(open_tcp(*address).await?),
            Address::Name(host, port) => {
                let mut found = tokio::net::lookup_host((host.as_str(), *port)).await?;
                let address = found.next().ok_or_else(|| io::Error::other("the name has no address"))?;
                Box::new(open_tcp(address).await?)
            }
        };
        let Some((config, name)) = &self.tls else { return Ok(plain) };
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        Ok(Box::new(connector.connect(name.clone(), plain).await?))
    }
}

/// A peer that vanished without a word is noticed after a minute or so.
async fn open_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

fn parse_address(address: &address::Address) -> Option<Address> {
    match address {
        address::Address::Pipe(pipe) => Some(Address::Pipe(pipe.path.clone())),
        address::Address::SocketAddress(socket) => {
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
            let port = u16::try_from(port).ok()?;
            Some(match socket.address.parse::<IpAddr>() {
                Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
                Err(_) => Address::Name(socket.address.clone(), port),
            })
        }
        address::Address::EnvoyInternalAddress(_) => None,
    }
}

/// A protobuf duration, if it is not negative.
pub(crate) fn duration(value: &xds_api::google::protobuf::Duration) -> Option<Duration> {
    Some(Duration::new(value.seconds.try_into().ok()?, value.nanos.try_into().ok()?))
}
