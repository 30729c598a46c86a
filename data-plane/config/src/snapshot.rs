//! What workers run: all accepted resources, together.

use std::sync::Arc;

use hashbrown::HashMap;
use sail_proxy_decide::host::Endpoints;
use sail_proxy_decide::lb::LocalZone;
use sail_proxy_decide::route::RouteTable;

use crate::cluster::{Cluster, Discovery};
use crate::discovered::Extension;
use crate::hcm::{Hcm, RouteSource, Scopes};
use crate::listener::Listener;
use crate::secret::{FileBacked, Secret};

/// All accepted resources. Immutable; an update makes another one that shares what stayed the same.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up with every change.
    pub version: u64,
    /// Listeners, those of the bootstrap first.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters, by name.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
    /// EDS assignments, by name.
    pub assignments: HashMap<Arc<str>, Arc<Endpoints>>,
    /// RDS route tables, by name.
    pub route_tables: HashMap<Arc<str>, Arc<RouteTable>>,
    /// SRDS scopes, by key.
    pub scopes: Arc<Scopes>,
    /// SDS secrets, by name.
    pub secrets: HashMap<Arc<str>, Secret>,
    /// ECDS configurations of HTTP filters, by name.
    pub extensions: HashMap<Arc<str>, Arc<Extension>>,
    /// Current versions of certificates that were read from files.
    pub files: Arc<FileBacked>,
    /// Where the proxy is, and among which peers: for zone-aware routing.
    pub local_zone: Option<LocalZone>,
}

impl Snapshot {
    /// A listener by name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| *listener.name == *name)
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The hosts of a cluster, where configuration gives them: static ones and EDS. DNS, original destination and
    /// forward proxy clusters find theirs at run time.
    pub fn endpoints<'a>(&'a self, cluster: &'a Cluster) -> Option<&'a Arc<Endpoints>> {
        match &cluster.discovery {
            Discovery::Static(endpoints) => Some(endpoints),
            Discovery::Eds { service_name, .. } => self.assignments.get(service_name),
            _ => None,
        }
    }

    /// The route table of a connection manager; `None` while RDS has not brought it.
    pub fn route_table<'a>(&'a self, hcm: &'a Hcm) -> Option<&'a Arc<RouteTable>> {
        match &hcm.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Rds(wanted) => self.route_tables.get(&wanted.name),
            // Which one, the request says.
            RouteSource::Scoped(_) => None,
        }
    }
}
