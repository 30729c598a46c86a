//! Certificates and keys that gateways serve with, as their Secret or ConfigMap holds them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A Secret (or ConfigMap) with bytes by key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// It is a ConfigMap: it holds nothing that must be kept secret.
    pub config_map: bool,
    /// Its data, decoded from base64.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are keys: they must never reach a log.
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("keys", &self.data.keys().collect::<Vec<_>>())
            .finish()
    }
}
