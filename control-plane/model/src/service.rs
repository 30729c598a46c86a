//! A service: a host name with ports.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{Labels, Protocol};

/// How a service's endpoints are found by a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Resolution {
    /// The control plane knows them: ClusterIP services, and ServiceEntry `STATIC`.
    #[default]
    ClientSide,
    /// The client chose one by address: headless services, and ServiceEntry `NONE`.
    Passthrough,
    /// Every address that DNS answers: ServiceEntry `DNS`.
    Dns,
    /// The first address that DNS answers: ServiceEntry `DNS_ROUND_ROBIN`.
    DnsRoundRobin,
    /// DNS on request, for wildcard hosts: ServiceEntry `DYNAMIC_DNS`.
    DynamicDns,
}

/// Whether a service is part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Location {
    /// It is: mutual TLS applies.
    #[default]
    Internal,
    /// It is not.
    External,
}

/// Which namespaces see an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExportTo {
    /// `*`: all.
    All,
    /// `.`: its own.
    Private,
    /// `~`: none.
    Nobody,
    /// The one of this name.
    Namespace(String),
}

impl ExportTo {
    /// Reads an entry of `exportTo`.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "*" => Self::All,
            "." => Self::Private,
            "~" => Self::Nobody,
            namespace => Self::Namespace(namespace.to_owned()),
        }
    }

    /// Whether an object of `owner` with these entries is seen from `viewer`. No entries: by everyone.
    pub fn visible(entries: &[Self], owner: &str, viewer: &str) -> bool {
        entries.is_empty()
            || entries.iter().any(|entry| match entry {
                Self::All => true,
                Self::Private => owner == viewer,
                Self::Nobody => false,
                Self::Namespace(namespace) => namespace == viewer,
            })
    }
}

/// The port of the workload that a service's port leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its name; empty where a service with one port leaves it out.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// The workload's port, where the service says it.
    pub target: Option<TargetPort>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// Which object a service was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Source {
    /// A Kubernetes Service.
    #[default]
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

/// A host name with ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// The fully qualified name.
    pub hostname: Arc<str>,
    /// The namespace of the object it was made from.
    pub namespace: Arc<str>,
    /// The name of the object it was made from.
    pub name: Arc<str>,
    /// Which kind of object that was.
    pub source: Source,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Virtual addresses; a ServiceEntry may give whole networks.
    pub addresses: Vec<IpNet>,
    /// The address that was allocated for a ServiceEntry without one, for proxies that capture DNS.
    pub auto_address: Option<std::net::IpAddr>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether it is part of the mesh.
    pub location: Location,
    /// The labels of the object.
    pub labels: Labels,
    /// The annotations of the object.
    pub annotations: Labels,
    /// Which pods serve it. Empty: its endpoints are given otherwise.
    pub selector: Labels,
    /// Who sees it; empty stands for the mesh's default.
    pub export_to: Vec<ExportTo>,
    /// Subject alternative names that its certificates may have besides those of its endpoints' service accounts.
    pub subject_alt_names: Vec<String>,
    /// `spec.externalName`: this name is another's alias.
    pub external_name: Option<String>,
    /// When the object was made, in seconds since 1970: the older wins a conflict.
    pub created: i64,
}

impl Service {
    /// A ClusterIP service without ports.
    pub fn new(hostname: &str, namespace: &str, name: &str) -> Self {
        Self {
            hostname: hostname.into(),
            namespace: namespace.into(),
            name: name.into(),
            source: Source::Kubernetes,
            ports: Vec::new(),
            addresses: Vec::new(),
            auto_address: None,
            resolution: Resolution::ClientSide,
            location: Location::Internal,
            labels: Labels::new(),
            annotations: Labels::new(),
            selector: Labels::new(),
            export_to: Vec::new(),
            subject_alt_names: Vec::new(),
            external_name: None,
            created: 0,
        }
    }

    /// A Kubernetes Service with `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.source == Source::Kubernetes && self.resolution == Resolution::Passthrough
    }

    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port of that name.
    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| &*port.name == name)
    }
}
