//! Hosts that requests name: by a filter (stateful sessions) or by a header.

use hashbrown::HashMap;
use http::{HeaderMap, HeaderName};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{LbPolicy, StatusSet};
use crate::address::Address;
use crate::host::{Endpoints, Host};

/// `envoy.load_balancing_policies.override_host`
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideHost {
    /// What may name hosts, as `IP:port` separated by commas; one after the other.
    pub sources: Box<[OverrideSource]>,
    /// Where the host that was chosen is told: namespace and path of dynamic metadata.
    pub selected: Option<MetadataPath>,
    /// How a host is chosen where none is named.
    pub fallback: LbPolicy,
}

/// A namespace of metadata, and the keys to a value in it.
pub type MetadataPath = (Box<str>, Box<[Box<str>]>);

/// What may name hosts.
#[derive(Clone, Debug, PartialEq)]
pub enum OverrideSource {
    /// A header.
    Header(HeaderName),
    /// Dynamic metadata: namespace and path.
    Metadata(Box<str>, Box<[Box<str>]>),
}

/// Looks for text in a request's dynamic metadata, by namespace and path.
pub type Metadata<'a> = &'a dyn Fn(&str, &[Box<str>]) -> Option<String>;

impl OverrideHost {
    /// The hosts that the request names.
    pub(super) fn named(&self, headers: Option<&HeaderMap>, metadata: Option<Metadata<'_>>) -> Vec<String> {
        let of = |source: &OverrideSource| match source {
            OverrideSource::Header(name) => Some(headers?.get(name)?.to_str().ok()?.to_owned()),
            OverrideSource::Metadata(namespace, path) => metadata?(namespace, path),
        };
        let found: Vec<String> = self.sources.iter().filter_map(of).collect();
        found.iter().flat_map(|list| list.split(',')).map(|address| address.trim().to_owned()).collect()
    }
}

/// Hosts by their addresses.
#[derive(Debug, Default)]
pub(super) struct ByAddress(HashMap<Address, Arc<Host>>);

impl ByAddress {
    pub(super) fn new(endpoints: &Endpoints) -> Self {
        Self(endpoints.hosts().map(|host| (host.address.clone(), Arc::clone(host))).collect())
    }

    /// The host of this address.
    pub(super) fn any(&self, address: &str) -> Option<&Arc<Host>> {
        let address: SocketAddr = address.parse().ok()?;
        self.0.get(&Address::Ip(address))
    }

    /// The host of this address, if it may be used.
    pub(super) fn find(&self, address: &str, statuses: StatusSet) -> Option<&Arc<Host>> {
        self.any(address).filter(|host| statuses.contains(host.status()))
    }
}
