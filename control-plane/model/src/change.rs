//! What changed between two snapshots: the scope of a push.

use std::collections::BTreeSet;
use std::sync::Arc;

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

    /// Only endpoints changed.
    pub fn only_endpoints(&self) -> bool {
        !self.full && self.configs.is_empty()
    }

    /// Adds another change.
    pub fn merge(&mut self, other: Self) {
        self.full |= other.full;
        self.configs.extend(other.configs);
        self.endpoints.extend(other.endpoints);
    }
}
