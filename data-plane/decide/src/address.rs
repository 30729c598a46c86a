//! Where something listens or is reached: an IP address and port, a Unix socket, or another listener of this process.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// `envoy.config.core.v3.Address`, without host names: those are resolved by the cluster that has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket; a leading `@` names the abstract namespace.
    Pipe(Arc<Path>),
    /// A listener of this process, by name, and an id that tells endpoints with the same listener apart.
    Internal {
        /// The listener's name.
        listener: Arc<str>,
        /// The endpoint's id.
        endpoint_id: Arc<str>,
    },
}

impl Address {
    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The IP address and port, if it has them.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) | Self::Internal { .. } => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
            Self::Internal { listener, endpoint_id } if endpoint_id.is_empty() => {
                write!(f, "envoy://{listener}/")
            }
            Self::Internal { listener, endpoint_id } => write!(f, "envoy://{listener}/{endpoint_id}"),
        }
    }
}

/// A sorted set of address ranges: `CidrRange`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    ranges: Box<[ipnet::IpNet]>,
}

impl CidrSet {
    /// The set of these ranges; host bits are dropped.
    pub fn new(ranges: impl IntoIterator<Item = ipnet::IpNet>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().map(|range| range.trunc()).collect();
        ranges.sort_unstable();
        ranges.dedup();
        Self { ranges: ranges.into() }
    }

    /// Whether one of the ranges holds the address. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.ranges.iter().any(|range| range.contains(&ip))
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = &ipnet::IpNet> {
        self.ranges.iter()
    }
}
/// `AddressMatcher`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMatch {
    /// The ranges.
    pub ranges: CidrSet,
    /// Whether those outside are meant.
    pub invert: bool,
}

impl AddressMatch {
    /// Whether an address is meant.
    pub fn is_match(&self, address: IpAddr) -> bool {
        self.ranges.contains(address) != self.invert
    }
}
