//! What changed between two snapshots: the scope of a push.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::mesh::EndpointChanges;

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigKey {
    /// Its kind (`VirtualService`, `Service`, `Pod`, `Secret`, …).
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ConfigKey {
    /// The key of an object.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// Everything may have changed (the first snapshot, MeshConfig).
    pub full: bool,
    /// Objects that were added, changed or removed. Pods are listed where what proxies read of them changed; Services
    /// where they themselves changed, not where only their endpoints did.
    pub configs: BTreeSet<ConfigKey>,
    /// Host names of services whose endpoints changed.
    pub endpoints: BTreeSet<Arc<str>>,
    /// Those of them where more differs than addresses and health: who serves, and how.
    pub reshaped: BTreeSet<Arc<str>>,
    /// Addresses at which other ports are served than before.
    pub addresses: BTreeSet<IpAddr>,
}

impl ChangeSet {
    /// A change of everything.
    pub fn all() -> Self {
        Self { full: true, ..Self::default() }
    }

    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.full && self.configs.is_empty() && self.endpoints.is_empty()
    }

    /// Only endpoints changed. Pods are no configuration: what is read of them is read from endpoints.
    pub fn only_endpoints(&self) -> bool {
        !self.full && self.configs.iter().all(|key| key.kind == "Pod")
    }

    /// Replaces what was believed of endpoints by what two snapshots tell.
    pub fn set_endpoints(&mut self, changes: EndpointChanges) {
        self.endpoints = changes.hosts;
        self.reshaped = changes.reshaped;
        self.addresses = changes.addresses;
    }

    /// Adds another change.
    pub fn merge(&mut self, other: Self) {
        self.full |= other.full;
        self.configs.extend(other.configs);
        self.endpoints.extend(other.endpoints);
        self.reshaped.extend(other.reshaped);
        self.addresses.extend(other.addresses);
    }
}
