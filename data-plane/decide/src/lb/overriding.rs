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
    /// Headers that may name hosts, as `IP:port` separated by commas; the first one found counts.
    pub headers: Box<[HeaderName]>,
    /// How a host is chosen where none is named.
    pub fallback: LbPolicy,
}

impl OverrideHost {
    /// The hosts that the request names.
    pub(super) fn named<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let found = self.headers.iter().find_map(|name| headers.get(name)?.to_str().ok());
        found.into_iter().flat_map(|list| list.split(',')).map(str::trim)
    }
}

/// Hosts by their addresses.
#[derive(Debug, Default)]
pub(super) struct ByAddress(HashMap<Address, Arc<Host>>);

impl ByAddress {
    pub(super) fn new(endpoints: &Endpoints) -> Self {
        Self(endpoints.hosts().map(|host| (host.address.clone(), Arc::clone(host))).collect())
    }

    /// The host of this address, if it may be used.
    pub(super) fn find(&self, address: &str, statuses: StatusSet) -> Option<&Arc<Host>> {
        let address: SocketAddr = address.parse().ok()?;
        self.0.get(&Address::Ip(address)).filter(|host| statuses.contains(host.status()))
    }
}
