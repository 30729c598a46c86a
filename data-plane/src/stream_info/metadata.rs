//! Metadata of a stream: what filters wrote for it, and what configuration says of the objects that it passed.

use std::sync::Arc;

use sail_proxy_decide::format::MetadataSource;
use sail_proxy_decide::route::Metadata;
use serde_json::{Map, Value};
use xds_api::google::protobuf::Any;

/// Dynamic metadata: an object a namespace; some filters write messages besides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DynamicMetadata(Map<String, Value>, Option<Box<Typed>>);

/// Messages, by namespace.
type Typed = Vec<(Box<str>, Any)>;

impl DynamicMetadata {
    /// Sets one key of a namespace.
    pub fn set(&mut self, namespace: &str, key: &str, value: Value) {
        if let Value::Object(fields) = self.namespace_mut(namespace) {
            fields.insert(key.to_owned(), value);
        }
    }

    /// Merges an object into a namespace: its keys win.
    pub fn merge(&mut self, namespace: &str, fields: Map<String, Value>) {
        if let Value::Object(old) = self.namespace_mut(namespace) {
            old.extend(fields);
        }
    }

    /// A namespace, as an object.
    pub fn get(&self, namespace: &str) -> Option<&Value> {
        self.0.get(namespace)
    }

    /// What lies under a path of keys in a namespace.
    pub fn lookup(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        sail_proxy_decide::matcher::lookup(self.get(namespace)?, path)
    }

    /// Sets a namespace's message.
    pub fn set_typed(&mut self, namespace: &str, message: Any) {
        let typed = self.1.get_or_insert_default();
        typed.retain(|(name, _)| **name != *namespace);
        typed.push((namespace.into(), message));
    }

    /// A namespace's message.
    pub fn typed(&self, namespace: &str) -> Option<&Any> {
        self.1.as_ref()?.iter().find(|(name, _)| **name == *namespace).map(|(_, message)| message)
    }

    /// Every namespace.
    pub fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn namespace_mut(&mut self, namespace: &str) -> &mut Value {
        // Nobody else puts anything but objects there.
        self.0.entry(namespace).or_insert_with(|| Value::Object(Map::new()))
    }
}

/// Metadata that configuration gives the objects on a stream's way; kept where a log or tag reads them.
#[derive(Clone, Debug, Default)]
pub struct ConfigMetadata {
    /// The listener's.
    pub listener: Metadata,
    /// The filter chain's.
    pub filter_chain: Metadata,
    /// The virtual host's.
    pub virtual_host: Metadata,
    /// The route's.
    pub route: Metadata,
    /// The cluster's.
    pub cluster: Metadata,
    /// The upstream host's.
    pub host: Metadata,
}

impl ConfigMetadata {
    /// One of them; the stream's own are none of these.
    pub fn of(&self, source: MetadataSource) -> Option<&Arc<Map<String, Value>>> {
        let metadata = match source {
            MetadataSource::Dynamic => return None,
            MetadataSource::Cluster => &self.cluster,
            MetadataSource::UpstreamHost => &self.host,
            MetadataSource::Route => &self.route,
            MetadataSource::VirtualHost => &self.virtual_host,
            MetadataSource::Listener => &self.listener,
            MetadataSource::ListenerFilterChain => &self.filter_chain,
        };
        metadata.as_ref()
    }
}

/// What lies under a namespace and a path of keys.
pub fn lookup<'a>(
    metadata: Option<&'a Arc<Map<String, Value>>>,
    namespace: &str,
    path: &[Box<str>],
) -> Option<&'a Value> {
    sail_proxy_decide::matcher::lookup(metadata?.get(namespace)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_grow_key_by_key() {
        let mut metadata = DynamicMetadata::default();
        metadata.set("a", "x", 1.into());
        metadata.set("a", "y", "2".into());
        let more = serde_json::json!({ "x": { "deep": true } });
        metadata.merge("a", more.as_object().cloned().unwrap_or_default());
        assert_eq!(metadata.get("a"), Some(&serde_json::json!({ "x": { "deep": true }, "y": "2" })));
        assert_eq!(metadata.lookup("a", &["x".into(), "deep".into()]), Some(&true.into()));
        assert_eq!(metadata.lookup("b", &[]), None);
    }
}
