//! The objects that a registry reads: some of Kubernetes' kinds, and all of the mesh.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{Finding, MeshObject};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The name of an object among all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{separator}{}", self.kind, self.namespace, self.name)
    }
}

/// An object. Cloning is cheap.
#[derive(Clone, PartialEq)]
#[allow(missing_docs, reason = "variant names are the kinds")]
pub enum Object {
    Namespace(Arc<Namespace>),
    Service(Arc<Service>),
    ServiceAccount(Arc<ServiceAccount>),
    Pod(Arc<Pod>),
    EndpointSlice(Arc<EndpointSlice>),
    Node(Arc<Node>),
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
    Mesh(MeshObject),
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the name: Secrets hold keys, which must never reach a log.
        write!(f, "{}", self.key())
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kind of the mesh with wrong fields.
    #[error(transparent)]
    Mesh(#[from] mesh_api::Error),
    /// A kind of Kubernetes that does not fit its type.
    #[error("{kind} {name}")]
    Kubernetes {
        /// The kind.
        kind: String,
        /// Namespace and name, as far as they are known.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// No `apiVersion`, `kind` or `metadata.name`.
    #[error("not a manifest: {0}")]
    NotAManifest(&'static str),
}

/// What a manifest holds for us.
#[derive(Debug)]
pub struct Decoded {
    /// The objects; none for kinds that a registry does not read.
    pub objects: Vec<Object>,
    /// What the user should be warned of.
    pub warnings: Vec<Finding>,
}

impl Object {
    /// Reads a manifest. A `List` gives its items; a kind that is not read (a Deployment) gives nothing.
    pub fn decode(manifest: &Value) -> Result<Decoded, Error> {
        let text = |key: &str| manifest.get(key).and_then(Value::as_str);
        let api_version = text("apiVersion").ok_or(Error::NotAManifest("apiVersion is missing"))?;
        let kind = text("kind").ok_or(Error::NotAManifest("kind is missing"))?;
        if mesh_api::object::is_mesh_api(api_version) {
            let (object, warnings) = mesh_api::check(manifest)?;
            return Ok(Decoded { objects: vec![Self::Mesh(object)], warnings });
        }
        let object = match (api_version, kind) {
            ("v1", "List") => return Self::decode_list(manifest),
            ("v1", "Namespace") => Self::Namespace(typed(manifest, false)?),
            ("v1", "Node") => Self::Node(typed(manifest, false)?),
            ("v1", "Service") => Self::Service(typed(manifest, true)?),
            ("v1", "ServiceAccount") => Self::ServiceAccount(typed(manifest, true)?),
            ("v1", "Pod") => Self::Pod(typed(manifest, true)?),
            ("v1", "ConfigMap") => Self::ConfigMap(typed(manifest, true)?),
            ("v1", "Secret") => Self::Secret(typed(manifest, true)?),
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::EndpointSlice(typed(manifest, true)?),
            _ => return Ok(Decoded { objects: Vec::new(), warnings: Vec::new() }),
        };
        Ok(Decoded { objects: vec![object], warnings: Vec::new() })
    }

    fn decode_list(manifest: &Value) -> Result<Decoded, Error> {
        let mut all = Decoded { objects: Vec::new(), warnings: Vec::new() };
        for item in manifest.get("items").and_then(Value::as_array).into_iter().flatten() {
            let mut one = Self::decode(item)?;
            all.objects.append(&mut one.objects);
            all.warnings.append(&mut one.warnings);
        }
        Ok(all)
    }

    /// Its name among all objects.
    pub fn key(&self) -> Key {
        if let Self::Mesh(object) = self {
            let meta = object.meta();
            return Key {
                kind: object.kind().name(),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            };
        }
        let (kind, meta) = self.kubernetes();
        Key {
            kind,
            namespace: meta.and_then(|m| m.namespace.clone()).unwrap_or_default(),
            name: meta.and_then(|m| m.name.clone()).unwrap_or_default(),
        }
    }

    fn kubernetes(&self) -> (&'static str, Option<&ObjectMeta>) {
        match self {
            Self::Namespace(o) => ("Namespace", Some(&o.metadata)),
            Self::Service(o) => ("Service", Some(&o.metadata)),
            Self::ServiceAccount(o) => ("ServiceAccount", Some(&o.metadata)),
            Self::Pod(o) => ("Pod", Some(&o.metadata)),
            Self::EndpointSlice(o) => ("EndpointSlice", Some(&o.metadata)),
            Self::Node(o) => ("Node", Some(&o.metadata)),
            Self::ConfigMap(o) => ("ConfigMap", Some(&o.metadata)),
            Self::Secret(o) => ("Secret", Some(&o.metadata)),
            Self::Mesh(_) => ("", None),
        }
    }

    /// Whether the two are the same allocation: a quick "nothing changed".
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Namespace(a), Self::Namespace(b)) => Arc::ptr_eq(a, b),
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::ServiceAccount(a), Self::ServiceAccount(b)) => Arc::ptr_eq(a, b),
            (Self::Pod(a), Self::Pod(b)) => Arc::ptr_eq(a, b),
            (Self::EndpointSlice(a), Self::EndpointSlice(b)) => Arc::ptr_eq(a, b),
            (Self::Node(a), Self::Node(b)) => Arc::ptr_eq(a, b),
            (Self::ConfigMap(a), Self::ConfigMap(b)) => Arc::ptr_eq(a, b),
            (Self::Secret(a), Self::Secret(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Reads a kind of Kubernetes; a namespaced one without namespace is of `default`.
fn typed<K>(manifest: &Value, namespaced: bool) -> Result<Arc<K>, Error>
where
    K: DeserializeOwned + k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    let mut object: K = serde_json::from_value(manifest.clone()).map_err(|source| {
        let text = |path: &str| manifest.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        Error::Kubernetes { kind: text("/kind"), name: name.trim_start_matches('/').to_owned(), source }
    })?;
    let meta = object.metadata_mut();
    if meta.name.as_deref().is_none_or(str::is_empty) {
        return Err(Error::NotAManifest("metadata.name is missing"));
    }
    if namespaced && meta.namespace.as_deref().is_none_or(str::is_empty) {
        meta.namespace = Some("default".to_owned());
    }
    // Who wrote which field is long and nobody's concern here.
    meta.managed_fields = None;
    Ok(Arc::new(object))
}
