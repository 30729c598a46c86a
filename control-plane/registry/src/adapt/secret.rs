//! Secrets, and ConfigMaps that hold certificates.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saild_model::Secret;

use crate::object::Object;

/// Keys under which a ConfigMap may hold roots for a gateway.
const CERTIFICATE_KEYS: [&str; 4] = ["ca.crt", "cacert", "ca.crl", "crl"];

/// Types of Secrets that never hold certificates.
const OTHER_TYPES: [&str; 4] = [
    "kubernetes.io/service-account-token",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "bootstrap.kubernetes.io/token",
];

/// What a gateway may be given; nothing for objects that hold something else.
pub(super) fn adapt(object: &Object) -> Option<Secret> {
    match object {
        Object::Secret(secret) => {
            if secret.type_.as_deref().is_some_and(|t| OTHER_TYPES.contains(&t)) {
                return None;
            }
            let mut data = BTreeMap::new();
            for (key, bytes) in secret.data.iter().flatten() {
                data.insert(key.clone(), bytes.0.clone());
            }
            // An API server would have moved these to `data`; a file on disk has them as written.
            for (key, text) in secret.string_data.iter().flatten() {
                data.insert(key.clone(), text.clone().into_bytes());
            }
            Some(made(&secret.metadata, false, data))
        }
        Object::ConfigMap(map) => {
            let mut data = BTreeMap::new();
            for (key, text) in map.data.iter().flatten() {
                data.insert(key.clone(), text.clone().into_bytes());
            }
            for (key, bytes) in map.binary_data.iter().flatten() {
                data.insert(key.clone(), bytes.0.clone());
            }
            let holds = data.keys().any(|key| CERTIFICATE_KEYS.contains(&key.as_str()));
            holds.then(|| made(&map.metadata, true, data))
        }
        _ => None,
    }
}

fn made(meta: &ObjectMeta, config_map: bool, data: BTreeMap<String, Vec<u8>>) -> Secret {
    Secret {
        name: meta.name.as_deref().unwrap_or_default().into(),
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        config_map,
        data,
    }
}
