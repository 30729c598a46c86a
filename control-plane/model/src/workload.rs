//! What runs: pods, and the namespaces that they are in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Labels, Locality, TlsMode};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The pod's name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its service account.
    pub service_account: String,
    /// The node it runs on.
    pub node: String,
    /// The name of what owns it (the Deployment, not the ReplicaSet); its own, if nothing does.
    pub workload_name: String,
    /// The kind of what owns it (`Deployment`).
    pub workload_kind: String,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is reachable in.
    pub network: String,
    /// The cluster it runs in.
    pub cluster: String,
    /// It shares the node's network: its address says nothing about it.
    pub host_network: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

impl Workload {
    /// A ready pod with one address and nothing else known.
    pub fn new(name: &str, namespace: &str, address: IpAddr) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            addresses: vec![address],
            labels: Arc::default(),
            service_account: "default".to_owned(),
            node: String::new(),
            workload_name: name.to_owned(),
            workload_kind: "Pod".to_owned(),
            locality: Locality::default(),
            network: String::new(),
            cluster: String::new(),
            host_network: false,
            ready: true,
            created: 0,
        }
    }

    /// Whether its proxy accepts mutual TLS.
    pub fn tls_mode(&self) -> TlsMode {
        TlsMode::of_labels(&self.labels)
    }
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}
