//! Where a service's port is served.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::Labels;

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A host name, for services that are resolved by DNS.
    Dns(String),
    /// A Unix socket.
    Unix(String),
}

impl Address {
    /// Reads what `WorkloadEntry.address` may hold.
    pub fn parse(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::Unix(path.to_owned());
        }
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }

    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Dns(_) | Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Dns(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

/// Whether an endpoint takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready: known, so that its own proxy serves the port, but sent no traffic.
    Unhealthy,
    /// Asked to take no new sessions (label `istio.io/draining`).
    Draining,
    /// Its pod is being deleted.
    Terminating,
}

/// Whether the endpoint's proxy accepts Istio's mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TlsMode {
    /// No proxy: plain text.
    #[default]
    Disabled,
    /// A proxy of the mesh (label `security.istio.io/tlsMode: istio`).
    Istio,
}

impl TlsMode {
    /// What a workload's labels say.
    pub fn of_labels(labels: &Labels) -> Self {
        match labels.get("security.istio.io/tlsMode").map(String::as_str) {
            Some("istio") => Self::Istio,
            _ => Self::Disabled,
        }
    }
}

/// Where something runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    /// Node label `topology.kubernetes.io/region`.
    pub region: String,
    /// Node label `topology.kubernetes.io/zone`.
    pub zone: String,
    /// Node label `topology.istio.io/subzone`.
    pub subzone: String,
}

impl Locality {
    /// Reads `region/zone/subzone`, of which the later parts may be missing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Self {
            region: parts.next().unwrap_or_default(),
            zone: parts.next().unwrap_or_default(),
            subzone: parts.next().unwrap_or_default(),
        }
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// Whether this locality lies in `pattern` (`region/zone/*`, `region`, `*`).
    pub fn lies_in(&self, pattern: &str) -> bool {
        let own = [&self.region, &self.zone, &self.subzone];
        for (index, part) in pattern.splitn(3, '/').enumerate() {
            if part == "*" {
                return true;
            }
            if own[index] != part {
                return false;
            }
        }
        true
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

/// One address and port that serves one port of one service.
///
/// A registry gives the endpoints of pods that are not ready too, marked so: a pod's proxy learns from them which ports
/// of which services it serves, before it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host name of the service.
    pub service: Arc<str>,
    /// The namespace of the service.
    pub service_namespace: Arc<str>,
    /// The name of the service's port.
    pub service_port_name: Arc<str>,
    /// Where to connect to.
    pub address: Address,
    /// The port there (the target port).
    pub port: u16,
    /// The labels of the workload: subsets select by them.
    pub labels: Arc<Labels>,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is reachable in.
    pub network: String,
    /// The cluster it runs in.
    pub cluster: String,
    /// Load-balancing weight; 0 means 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// The name of its service account, in `namespace`.
    pub service_account: Option<String>,
    /// Whether it accepts mutual TLS.
    pub tls_mode: TlsMode,
    /// The workload's name: that of its Deployment or other owner.
    pub workload_name: String,
    /// The workload's namespace.
    pub namespace: Arc<str>,
    /// The pod's `hostname` where it has a `subdomain`: `<hostname>.<service>` is a DNS name then.
    pub hostname: Option<String>,
    /// The node it runs on.
    pub node_name: String,
}

impl Endpoint {
    /// A healthy endpoint with nothing else known about it.
    pub fn new(service: &str, service_namespace: &str, port_name: &str, address: Address, port: u16) -> Self {
        let namespace: Arc<str> = service_namespace.into();
        Self {
            service: service.into(),
            service_namespace: namespace.clone(),
            service_port_name: port_name.into(),
            address,
            port,
            labels: Arc::default(),
            locality: Locality::default(),
            network: String::new(),
            cluster: String::new(),
            weight: 0,
            health: Health::Healthy,
            service_account: None,
            tls_mode: TlsMode::Disabled,
            workload_name: String::new(),
            namespace,
            hostname: None,
            node_name: String::new(),
        }
    }

    /// Its SPIFFE id in a trust domain.
    pub fn spiffe(&self, trust_domain: &str) -> Option<String> {
        let account = self.service_account.as_deref()?;
        Some(format!("spiffe://{}/ns/{}/sa/{account}", trust_domain.replace('@', "."), self.namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities() {
        let l = Locality::parse("eu/zurich/rack1");
        assert_eq!(l.to_string(), "eu/zurich/rack1");
        assert!(l.lies_in("*") && l.lies_in("eu") && l.lies_in("eu/*") && l.lies_in("eu/zurich"));
        assert!(!l.lies_in("us/*") && !l.lies_in("eu/geneva"));
    }

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("10.0.0.1"), Address::Ip("10.0.0.1".parse().unwrap()));
        assert_eq!(Address::parse("unix:///a"), Address::Unix("/a".to_owned()));
        assert_eq!(Address::parse("example.com"), Address::Dns("example.com".to_owned()));
    }
}
